"""Left-aligned sequences with lengths: what is real, what is padding.

Nothing here synchronises with a device: shapes alone steer Python, and lengths only where they are on the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def step_mask(lengths: Tensor, steps: int) -> Tensor:
    """Which steps are real.

    Args:
        lengths: (B,) int64 real steps, 0 where the modality is absent.
        steps: Steps T of the padded tensor.

    Returns:
        (B, T) bool, True for real steps.
    """
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Put zeros in padded steps, whatever they hold, NaN included, in values and in gradients.

    Args:
        x: (B, T, D), left-aligned.
        lengths: (B,) real steps.

    Returns:
        (B, max(T, 1), D): an empty time axis becomes one padded step, so that recurrences are defined.
    """
    if x.shape[1] == 0:
        x = F.pad(x, (0, 0, 0, 1))
    if (
        lengths.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and min(lengths.tolist(), default=0) >= x.shape[1]
    ):
        return x  # nothing is padded, and to know that the CPU need not wait
    return x.masked_fill(~step_mask(lengths, x.shape[1])[..., None], 0.0)


def last_state(states: Tensor, lengths: Tensor) -> Tensor:
    """State at the last real step.

    Args:
        states: (B, T, H) states of every step, T >= 1.
        lengths: (B,) real steps.

    Returns:
        (B, H), zeros where the length is 0.
    """
    index = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.shape[2])
    return states.gather(1, index).squeeze(1).masked_fill((lengths == 0)[:, None], 0.0)


def hold_last(states: Tensor, lengths: Tensor) -> Tensor:
    """Replace the states of padded steps by the state at the last real step (zeros where the length is 0)."""
    real = step_mask(lengths, states.shape[1])[..., None]
    return torch.where(real, states, last_state(states, lengths)[:, None])


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the steps that a mask keeps.

    Args:
        x: (B, T, D).
        mask: (B, T) bool.

    Returns:
        (B, D), zeros where the mask keeps no step.
    """
    total = x.masked_fill(~mask[..., None], 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def pad_steps(x: Tensor, steps: int) -> Tensor:
    """Append zeros to (B, T, D) until there are `steps` steps."""
    return F.pad(x, (0, 0, 0, steps - x.shape[1]))
