"""Losses are computed in float32 or better, also where the model runs in 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Cast 16-bit floats to float32; leave float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context in which autocast leaves operations on the device of `x` alone."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device, for one
        return nullcontext()
    return torch.autocast(kind, enabled=False)
