"""Gaussian noise on latent codes while training."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError

CodeNoise = float | Literal["learned"]
"""Deviation of the noise, >= 0, or `learned`: one deviation for each dimension, a parameter that starts at 0.5."""

_FIRST = 0.5


class GaussianNoise(nn.Module):
    """Makes a deterministic encoder Q(Z | X) = z a Gaussian one, N(z, s^2), while training.

    A dimension that carries nothing then meets the prior N(0, 1) as noise. Without, only content can fill it, and the
    content that is at hand belongs to another block (Rubenstein et al., "On the latent space of Wasserstein
    auto-encoders", 2018, on dimensions that a code has too many).

    Args:
        dim: Dimensions of the code.
        deviation: s, or `learned`.

    Raises:
        ConfigurationError: A deviation that is negative or no number.
    """

    def __init__(self, dim: int, deviation: CodeNoise) -> None:
        super().__init__()
        self.deviation = checked_deviation(deviation)
        self.log_deviation = nn.Parameter(torch.full((dim,), math.log(_FIRST))) if deviation == "learned" else None

    def forward(self, code: Tensor) -> Tensor:
        """Z + s eps while training; z itself, and nothing drawn, otherwise and where s is 0.

        Args:
            code: (B, dim).
        """
        if not self.training or not self.deviation:
            return code
        scale = self.deviation if self.log_deviation is None else self.log_deviation.exp()
        return code + scale * torch.randn_like(code)

    def log_variance(self, code: Tensor) -> Tensor | None:
        """Logarithm of s^2 for every code (B, dim), noise or not at the moment; None for a code without noise."""
        if not self.deviation:
            return None
        if self.log_deviation is None:
            return torch.full_like(code, 2 * math.log(self.deviation))
        return (2 * self.log_deviation).expand_as(code)


def checked_deviation(deviation: CodeNoise) -> float:
    """The deviation that noise starts with.

    Raises:
        ConfigurationError: It is negative, not finite or no number, or another word than `learned`.
    """
    if deviation == "learned":
        return _FIRST
    if isinstance(deviation, bool) or not isinstance(deviation, int | float) or not 0 <= deviation < math.inf:
        raise ConfigurationError(f"code_noise is {deviation!r}, but must be a deviation >= 0, or 'learned'")
    return float(deviation)
