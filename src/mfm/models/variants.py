"""The paper's ablation ladder: models between a discriminative network and MFM, from the same parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError, nearest
from mfm.models.code_noise import CodeNoise, GaussianNoise, checked_deviation
from mfm.models.decoders import DECODERS, Decoder
from mfm.models.encoders import ENCODERS, Encoder
from mfm.models.fusion import FUSIONS
from mfm.models.mfm import (
    Codes,
    Factors,
    Layout,
    _checked_dims,
    _factor_network,
    _head,
    check_modality,
    observed_inputs,
)
from mfm.models.per_modality import PerModality, spread, spread_checked
from mfm.models.registry import Range, Rate, Size, Spec, check_value
from mfm.models.together import decode_together, encode_together

Variant = Literal["M_A", "M_B", "M_C", "M_D", "M_E", "MFM"]
PosteriorKind = Literal["point", "gaussian"]

SHARED = "shared"
"""Name of M_E's one generative block among the codes and factors."""


LAYOUTS: dict[str, Layout] = {
    "M_A": Layout(joint=False, own=True, shared=False, generates=False),
    "M_B": Layout(joint=True, own=False, shared=False, generates=False),
    "M_C": Layout(joint=False, own=True, shared=False, generates=True),
    "M_D": Layout(joint=True, own=False, shared=False, generates=True),
    "M_E": Layout(joint=True, own=False, shared=True, generates=True),
    "MFM": Layout(joint=True, own=True, shared=False, generates=True),
}


class Posterior(NamedTuple):
    """Q(Z | X): `mean`, and the `log_variance` of a diagonal Gaussian; None where Q is a point.

    Blocks that a variant does not have are (B, 0) for Z_y and absent from `z`; M_E's shared one is `z["shared"]`.
    """

    mean: Codes
    log_variance: Codes | None


class AblationOutput(NamedTuple):
    """What a variant makes of a batch.

    Attributes:
        prediction: Y^, (B, output_dim).
        reconstruction: Modality -> X^_i (B, T_m, D_m) for the batch's modalities, as in `MFMOutput`; empty if
            nothing is generated.
        posterior: Q(Z | X).
        factors: F, of the codes as drawn; blocks as in `Posterior`.
        drawn: Z, sampled or with noise while training; otherwise the posterior's mean.
    """

    prediction: Tensor
    reconstruction: dict[str, Tensor]
    posterior: Posterior
    factors: Factors
    drawn: Codes


