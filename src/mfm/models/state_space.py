"""Diagonal state-space recurrences: linear in the state, so that all steps are one convolution instead of a loop."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.models.backend import at_full_precision
from mfm.models.encoders import ENCODERS, Encoder
from mfm.models.fusion import FUSIONS, Fusion
from mfm.models.masking import last_state, zero_padding
from mfm.models.per_modality import PerModality
from mfm.models.registry import Rate, Size

SHORTEST, LONGEST = 1.0, 100.0
"""Time constants, in steps, between which channels start: an utterance has a few to about a hundred steps."""


class DiagonalStateSpace(nn.Module):
    """One diagonal state-space recurrence per channel (S4D; Gu et al., NeurIPS 2022, arXiv 2206.11893).

        s_t = a s_{t-1} + x_t      y_t = Re(sum_n c_n s_t,n) + d x_t      a_n = exp(dt (-r_n + i w_n)), r_n > 0

    Each channel has N complex states, a step size dt and own r, w, c, d. Since s is linear in x, y is a causal
    convolution of x with the kernel

        k_j = sum_n exp(-dt r_n j) (Re c_n cos(dt w_n j) - Im c_n sin(dt w_n j))      j = 0, 1, ...

    which is computed for all steps at once, by real products and the fast Fourier transform. |a| < 1 always. Starts as
    S4D-Lin does, r = 1/2 and w_n = pi n, with dt log-uniform between 1 / `LONGEST` and 1 / `SHORTEST`. c is scaled by
    the states' stationary deviation, as the input of an LRU (Orvieto et al., ICML 2023): the output of white noise has
    about its variance whatever dt.

    Parameters: W (4 N + 2).

    Args:
        width: Channels W.
        states: Complex states N of each channel.
    """

    def __init__(self, width: int, states: int) -> None:
        super().__init__()
        low, high = math.log(1.0 / LONGEST), math.log(1.0 / SHORTEST)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(width))
        # vectors, which no optimiser of this package decays: 0 is no natural value of either
        self.log_rate = nn.Parameter(torch.full((width * states,), math.log(0.5)))
        self.frequency = nn.Parameter((math.pi * torch.arange(states)).repeat(width))
        self.read_real = nn.Parameter(torch.randn(width, states) / math.sqrt(states))
        self.read_imaginary = nn.Parameter(torch.randn(width, states) / math.sqrt(states))
        self.skip = nn.Parameter(torch.randn(width))

    def kernel(self, steps: int) -> Tensor:
        """(W, steps) k_0 .. k_{steps-1}, at least float32."""
        with at_full_precision(self.log_step):
            step = _at_least_float32(self.log_step).exp()[:, None, None]
            shape = (*self.read_real.shape, 1)
            decay = step * _at_least_float32(self.log_rate).exp().view(shape)
            place = torch.arange(steps, device=step.device)
            angle = step * self.frequency.view(shape) * place
            scale = (-torch.expm1(-2.0 * decay)).sqrt()  # 1 / deviation of a state driven by white noise
            wave = self.read_real[..., None] * angle.cos() - self.read_imaginary[..., None] * angle.sin()
            kernel: Tensor = (scale * (-decay * place).exp() * wave).sum(dim=1)
            return kernel

    def forward(self, x: Tensor) -> Tensor:
        """All steps of (B, T, W), T >= 1, in float32 also under autocast; step t depends on steps up to t."""
        with at_full_precision(x):
            inputs = _at_least_float32(x).transpose(1, 2)
            steps = inputs.shape[2]
            spectrum = torch.fft.rfft(inputs, n=2 * steps) * torch.fft.rfft(self.kernel(steps), n=2 * steps)
            states = torch.fft.irfft(spectrum, n=2 * steps)[..., :steps]
            outputs: Tensor = states + self.skip[:, None] * inputs
            return outputs.transpose(1, 2)


class StateSpaceBlock(nn.Module):
    """Pre-norm residual block: x + Dropout(GLU(Linear(Dropout(GELU(S4D(norm(x))))))).

    Args:
        width: Width W.
        states: Complex states of each channel.
        dropout: Dropout before the gated map, and of its output.
    """

    def __init__(self, width: int, states: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.recurrence = DiagonalStateSpace(width, states)
        self.mix = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, W) to the same."""
        y = self.dropout(F.gelu(self.recurrence(self.norm(x))))
        added: Tensor = self.dropout(F.glu(self.mix(y), dim=2))
        return x + added


