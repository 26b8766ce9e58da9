"""Inference of latent codes from whichever modalities were observed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mfm.models.backend import use_backend
from mfm.models.decoders import TeacherForcedDecoder
from mfm.models.encoders import ENCODERS, Encoder
from mfm.models.factor_model import FactorModel
from mfm.models.masking import zero_padding
from mfm.models.mfm import MFM, Codes, Factors, MFMOutput
from mfm.models.per_modality import PerModality, spread, spread_checked
from mfm.models.registry import Rate, Size, Spec, check_value
from mfm.models.together import encode_together


class Surrogate(nn.Module):
    """Phi(X_obs) -> Z_y and every Z_ai: one network for every non-empty subset of modalities.

    The paper's surrogate inference (Tsai et al., ICLR 2019, arXiv 1806.06176) approximates Q(Z | X_1:M) from what was
    observed; the authors' code has two networks for each single modality that may be missing. Here

        e_i = encoder_i(X_i)      p_i = 1 where X_i was observed, else 0      Z_y^0 = the model's own Q(Z_y | X_obs)
        s   = ReLU MLP of two layers([p_1 e_1 .. p_M e_M; p_1 .. p_M; Z_y^0])
        Z_y = Z_y^0 + A_y s + b_y                Z_ai = A_i s + b_i

    A_y and b_y start at 0: it learns what the model's own fusion misses when modalities are absent, and starts no worse
    than that.

    No output depends on a padded step or on the features of an absent modality, and every parameter takes part in
    every pass, whatever was observed.

    Args:
        feature_dims: Modality -> D_i.
        z_y: Size of Z_y.
        z: Modality -> size of Z_ai.
        encoder: Name of an encoder, or a mapping of `name` and settings, per modality.
        width: Size of e_i, per modality.
        hidden: Width of the perceptron's layers.
        dropout: Dropout after each of them.

    Raises:
        ConfigurationError: An unknown encoder, setting or modality, or an impossible size.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        z_y: int,
        z: Mapping[str, int],
        *,
        encoder: str | Mapping[str, Any] = "lstm",
        width: int | Mapping[str, int] = 64,
        hidden: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.feature_dims = dict(sorted(feature_dims.items()))
        names = list(self.feature_dims)
        check_value("surrogate_hidden", hidden, Size)
        check_value("surrogate_dropout", dropout, Rate)
        encoder_i: dict[str, Spec] = spread("surrogate_encoder", encoder, names)
        width_i = spread_checked("surrogate_width", width, names, Size)
        self.encoders: PerModality[Encoder] = PerModality(
            {i: ENCODERS.build(encoder_i[i], input_dim=self.feature_dims[i], code_dim=width_i[i]) for i in names}
        )
        self.fuse = nn.Sequential(
            nn.Linear(sum(width_i.values()) + len(names) + z_y, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.to_z_y = nn.Linear(hidden, z_y)
        nn.init.zeros_(self.to_z_y.weight)
        nn.init.zeros_(self.to_z_y.bias)
        self.to_z = PerModality({i: nn.Linear(hidden, z[i]) for i in names})

    def forward(
        self,
        features: Mapping[str, Tensor],
        lengths: Mapping[str, Tensor],
        observed: Mapping[str, Tensor],
        own_z_y: Tensor,
    ) -> Codes:
        """Infer all codes of a batch.

        Args:
            features: Modality -> (B, T_m, D_m), left-aligned; a modality that is not there is absent for all.
            lengths: Modality -> (B,) int64 real steps.
            observed: Modality -> (B,) bool; where False, features and length are not looked at.
            own_z_y: (B, z_y) Z_y^0, what the model's own fusion makes of the observed.

        Returns:
            The codes, for every modality of the model; zeros, the prior's mean, where nothing was observed.
        """
        some = features[next(iter(features))]
        own, x = {}, {}
        for name, dim in self.feature_dims.items():
            if name in features:
                own[name], x[name] = lengths[name].masked_fill(~observed[name], 0), features[name]
            else:  # one padded step, so that its parameters still take part
                own[name], x[name] = next(iter(lengths.values())) * 0, some.new_zeros(some.shape[0], 1, dim)
        parts = list(encode_together(self.encoders, [], x, own)[1].values())
        mask = torch.stack([length > 0 for length in own.values()], dim=1)
        state = self.fuse(torch.cat([*parts, mask.to(parts[0].dtype), own_z_y], dim=1))
        nothing = ~mask.any(dim=1, keepdim=True)
        return Codes(
            (own_z_y + self.to_z_y(state)).masked_fill(nothing, 0.0),
            {name: to_z(state).masked_fill(nothing, 0.0) for name, to_z in self.to_z.items()},
        )


def surrogate_for(model: MFM, **settings: Any) -> Surrogate:
    """A surrogate that infers the codes of `model`; settings as of `Surrogate`."""
    z_y = model.factor_y[0].in_features
    z = {name: network[0].in_features for name, network in model.factors.items()}
    surrogate = Surrogate(model.feature_dims, z_y, z, **settings)  # type: ignore[arg-type]  # nn.Linear's are ints
    use_backend(surrogate, model.backend)
    return surrogate


def observed_modalities(
    model: FactorModel, lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Modality -> (B,) bool, for every modality of the model: was a step of it observed."""
    nobody = torch.zeros_like(next(iter(present.values())))
    return {name: present[name] & (lengths[name] > 0) if name in present else nobody for name in model.modalities}


def completely_observed(observed: Mapping[str, Tensor]) -> Tensor:
    """Which samples have every modality, (B,) bool."""
    return torch.stack(list(observed.values())).all(dim=0)


def surrogate_codes(
    surrogate: Surrogate,
    own: Codes,
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
    observed: Mapping[str, Tensor],
) -> Codes:
    """Z_y of the surrogate, its Z_ai where modality i was not observed, and the encoders' own where it was.

    Args:
        surrogate: Phi.
        own: What the model's encoders make of the observed, as `MFM.encode`.
        features: As in `Surrogate.forward`.
        lengths: As in `Surrogate.forward`.
        observed: Modality -> (B,) bool, for every modality of the model.
    """
    inferred = surrogate(features, lengths, observed, own.z_y)
    z = {name: torch.where(observed[name][:, None], own.z[name], code) for name, code in inferred.z.items()}
    return Codes(inferred.z_y, z)


def infer_codes(
    model: FactorModel,
    surrogate: Surrogate | None,
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
) -> Codes:
    """Q(Z | X) for samples that have every modality, Phi(X_obs) for those that lack some; mixed in one batch.

    Args:
        model: The model.
        surrogate: Phi; None infers with the model's own encoders whatever is missing.
        features: As in `MFM.encode`.
        lengths: As in `MFM.encode`.
        present: As in `MFM.encode`.

    Returns:
        The codes, for every modality of the model; those of a sample with all modalities are exactly `MFM.encode`'s.
    """
    codes = model.encode(features, lengths, present)
    if surrogate is None:
        return codes
    observed = observed_modalities(model, lengths, present)
    inferred = surrogate_codes(surrogate, codes, features, lengths, observed)
    complete = completely_observed(observed)[:, None]
    return inferred._replace(z_y=torch.where(complete, codes.z_y, inferred.z_y))


def infer(
    model: MFM,
    surrogate: Surrogate | None,
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
) -> MFMOutput:
    """Infer, factorise, predict and reconstruct, whatever was observed; arguments as in `infer_codes`.

    A sample that has every modality comes out as from `model` alone. Where a modality is missing it is generated: a
    decoder that is otherwise taught with the true sequence runs on its own output.
    """
    if surrogate is None:
        output: MFMOutput = model(features, lengths, present)
        return output
    codes = infer_codes(model, surrogate, features, lengths, present)
    factors = model.factorize(codes)
    observed = observed_modalities(model, lengths, present)
    reconstruction = _decoded(model, factors, features, lengths, observed)
    return MFMOutput(model.predict(factors.f_y), reconstruction, codes, factors, codes)


def generate(
    model: MFM, codes: Codes, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None
) -> MFMOutput:
    """Factorise, predict and decode as many steps as `features` have, without looking at them.

    While training, the codes have the noise that the model's own training has. `lengths` as in `MFM.decode`.
    """
    drawn = model.perturb(codes)
    factors = model.factorize(drawn)
    steps = {name: x.shape[1] for name, x in features.items()}
    reconstruction = model.decode(factors, steps, lengths=lengths)
    return MFMOutput(model.predict(factors.f_y), reconstruction, codes, factors, drawn)


def _decoded(
    model: MFM,
    factors: Factors,
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
    observed: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    steps = {name: x.shape[1] for name, x in features.items()}
    known = {name: lengths[name].masked_fill(~observed[name], 0) for name in features}
    inputs = {name: zero_padding(x, known[name])[:, : steps[name]] for name, x in features.items()}
    wanted = {name: known[name].masked_fill(~observed[name], steps[name]) for name in features}
    decoded = model.decode(factors, steps, inputs, wanted)
    taught = {name: steps[name] for name in steps if isinstance(model.decoders[name], TeacherForcedDecoder)}
    for name, free in model.decode(factors, taught).items():
        decoded[name] = torch.where(observed[name][:, None, None], decoded[name], free)
    return decoded