class AblationModel(nn.Module):
    """One rung of the ladder M_A .. M_E, MFM (Tsai et al., ICLR 2019, arXiv 1806.06176, ablation study).

        M_A   Z_ai = enc_i(X_i)                          F_ai = G_ai(Z_ai)   Y^ = D([F_a1 .. F_aM])
        M_B   Z_y = fusion(X_1:M)                        F_y = G_y(Z_y)      Y^ = D(F_y)
        M_C   as M_A, and                                                    X^_i = Dec_i(F_ai)
        M_D   as M_B, and                                                    X^_i = Dec_i(F_y)
        M_E   as M_B, and Z_a = fusion_a(X_1:M)          F_a = G_a(Z_a)      X^_i = Dec_i(F_a, F_y)
        MFM   as M_B, and Z_ai = enc_i(X_i)              F_ai = G_ai(Z_ai)   X^_i = Dec_i(F_ai, F_y)

    M_A and M_B are purely discriminative. The paper does not say how M_E infers its shared factor; here by a second
    fusion of the same kind. `MFM` has the parameters of `mfm.models.mfm.MFM` by the same names, and its outputs.

    With `posterior: gaussian` every encoder and fusion gives mean and log-variance, and codes are drawn while training,

        Z = mean + exp(log_variance / 2) * e      e ~ N(0, I)

    (Kingma and Welling, ICLR 2014) and are the mean at evaluation. What was not observed has the prior as posterior:
    mean 0 and log-variance 0. As in MFM, no output depends on padding or on absent modalities.

    Args:
        feature_dims: Modality -> D_i.
        output_dim: Outputs of the head, >= 0; 0 only for variants that generate.
        variant: Name in `LAYOUTS`.
        posterior: `point` (the paper's) or `gaussian`.
        z_shared: Size of Z_a in M_E.
        f_shared: Size of F_a in M_E.
        dropout_shared: Dropout in G_a of M_E.
        z_y: This and all others as in `MFM`; those of parts that a variant does not have are not used.

    Raises:
        ConfigurationError: An unknown name (the nearest is named), an impossible size, or a Gaussian posterior for a
            variant without prior or together with code noise.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        *,
        variant: str = "MFM",
        posterior: str = "point",
        z_y: int = 32,
        z: int | Mapping[str, int] = 32,
        z_shared: int = 32,
        f_y: int = 32,
        f: int | Mapping[str, int] = 32,
        f_shared: int = 32,
        encoder: str | Mapping[str, Any] = "lstm",
        fusion: str | Mapping[str, Any] = "mfn",
        decoder: str | Mapping[str, Any] = "free_running",
        dropout_y: float = 0.0,
        dropout: float | Mapping[str, float] = 0.0,
        dropout_shared: float = 0.0,
        dropout_head: float = 0.0,
        code_noise: CodeNoise = 0.0,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.feature_dims = _checked_dims(feature_dims)
        names = self.modalities = list(self.feature_dims)
        layout = self.layout = checked_layout(variant, posterior, output_dim)
        self.variant, self.gaussian = variant, posterior == "gaussian"
        for option, size in (("z_y", z_y), ("f_y", f_y), ("z_shared", z_shared), ("f_shared", f_shared)):
            check_value(option, size, Size)
        rates = (("dropout_y", dropout_y), ("dropout_shared", dropout_shared), ("dropout_head", dropout_head))
        for option, rate in rates:
            check_value(option, rate, Rate)
        if self.gaussian and checked_deviation(code_noise):
            raise ConfigurationError("a gaussian posterior draws its own noise: set code_noise to 0")
        z_i, f_i = spread_checked("z", z, names, Size), spread_checked("f", f, names, Size)
        dropout_i = spread_checked("dropout", dropout, names, Rate)
        encoder_i: dict[str, Spec] = spread("encoder", encoder, names)
        decoder_i: dict[str, Spec] = spread("decoder", decoder, names)
        own = names if layout.own else []
        width = 2 if self.gaussian else 1  # mean and log-variance

        # Parts are made in MFM's order, so that one seed gives both the same weights
        self.encoders: PerModality[Encoder] = PerModality(
            {i: ENCODERS.build(encoder_i[i], input_dim=self.feature_dims[i], code_dim=width * z_i[i]) for i in own}
        )
        fuse = {"feature_dims": self.feature_dims, "aligned": aligned}
        self.fusion = FUSIONS.build(fusion, code_dim=width * z_y, **fuse) if layout.joint else None
        self.fusion_shared = FUSIONS.build(fusion, code_dim=width * z_shared, **fuse) if layout.shared else None
        self.factor_y = _factor_network(z_y, f_y, dropout_y) if layout.joint else None
        self.factors = PerModality({i: _factor_network(z_i[i], f_i[i], dropout_i[i]) for i in own})
        self.factor_shared = _factor_network(z_shared, f_shared, dropout_shared) if layout.shared else None
        generative = f_i if layout.own else dict.fromkeys(names, f_shared if layout.shared else 0)
        read = {"f_y": f_y if layout.joint else 0}
        decoded = names if layout.generates else []
        self.decoders: PerModality[Decoder] = PerModality(
            {
                i: DECODERS.build(decoder_i[i], f_i=generative[i], output_dim=self.feature_dims[i], **read)
                for i in decoded
            }
        )
        label_width = f_y if layout.joint else sum(f_i.values())
        self.head = _head(label_width, output_dim, dropout_head) if output_dim else None
        self.noise_y = GaussianNoise(z_y if layout.joint else 0, code_noise)
        widths = {**{i: z_i[i] for i in own}, **({SHARED: z_shared} if layout.shared else {})}
        self.noise = PerModality({i: GaussianNoise(width, code_noise) for i, width in widths.items()})

    def posterior(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Posterior:
        """Q(Z | X); arguments and errors as in `MFM.encode`."""
        return self._posterior(*observed_inputs(self.feature_dims, features, lengths, present))

    def encode(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Codes:
        """The mean of Q(Z | X); as in `MFM.encode`, with the blocks that the variant has."""
        return self.posterior(features, lengths, present).mean

    def draw(self, posterior: Posterior) -> Codes:
        """Codes to go on with: a sample of a Gaussian or a perturbed point while training, the mean otherwise."""
        mean, log_variance = posterior
        if not self.training:
            return mean
        if log_variance is None:
            z = {i: self.noise[i](code) for i, code in mean.z.items()}
            return Codes(self.noise_y(mean.z_y), z)
        z = {i: code + (0.5 * log_variance.z[i]).exp() * torch.randn_like(code) for i, code in mean.z.items()}
        return Codes(mean.z_y + (0.5 * log_variance.z_y).exp() * torch.randn_like(mean.z_y), z)

    def factorize(self, codes: Codes) -> Factors:
        """G: factors from codes, whether inferred or drawn from N(0, I)."""
        f_y = codes.z_y if self.factor_y is None else self.factor_y(codes.z_y)
        f = {i: network(codes.z[i]) for i, network in self.factors.items()}
        if self.factor_shared is not None:
            f[SHARED] = self.factor_shared(codes.z[SHARED])
        return Factors(f_y, f)

    def decode(
        self,
        factors: Factors,
        steps: Mapping[str, int],
        inputs: Mapping[str, Tensor] | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Dec: sequences from factors, as `MFM.decode`; nothing for a purely discriminative variant."""
        for name in steps:
            check_modality(name, self.feature_dims)
        if not self.layout.generates:
            return {}
        inputs, nothing = inputs or {}, factors.f_y[:, :0]
        generative = {i: factors.f.get(SHARED if self.layout.shared else i, nothing) for i in sorted(steps)}
        return decode_together(self.decoders, factors.f_y, generative, steps, inputs, lengths)

    def predict_from(self, factors: Factors) -> Tensor:
        """D: the label from F_y, or from all F_ai in sorted order without; (B, 0) for a model without head."""
        read = factors.f_y if self.layout.joint else torch.cat([factors.f[i] for i in self.modalities], dim=1)
        if self.head is None:
            return read[:, :0]
        prediction: Tensor = self.head(read)
        return prediction

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> AblationOutput:
        """Infer, draw, factorise, predict and reconstruct; arguments as in `encode`."""
        observed, observed_lengths = observed_inputs(self.feature_dims, features, lengths, present)
        posterior = self._posterior(observed, observed_lengths)
        drawn = self.draw(posterior)
        factors = self.factorize(drawn)
        steps = {i: x.shape[1] for i, x in features.items()}
        inputs = {i: observed[i][:, : steps[i]] for i in steps}
        reconstruction = self.decode(factors, steps, inputs, observed_lengths)
        return AblationOutput(self.predict_from(factors), reconstruction, posterior, factors, drawn)

    def _posterior(self, observed: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Posterior:
        fusions = [fusion for fusion in (self.fusion_shared, self.fusion) if fusion is not None]
        fused, z = encode_together(self.encoders, fusions, observed, lengths)
        some = next(iter(observed.values()))
        z_y = some.new_zeros(some.shape[0], 0) if self.fusion is None else fused.pop()
        if self.fusion_shared is not None:
            z[SHARED] = fused.pop()
        if not self.gaussian:
            return Posterior(Codes(z_y, z), None)
        halves = {name: code.chunk(2, dim=1) for name, code in z.items()}
        mean_y, log_variance_y = z_y.tensor_split(2, dim=1)
        return Posterior(
            Codes(mean_y, {name: half[0] for name, half in halves.items()}),
            Codes(log_variance_y, {name: half[1] for name, half in halves.items()}),
        )


def checked_layout(variant: str, posterior: str, output_dim: int) -> Layout:
    """The layout of a variant.

    Raises:
        ConfigurationError: Unknown names, or a combination that makes no model.
    """
    if variant not in LAYOUTS:
        raise ConfigurationError(f"unknown variant {variant!r}: {nearest(str(variant), LAYOUTS)}")
    if posterior not in get_args(PosteriorKind):
        raise ConfigurationError(f"unknown posterior {posterior!r}: {nearest(str(posterior), get_args(PosteriorKind))}")
    check_value("output_dim", output_dim, Annotated[int, Range(0)])
    layout = LAYOUTS[variant]
    if not layout.generates and posterior == "gaussian":
        raise ConfigurationError(
            f"variant {variant} is purely discriminative and has no prior: its posterior is a point"
        )
    if not layout.generates and not output_dim:
        raise ConfigurationError(
            f"variant {variant} is purely discriminative: without a label there is nothing to learn"
        )
    return layout