class StateSpaceStack(nn.Module):
    """Blocks over one modality, read out at the last real step.

    Causal over left-aligned input: padding comes after everything that is read.

    Args:
        input_dim: Features D of a step.
        width: Width W.
        layers: Blocks.
        states: Complex states of each channel.
        dropout: See `StateSpaceBlock`.
        input_dropout: Dropout of single input features.
    """

    def __init__(
        self, input_dim: int, width: int, layers: int, states: int, dropout: float, input_dropout: float
    ) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout)
        self.embed = nn.Linear(input_dim, width)
        self.blocks = nn.ModuleList(StateSpaceBlock(width, states, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) and (B,) real steps to (B, W), zeros where there is no step."""
        x = self.embed(self.input_dropout(zero_padding(x, lengths)))
        for block in self.blocks:
            x = block(x)
        last = self.norm(last_state(x, lengths))
        return last.masked_fill((lengths == 0)[:, None], 0.0)  # type: ignore[no-any-return]


@ENCODERS.register("ssm")
class StateSpaceEncoder(Encoder):
    """Pre-norm diagonal state-space blocks (S4D), the last step mapped linearly to the code.

    Args:
        input_dim: Features D_i of a step.
        code_dim: Size of Z_ai.
        width: Model width.
        layers: Blocks.
        states: Complex states of each channel.
        dropout: Dropout in the blocks.
        input_dropout: Dropout of single input features.
    """

    def __init__(
        self,
        input_dim: int,
        code_dim: int,
        *,
        width: Size = 64,
        layers: Size = 2,
        states: Size = 8,
        dropout: Rate = 0.1,
        input_dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.stack = StateSpaceStack(input_dim, width, layers, states, dropout, input_dropout)
        self.to_code = nn.Linear(width, code_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        code: Tensor = self.to_code(self.stack(x, lengths))
        return code.masked_fill((lengths == 0)[:, None], 0.0)


@FUSIONS.register("ssm")
class StateSpaceFusion(Fusion):
    """Diagonal state-space blocks (S4D) for each modality on its own clock, fused late by a linear map.

        Z_y = Linear([s_1; ...; s_M])      s_m the last step of modality m, 0 where it is absent

    Needs no alignment. What modalities have to do with each other is left to G_y.

    Args:
        feature_dims: Modality -> D_m.
        code_dim: Size of Z_y.
        aligned: Not used.
        width: Model width, of each modality.
        layers: Blocks.
        states: Complex states of each channel.
        dropout: Dropout in the blocks and of the s_m.
        input_dropout: Dropout of single input features.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        code_dim: int,
        aligned: bool,
        *,
        width: Size = 64,
        layers: Size = 2,
        states: Size = 8,
        dropout: Rate = 0.1,
        input_dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.stacks = PerModality(
            {
                name: StateSpaceStack(dim, width, layers, states, dropout, input_dropout)
                for name, dim in sorted(feature_dims.items())
            }
        )
        self.dropout = nn.Dropout(dropout)
        self.to_code = nn.Linear(width * len(feature_dims), code_dim)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """See `Fusion.forward`."""
        states = torch.cat([stack(features[name], lengths[name]) for name, stack in self.stacks.items()], dim=1)
        code: Tensor = self.to_code(self.dropout(states))
        nothing = torch.stack([lengths[name] == 0 for name in self.stacks]).all(dim=0)
        return code.masked_fill(nothing[:, None], 0.0)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
