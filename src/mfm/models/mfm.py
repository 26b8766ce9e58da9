"""The Multimodal Factorization Model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from torch import Tensor, nn

from mfm.errors import ConfigurationError, nearest
from mfm.models import images as _images  # noqa: F401  (makes `conv` known by its name)
from mfm.models import mfn as _mfn  # noqa: F401  (makes the paper's fusion known by its name)
from mfm.models import state_space as _state_space  # noqa: F401  (makes `ssm` known by its name)
from mfm.models.backend import Backend, use_backend
from mfm.models.code_noise import CodeNoise, GaussianNoise
from mfm.models.decoders import DECODERS, Decoder
from mfm.models.encoders import ENCODERS, Encoder
from mfm.models.fusion import FUSIONS
from mfm.models.masking import zero_padding
from mfm.models.per_modality import RESERVED, PerModality, spread, spread_checked
from mfm.models.registry import Range, Rate, Size, Spec, check_value
from mfm.models.together import decode_together, encode_together


class Codes(NamedTuple):
    """Latent codes Z of a batch: `z_y` (B, z_y) and `z`, modality -> Z_ai (B, z_i)."""

    z_y: Tensor
    z: dict[str, Tensor]


class Factors(NamedTuple):
    """Factors F of a batch, all >= 0: `f_y` (B, f_y) and `f`, modality -> F_ai (B, f_i)."""

    f_y: Tensor
    f: dict[str, Tensor]


class Layout(NamedTuple):
    """Which factors a model has: `joint` F_y, `own` F_ai per modality, one `shared` F_a; whether it `generates`."""

    joint: bool
    own: bool
    shared: bool
    generates: bool


class MFMOutput(NamedTuple):
    """What the model makes of a batch.

    Attributes:
        prediction: Y^, (B, output_dim); logits for classification.
        reconstruction: Modality -> X^_i (B, T_m, D_m) for the modalities that the batch has; 0 in padding and where the
            modality is absent, of which `MFM.decode` makes as many steps as are wanted.
        codes: Z, without noise.
        factors: F, of the codes as drawn.
        drawn: Z as drawn while training with noise; otherwise `codes`.
    """

    prediction: Tensor
    reconstruction: dict[str, Tensor]
    codes: Codes
    factors: Factors
    drawn: Codes


class MFM(nn.Module):
    """Multimodal Factorization Model (Tsai, Liang, Zadeh, Morency, Salakhutdinov, ICLR 2019, arXiv 1806.06176).

    Modalities i = 1..M with sequences X_i and one label Y; Z = [Z_y, Z_a1 .. Z_aM] ~ N(0, I). Generation:

        F_y  = G_y(Z_y)                    multimodal discriminative factor
        F_ai = G_ai(Z_ai)                  modality-specific generative factors
        X^_i = Dec_i(F_ai, F_y)            `decoder`
        Y^   = D(F_y)                      `head`; reads F_y alone

    Inference, Q(Z | X_1:M) = Q(Z_y | X_1:M) prod_i Q(Z_ai | X_i), deterministic:

        Z_ai = encoder_i(X_i)              `encoder`
        Z_y  = fusion(X_1:M)               `fusion`, by default a Memory Fusion Network

    with G = Linear - ReLU - Dropout - Linear - ReLU and D = Linear - ReLU - Dropout - Linear. The objective is
    `mfm.losses.MFMObjective`.

    No output depends on a padded step or on the features of an absent modality. The Z_ai of an absent modality
    is 0, the prior's mean, and Z_y is 0 where every modality is absent; put inferred codes in their place with
    `codes._replace` before `factorize`. Options "per modality" take one value for all or a mapping from modality
    to value, in which `default` stands for those not named.

    Args:
        feature_dims: Modality -> D_i; any names, any number >= 1.
        output_dim: Outputs of the head; 0 builds no head (purely generative).
        z_y: Size of Z_y.
        z: Size of Z_ai, per modality.
        f_y: Size of F_y.
        f: Size of F_ai, per modality.
        encoder: Name of an encoder, or a mapping of `name` and settings, per modality.
        fusion: Name of a fusion, or a mapping of `name` and settings.
        decoder: Name of a decoder, or a mapping of `name` and settings, per modality.
        dropout_y: Dropout in G_y.
        dropout: Dropout in G_ai, per modality.
        dropout_head: Dropout in D.
        code_noise: Deviation of the Gaussian noise that `forward` adds to the codes before G while training, >= 0, or
            `learned` (see `mfm.models.code_noise`); the paper has none. Spare dimensions of Z_y then need not fill up
            with what belongs to one modality.
        aligned: Whether step t is the same moment in all modalities (word-aligned features).
        backend: What computes the recurrences: `auto`, `fused` or `reference` (see `mfm.models.backend`).

    Raises:
        ConfigurationError: An unknown modality, part or setting (the nearest is named), or an impossible size.
    """

    layout = Layout(joint=True, own=True, shared=False, generates=True)

    backend: Backend = "auto"

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        *,
        z_y: int = 32,
        z: int | Mapping[str, int] = 32,
        f_y: int = 32,
        f: int | Mapping[str, int] = 32,
        encoder: str | Mapping[str, Any] = "lstm",
        fusion: str | Mapping[str, Any] = "mfn",
        decoder: str | Mapping[str, Any] = "free_running",
        dropout_y: float = 0.0,
        dropout: float | Mapping[str, float] = 0.0,
        dropout_head: float = 0.0,
        code_noise: CodeNoise = 0.0,
        aligned: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.feature_dims = _checked_dims(feature_dims)
        names = self.modalities = list(self.feature_dims)
        check_value("output_dim", output_dim, Annotated[int, Range(0)])
        for option, size in (("z_y", z_y), ("f_y", f_y)):
            check_value(option, size, Size)
        for option, rate in (("dropout_y", dropout_y), ("dropout_head", dropout_head)):
            check_value(option, rate, Rate)
        z_i, f_i = spread_checked("z", z, names, Size), spread_checked("f", f, names, Size)
        dropout_i = spread_checked("dropout", dropout, names, Rate)
        encoder_i: dict[str, Spec] = spread("encoder", encoder, names)
        decoder_i: dict[str, Spec] = spread("decoder", decoder, names)

        # Inference: Q(Z_ai | X_i) and Q(Z_y | X_1:M)
        self.encoders: PerModality[Encoder] = PerModality(
            {i: ENCODERS.build(encoder_i[i], input_dim=self.feature_dims[i], code_dim=z_i[i]) for i in names}
        )
        self.fusion = FUSIONS.build(fusion, feature_dims=self.feature_dims, code_dim=z_y, aligned=aligned)
        # Factors: G_y and G_ai
        self.factor_y = _factor_network(z_y, f_y, dropout_y)
        self.factors = PerModality({i: _factor_network(z_i[i], f_i[i], dropout_i[i]) for i in names})
        # Generation: Dec_i and D
        self.decoders: PerModality[Decoder] = PerModality(
            {i: DECODERS.build(decoder_i[i], f_y=f_y, f_i=f_i[i], output_dim=self.feature_dims[i]) for i in names}
        )
        self.head = _head(f_y, output_dim, dropout_head) if output_dim else None
        self.noise_y = GaussianNoise(z_y, code_noise)
        self.noise = PerModality({i: GaussianNoise(z_i[i], code_noise) for i in names})
        use_backend(self, backend)

    def encode(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Codes:
        """Q(Z | X): infer the codes of a batch.

        Args:
            features: Modality -> (B, T_m, D_m), left-aligned. A modality of the model that is not
                among them is absent for all samples.
            lengths: Modality -> (B,) int64 real steps.
            present: Modality -> (B,) bool; where False, features and length are not looked at.

        Returns:
            The codes, for every modality of the model.

        Raises:
            ConfigurationError: A modality that the model was not built for, or another number of features.
        """
        return self._encode(*self._observed(features, lengths, present))

    def factorize(self, codes: Codes) -> Factors:
        """G: factors from codes, whether inferred or drawn from N(0, I)."""
        return Factors(self.factor_y(codes.z_y), {i: network(codes.z[i]) for i, network in self.factors.items()})

    def perturb(self, codes: Codes) -> Codes:
        """Codes with noise while training; the same codes, and nothing drawn, otherwise."""
        z = {i: noise(codes.z[i]) for i, noise in self.noise.items()}
        return Codes(self.noise_y(codes.z_y), z)

    def decode(
        self,
        factors: Factors,
        steps: Mapping[str, int],
        inputs: Mapping[str, Tensor] | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Dec: sequences from factors.

        Args:
            factors: F_y and the F_ai of the modalities to decode.
            steps: Modality -> steps T_m to decode; modalities not named are not decoded.
            inputs: Modality -> (B, T_m, D_m) true sequences with zeros in padding, for decoders that
                are taught with them; without, they run on their own output.
            lengths: Modality -> (B,) steps wanted of each sample; what comes after them is 0. Without, all are.

        Returns:
            Modality -> (B, T_m, D_m).

        Raises:
            ConfigurationError: A modality that the model was not built for.
        """
        inputs = inputs or {}
        for name in steps:
            self._known(name)
        return decode_together(self.decoders, factors.f_y, factors.f, steps, inputs, lengths)

    def predict(self, f_y: Tensor) -> Tensor:
        """D: the label from F_y; (B, output_dim), (B, 0) for a model without head."""
        if self.head is None:
            return f_y.new_zeros(f_y.shape[0], 0)
        prediction: Tensor = self.head(f_y)
        return prediction

    def predict_from(self, factors: Factors) -> Tensor:
        """As `predict`, from all factors, of which it reads F_y."""
        return self.predict(factors.f_y)

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> MFMOutput:
        """Infer, factorise, predict and reconstruct; arguments as in `encode`."""
        observed, observed_lengths = self._observed(features, lengths, present)
        codes = self._encode(observed, observed_lengths)
        drawn = self.perturb(codes)
        factors = self.factorize(drawn)
        steps = {i: x.shape[1] for i, x in features.items()}
        inputs = {i: observed[i][:, : steps[i]] for i in steps}
        reconstruction = self.decode(factors, steps, inputs, observed_lengths)
        return MFMOutput(self.predict(factors.f_y), reconstruction, codes, factors, drawn)

    def infer_label(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Y^ = D(G_y(Q(Z_y | X_1:M))), (B, output_dim), and nothing that it does not need; arguments as in `encode`."""
        (z_y,), _ = encode_together(PerModality({}), [self.fusion], *self._observed(features, lengths, present))
        return self.predict(self.factor_y(z_y))

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each part, `encoders/<modality>` and so on, and their sum under `total`.

        With the paper's parts, writing L(d, h) = 4h(d + h + 2) for an LSTM and A(d, h) = h(d + 1) for a linear map:
        encoder L(D_i, z_i) + A(z_i, z_i); G A(z, f) + A(f, f); decoder L(h, h) + A(h, D_i) with h = f_y + f_i.
        """
        counts = {"fusion": _count(self.fusion), "factor_y": _count(self.factor_y)}
        groups: tuple[tuple[str, PerModality[Any]], ...] = (
            ("encoders", self.encoders),
            ("factors", self.factors),
            ("decoders", self.decoders),
        )
        for group, parts in groups:
            counts |= {f"{group}/{i}": _count(part) for i, part in parts.items()}
        if self.head is not None:
            counts["head"] = _count(self.head)
        return {**counts, "total": sum(counts.values())}

    def _encode(self, observed: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Codes:
        (z_y,), z = encode_together(self.encoders, [self.fusion], observed, lengths)
        return Codes(z_y, z)

    def _observed(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return observed_inputs(self.feature_dims, features, lengths, present)

    def _known(self, name: str) -> None:
        check_modality(name, self.feature_dims)


def observed_inputs(
    feature_dims: Mapping[str, int],
    features: Mapping[str, Tensor],
    lengths: Mapping[str, Tensor],
    present: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Features and lengths of every modality of the model, with zeros for all that was not observed.

    A modality that the batch lacks becomes one padded step, so that its parameters still take part
    (with zero gradients), as distributed training requires.
    """
    if not features:
        raise ConfigurationError(f"the batch has no modality; give some of: {', '.join(feature_dims)}")
    for name, x in features.items():
        check_modality(name, feature_dims)
        if x.shape[-1] != feature_dims[name]:
            raise ConfigurationError(
                f"modality {name!r} has {x.shape[-1]} features a step, but the model was built for "
                f"{feature_dims[name]}; give the features that it was trained on"
            )
    some = next(iter(features))
    nothing = lengths[some].new_zeros(lengths[some].shape)
    observed, observed_lengths = {}, {}
    for name, dim in feature_dims.items():
        if name in features:
            observed_lengths[name] = lengths[name].masked_fill(~present[name], 0)
            observed[name] = zero_padding(features[name], observed_lengths[name])
        else:
            observed_lengths[name] = nothing
            observed[name] = features[some].new_zeros(nothing.shape[0], 1, dim)
    return observed, observed_lengths


def check_modality(name: str, feature_dims: Mapping[str, int]) -> None:
    """Refuse a modality that a model was not built for.

    Raises:
        ConfigurationError: With the nearest one.
    """
    if name not in feature_dims:
        raise ConfigurationError(f"the model was not built for modality {name!r}: {nearest(name, feature_dims)}")


def _factor_network(z: int, f: int, dropout: float) -> nn.Sequential:
    """G = Linear - ReLU - Dropout - Linear - ReLU; factors are >= 0."""
    return nn.Sequential(nn.Linear(z, f), nn.ReLU(), nn.Dropout(dropout), nn.Linear(f, f), nn.ReLU())


def _head(f_y: int, output_dim: int, dropout: float) -> nn.Sequential:
    """D = Linear - ReLU - Dropout - Linear."""
    return nn.Sequential(nn.Linear(f_y, f_y), nn.ReLU(), nn.Dropout(dropout), nn.Linear(f_y, output_dim))


def _checked_dims(feature_dims: Mapping[str, int]) -> dict[str, int]:
    """The feature dimensions in sorted order of the modalities."""
    if not feature_dims:
        raise ConfigurationError("feature_dims names no modality; give at least one with its number of features")
    for name, dim in feature_dims.items():
        if not isinstance(name, str) or name in RESERVED:
            raise ConfigurationError(f"a modality cannot be called {name!r}; choose another name")
        check_value(f"feature_dims of modality {name!r}", dim, Size)
    return dict(sorted(feature_dims.items()))


def _count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())
