"""Q(Z_y | X_1:M): encoders of all modalities together. The paper's own, the Memory Fusion Network, is in `mfn`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfm.models.alignment import on_one_clock
from mfm.models.attention import SelfAttention, sinusoids
from mfm.models.masking import last_state, masked_mean, step_mask, zero_padding
from mfm.models.per_modality import PerModality
from mfm.models.recurrence import run_recurrence
from mfm.models.registry import Rate, Registry, Size

CLOCK_LIMIT = 64
"""Default of the most steps of a shared clock (see `alignment.pool_to_clock`): about the longest utterance in words."""


class Fusion(nn.Module, ABC):
    """Interface of a fusion: `Fusion(feature_dims, code_dim, aligned, *, settings)`.

    `aligned` says whether step t is the same moment in all modalities.
    """

    @abstractmethod
    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """Encode all modalities of a batch.

        Args:
            features: Modality -> (B, T_m, D_m), left-aligned, for every modality of the model; padded
                steps may hold anything, NaN included.
            lengths: Modality -> (B,) int64 real steps, 0 where absent.

        Returns:
            (B, code_dim); zeros, the prior's mean, where every modality is absent.
        """


FUSIONS: Registry[Fusion] = Registry("fusion")


def longest(lengths: Mapping[str, Tensor]) -> Tensor:
    """Length of each sample's longest modality, (B,)."""
    return torch.stack(list(lengths.values())).amax(dim=0)


@FUSIONS.register("concat_lstm")
class ConcatLSTM(Fusion):
    """One LSTM over the concatenated modalities and flags that say which are present at each step.

    Args:
        feature_dims: Modality -> D_m.
        code_dim: Size of Z_y.
        aligned: Whether step t is one moment in all modalities.
        hidden: Width of the LSTM.
        layers: Stacked LSTM layers.
        clock_limit: Most steps of the shared clock of unaligned features.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        code_dim: int,
        aligned: bool,
        *,
        hidden: Size = 128,
        layers: Size = 1,
        clock_limit: Size | None = CLOCK_LIMIT,
    ) -> None:
        super().__init__()
        self.modalities = sorted(feature_dims)
        self.aligned = aligned
        self.clock_limit = clock_limit
        width = sum(feature_dims.values()) + len(feature_dims)
        self.recurrence = nn.LSTM(width, hidden, layers, batch_first=True)
        self.to_code = nn.Linear(hidden, code_dim)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """See `Fusion.forward`."""
        features, lengths = on_one_clock(features, lengths, aligned=self.aligned, limit=self.clock_limit)
        inputs = [features[name] for name in self.modalities]
        inputs += [
            step_mask(lengths[name], features[name].shape[1])[..., None].to(features[name].dtype)
            for name in self.modalities
        ]
        states = run_recurrence(self.recurrence, torch.cat(inputs, dim=2))
        ends = longest(lengths)
        code: Tensor = self.to_code(last_state(states, ends))
        return code.masked_fill((ends == 0)[:, None], 0.0)


@FUSIONS.register("transformer")
class TransformerFusion(Fusion):
    """Pre-norm transformer over the steps of all modalities, each tagged with its modality.

    Needs no alignment: every modality keeps its own steps and positions.

    Args:
        feature_dims: Modality -> D_m.
        code_dim: Size of Z_y.
        aligned: Not used.
        width: Model width, a multiple of `heads`.
        layers: Blocks.
        heads: Attention heads.
        dropout: Dropout in the blocks.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        code_dim: int,
        aligned: bool,
        *,
        width: Size = 64,
        layers: Size = 2,
        heads: Size = 4,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.embed = PerModality({name: nn.Linear(dim, width) for name, dim in sorted(feature_dims.items())})
        self.tags = nn.Parameter(0.02 * torch.randn(len(feature_dims), width))
        self.attention = SelfAttention(width, layers, heads, dropout)
        self.to_code = nn.Linear(width, code_dim)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """See `Fusion.forward`."""
        tokens, masks = [], []
        for (name, embed), tag in zip(self.embed.items(), self.tags, strict=True):
            embedded = embed(zero_padding(features[name], lengths[name]))
            tokens.append(embedded + tag + sinusoids(embedded.shape[1], embedded.shape[2], like=embedded))
            masks.append(step_mask(lengths[name], embedded.shape[1]))
        mask = torch.cat(masks, dim=1)
        code: Tensor = self.to_code(masked_mean(self.attention(torch.cat(tokens, dim=1), mask), mask))
        return code.masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
