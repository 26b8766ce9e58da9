"""MulT: the Multimodal Transformer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.models.attention import CrossAttentionBlock, SelfAttention, sinusoids
from mfm.models.masking import last_state, step_mask, zero_padding
from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.per_modality import PerModality, spread
from mfm.models.registry import Rate, Size


@NETWORKS.register("mult")
class MultimodalTransformer(Network):
    """MulT: crossmodal transformers between all pairs of modalities (Tsai et al., ACL 2019, arXiv 1906.00295).

        E_m      = sqrt(d) Conv1D(X_m) + positions                 temporal convolution to width d, without bias
        Z_s->m   = norm(Block_L(... Block_1(E_m, E_s) ..., E_s))   s != m; the source stays E_s in every block
        h_m      = Transformer([Z_s->m for all s])_last            self-attention of width (M - 1) d
        Y^       = Linear(h + Linear(Dropout(ReLU(Linear h))))     h = [h_1; ...; h_M]

    Block is `mfm.models.attention.CrossAttentionBlock`. Modalities keep their own clocks: nothing is aligned or pooled.
    Attention sees the whole source. Two things of the authors' code that the paper does not have are left out: future
    masks, and scale and positions once more on the way into the self-attention.
    An absent source adds nothing to Z_s->m, and the h_m of an absent target is 0. The only modality of M = 1 has nobody
    to attend to: its E_m goes straight into the self-attention, of width d.

    Parameters, with W = max(M - 1, 1) d, S = M W, B(w) = 12 w^2 + 13 w of a block, and k_m steps of a convolution:
    d sum_m k_m D_m + M (M - 1) (L B(d) + 2 d) + M (L' B(W) + 2 W) + 2 S (S + 1) + K (S + 1).

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Not used.
        width: Common width d, a multiple of `heads`.
        heads: Attention heads.
        layers: Crossmodal blocks L.
        self_layers: Blocks L' of the self-attention.
        kernel: Steps k_m of the convolution, for all modalities or per modality.
        dropout: Dropout in the blocks.
        dropout_attention: Dropout of the crossmodal attention weights.
        dropout_embedding: Dropout of E_m.
        dropout_input: Dropout of single input features, for all modalities or per modality.
        dropout_head: Dropout in the head.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        aligned: bool,
        *,
        width: Size = 40,
        heads: Size = 8,
        layers: Size = 4,
        self_layers: Size = 3,
        kernel: Size | Mapping[str, Size] = 3,
        dropout: Rate = 0.1,
        dropout_attention: Rate = 0.1,
        dropout_embedding: Rate = 0.25,
        dropout_input: Rate | Mapping[str, Rate] = 0.0,
        dropout_head: Rate = 0.0,
    ) -> None:
        super().__init__()
        names = self.modalities = sorted(feature_dims)
        kernels = spread("kernel", kernel, names)
        self.dropout_input = spread("dropout_input", dropout_input, names)
        self.dropout_embedding = dropout_embedding
        self.convolutions: PerModality[nn.Conv1d] = PerModality(
            {m: nn.Conv1d(feature_dims[m], width, kernels[m], padding="same", bias=False) for m in names}
        )
        self.crossmodal = PerModality(
            {
                m: PerModality(
                    {s: _Crossmodal(width, layers, heads, dropout, dropout_attention) for s in names if s != m}
                )
                for m in names
            }
        )
        own = max(len(names) - 1, 1) * width
        self.memory = PerModality({m: SelfAttention(own, self_layers, heads, dropout) for m in names})
        fused = len(names) * own
        self.residual = nn.Sequential(
            nn.Linear(fused, fused), nn.ReLU(), nn.Dropout(dropout_head), nn.Linear(fused, fused)
        )
        self.output = nn.Linear(fused, output_dim)

    @property
    def output_bias(self) -> nn.Parameter:
        """See `Network.output_bias`."""
        return self.output.bias

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        lengths = observed_lengths(lengths, present)
        tokens = {m: self._embed(m, features[m], lengths[m]) for m in self.modalities}
        masks = {m: step_mask(lengths[m], tokens[m].shape[1]) for m in self.modalities}
        ends = []
        for m, sources in self.crossmodal.items():
            seen = [block(tokens[m], tokens[s], masks[s]) for s, block in sources.items()] or [tokens[m]]
            ends.append(last_state(self.memory[m](torch.cat(seen, dim=2), masks[m]), lengths[m]))
        fused = torch.cat(ends, dim=1)
        prediction: Tensor = self.output(fused + self.residual(fused))
        return prediction

    def _embed(self, name: str, x: Tensor, lengths: Tensor) -> Tensor:
        """E_m, (B, max(T, 1), d); beyond a sample's steps only what no mask keeps."""
        x = F.dropout(zero_padding(x, lengths), self.dropout_input[name], self.training)
        convolved = self.convolutions[name](x.transpose(1, 2)).transpose(1, 2)
        steps, width = convolved.shape[1:]
        tokens = math.sqrt(width) * convolved + sinusoids(steps, width, like=convolved)
        return F.dropout(tokens, self.dropout_embedding, self.training)


class _Crossmodal(nn.Module):
    """Z_s->m: blocks in which the target attends to one source, and a norm."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            CrossAttentionBlock(width, heads, dropout, attention_dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """(B, S, W), from target (B, S, W), source (B, R, W) and the source's mask (B, R)."""
        for block in self.blocks:
            target = block(target, source, mask)
        normed: Tensor = self.norm(target)
        return normed
