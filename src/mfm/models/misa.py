"""MISA: modality-invariant and modality-specific representations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.models.attention import SelfAttention
from mfm.models.encoders import ENCODERS, Encoder
from mfm.models.mfm import Codes, Factors, Layout, _checked_dims, check_modality, observed_inputs
from mfm.models.per_modality import PerModality, spread
from mfm.models.registry import Rate, Size, Spec, check_value
from mfm.models.together import encode_together


class MISAOutput(NamedTuple):
    """What the model makes of a batch; h is the width of its representations.

    Attributes:
        prediction: Y^, (B, output_dim).
        vectors: Modality -> u_m, (B, h) utterance vectors.
        shared: Modality -> s_m, (B, h), in (0, 1).
        private: Modality -> p_m, (B, h), in (0, 1).
        rebuilt: Modality -> u^_m, (B, h).
        known: Modality -> (B,) bool, whether it was observed; where not, all of the above but Y^ are 0.
    """

    prediction: Tensor
    vectors: dict[str, Tensor]
    shared: dict[str, Tensor]
    private: dict[str, Tensor]
    rebuilt: dict[str, Tensor]
    known: dict[str, Tensor]


class MISA(nn.Module):
    """MISA (Hazarika, Zimmermann, Poria, ACM Multimedia 2020, arXiv 2005.03545), with any sequence encoders.

        u_m  = LayerNorm(ReLU(encoder_m(X_m)))              utterance vector
        s_m  = sigmoid(Linear_c u_m)                        modality-invariant, one map for all modalities
        p_m  = sigmoid(Linear_pm u_m)                       modality-specific
        u^_m = Linear_dm (s_m + p_m)
        Y^   = Linear(ReLU(Dropout(Linear [p_1 .. p_M; s_1 .. s_M after self-attention over the 2 M of them])))

    The objective is `mfm.losses.misa.MISAObjective`. The self-attention is pre-norm with an MLP of width 4 h; the
    authors' is PyTorch's post-norm layer with one of 2048. Tokens of absent modalities are attended to by nobody and
    are 0 in the head. Where no modality is observed, Y^ is the head's answer to nothing.

    As a model of factors (`mfm.models.factor_model`) its joint code is all s_m side by side, sorted by modality, and
    the code of a modality is p_m; factors are the codes themselves. Nothing observed makes a block of zeros, and a
    sigmoid none, so that blocks of zeros are what `predict_from` takes for absent. No sequences are generated: what is
    rebuilt are utterance vectors.

    Parameters besides the encoders', for L blocks: (2 M + 1) (h^2 + h) + 2 M h + L (12 h^2 + 13 h) + 2 h for the
    representations and their attention, and M h (2 M h + 1) + K (M h + 1) for the head.

    Args:
        feature_dims: Modality -> D_m; any names, any number >= 1.
        output_dim: Outputs K, >= 1.
        hidden: Width h, a multiple of `heads`.
        encoder: Name of an encoder, or a mapping of `name` and settings, per modality.
        layers: Blocks of the self-attention.
        heads: Attention heads.
        dropout: Dropout in the blocks.
        dropout_head: Dropout in the head.

    Raises:
        ConfigurationError: An unknown modality, part or setting (the nearest is named), or an impossible size.
    """

    layout = Layout(joint=True, own=True, shared=False, generates=False)

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        *,
        hidden: int = 128,
        encoder: str | Mapping[str, Any] = "lstm",
        layers: int = 1,
        heads: int = 2,
        dropout: float = 0.1,
        dropout_head: float = 0.2,
    ) -> None:
        super().__init__()
        self.feature_dims = _checked_dims(feature_dims)
        names = self.modalities = list(self.feature_dims)
        for option, size in (("output_dim", output_dim), ("hidden", hidden), ("layers", layers), ("heads", heads)):
            check_value(option, size, Size)
        for option, rate in (("dropout", dropout), ("dropout_head", dropout_head)):
            check_value(option, rate, Rate)
        self.hidden = hidden
        encoder_m: dict[str, Spec] = spread("encoder", encoder, names)
        self.encoders: PerModality[Encoder] = PerModality(
            {m: ENCODERS.build(encoder_m[m], input_dim=self.feature_dims[m], code_dim=hidden) for m in names}
        )
        self.norms = PerModality({m: nn.LayerNorm(hidden) for m in names})
        self.shared = nn.Linear(hidden, hidden)
        self.private = PerModality({m: nn.Linear(hidden, hidden) for m in names})
        self.rebuild = PerModality({m: nn.Linear(hidden, hidden) for m in names})
        self.attention = SelfAttention(hidden, layers, heads, dropout)
        width = len(names) * hidden
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.Dropout(dropout_head), nn.ReLU(), nn.Linear(width, output_dim)
        )
        self.decoders: PerModality[nn.Module] = PerModality({})

    @property
    def output_bias(self) -> nn.Parameter:
        """(output_dim,): the last layer's bias."""
        return cast(nn.Parameter, self.head[-1].bias)

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> MISAOutput:
        """Represent, rebuild and predict.

        Args:
            features: Modality -> (B, T_m, D_m), left-aligned; what was not observed may hold anything. A modality of
                the model that is not among them is absent for all samples.
            lengths: Modality -> (B,) int64 real steps.
            present: Modality -> (B,) bool.

        Raises:
            ConfigurationError: A modality that the model was not built for, or another number of features.
        """
        observed, own = observed_inputs(self.feature_dims, features, lengths, present)
        known = {m: own[m] > 0 for m in self.modalities}
        _, codes = encode_together(self.encoders, [], observed, own)
        vectors = {m: _only(known[m], norm(F.relu(codes[m]))) for m, norm in self.norms.items()}
        shared = {m: _only(known[m], self.shared(u).sigmoid()) for m, u in vectors.items()}
        private = {m: _only(known[m], one(vectors[m]).sigmoid()) for m, one in self.private.items()}
        rebuilt = {m: _only(known[m], one(shared[m] + private[m])) for m, one in self.rebuild.items()}
        return MISAOutput(self._predict(shared, private, known), vectors, shared, private, rebuilt, known)

    # ------------------------------------------------------------------ a model of factors
    def encode(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Codes:
        """All s_m side by side, (B, M h), and the p_m; arguments as of `forward`."""
        return self.codes(self(features, lengths, present))

    def codes(self, output: MISAOutput) -> Codes:
        """The codes of what `forward` returned."""
        return Codes(torch.cat([output.shared[m] for m in self.modalities], dim=1), dict(output.private))

    def factorize(self, codes: Codes) -> Factors:
        """The codes themselves."""
        return Factors(codes.z_y, dict(codes.z))

    def predict_from(self, factors: Factors) -> Tensor:
        """(B, output_dim) Y^; blocks of zeros are absent modalities."""
        shared = dict(
            zip(self.modalities, factors.f_y.split_with_sizes([self.hidden] * len(self.modalities), dim=1), strict=True)
        )
        known = {m: (shared[m] != 0).any(dim=1) for m in self.modalities}
        return self._predict(shared, factors.f, known)

    def decode(
        self,
        factors: Factors,
        steps: Mapping[str, int],
        inputs: Mapping[str, Tensor] | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Nothing: no sequences are generated."""
        for name in steps:
            check_modality(name, self.feature_dims)
        return {}

    def _predict(
        self, shared: Mapping[str, Tensor], private: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> Tensor:
        tokens = torch.stack([*(private[m] for m in self.modalities), *(shared[m] for m in self.modalities)], dim=1)
        mask = torch.stack([known[m] for m in self.modalities], dim=1).repeat(1, 2)
        attended = self.attention(tokens, mask).masked_fill(~mask[..., None], 0.0)
        prediction: Tensor = self.head(attended.flatten(1))
        return prediction


def _only(known: Tensor, x: Tensor) -> Tensor:
    """(B, h) what is known, 0 elsewhere."""
    return x.masked_fill(~known[:, None], 0.0)
