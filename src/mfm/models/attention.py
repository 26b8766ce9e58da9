"""Attention over padded sequences: to themselves, and to others."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.errors import ConfigurationError


def sinusoids(steps: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017): sines in the first half of the columns, cosines in the second.

    Args:
        steps: Number of positions T.
        width: Columns; any number >= 1.
        like: Gives device and dtype.

    Returns:
        (T, width), values in [-1, 1].
    """
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-math.log(10_000.0) / half))
    angles = torch.arange(steps, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width].to(like.dtype)


def feed_forward(width: int, dropout: float) -> nn.Sequential:
    """The pre-norm MLP of a block, of hidden width 4 W."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(4 * width, width),
    )


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that the heads cannot share.

    Raises:
        ConfigurationError: It is no multiple of them.
    """
    if width % heads:
        raise ConfigurationError(f"transformer width {width} is no multiple of its {heads} heads; change either")


class SelfAttentionBlock(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    Args:
        width: Model width W, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability for attention weights and for the outputs of both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.mlp = feed_forward(width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Let every step attend to the steps that `mask` keeps.

        Args:
            x: (B, S, W), finite everywhere.
            mask: (B, S) bool; at least one True in each row, for a softmax over nothing is NaN.

        Returns:
            (B, S, W).
        """
        batch, steps, width = x.shape
        packed = self.query_key_value(self.attention_norm(x))
        query, key, value = packed.view(batch, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :], dropout_p=self.dropout if self.training else 0.0
        )
        attended = self.attention_output(attended.transpose(1, 2).reshape(batch, steps, width))
        x = x + F.dropout(attended, self.dropout, self.training)
        return x + F.dropout(self.mlp(x), self.dropout, self.training)


class SelfAttention(nn.Module):
    """A stack of blocks with a final norm; rows in which nothing is real give finite values.

    Args:
        width: Model width W.
        layers: Blocks.
        heads: Attention heads a block.
        dropout: See `SelfAttentionBlock`.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, S, W) to (B, S, W); `mask` (B, S) says which steps may be attended to."""
        mask = mask | ~mask.any(dim=1, keepdim=True)
        for block in self.blocks:
            x = block(x, mask)
        normed: Tensor = self.norm(x)
        return normed


class CrossAttentionBlock(nn.Module):
    """Pre-norm block in which one sequence attends to another (Tsai et al., ACL 2019, eq. 3 and 5).

        Y = X + attention(norm(X), norm(S), norm(S))      then Y + MLP(norm(Y))

    with one norm for X and its source S, as in the authors' code, and a GELU in the MLP, as in all blocks here.

    Parameters: 12 W^2 + 13 W.

    Args:
        width: Model width W, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability for the MLP's hidden layer and for the outputs of both branches.
        attention_dropout: Probability for attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.dropout, self.attention_dropout = heads, dropout, attention_dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_output = nn.Linear(width, width)
        self.mlp = feed_forward(width, dropout)

    def attend(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """softmax(Q K^T / sqrt(W / heads)) V, all heads, mapped linearly; arguments and result as of `forward`."""
        batch, steps, width = x.shape
        own = width // self.heads
        query = self.query(x).view(batch, steps, self.heads, own).transpose(1, 2)
        key, value = self.key_value(source).view(batch, source.shape[1], 2, self.heads, own).permute(2, 0, 3, 1, 4)
        there = mask.any(dim=1)[:, None]
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=(mask | ~there)[:, None, None, :],
            dropout_p=self.attention_dropout if self.training else 0.0,
        )
        attended = self.attention_output(attended.transpose(1, 2).reshape(batch, steps, width))
        return attended.masked_fill(~there[..., None], 0.0)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Let every step attend to the steps of the source that `mask` keeps.

        Args:
            x: (B, S, W), finite everywhere.
            source: (B, R, W), finite everywhere.
            mask: (B, R) bool; a row without any True has nothing to attend to, and nothing is added.

        Returns:
            (B, S, W).
        """
        attended = self.attend(self.attention_norm(x), self.attention_norm(source), mask)
        x = x + F.dropout(attended, self.dropout, self.training)
        return x + F.dropout(self.mlp(x), self.dropout, self.training)
