"""Which implementation of the recurrences runs: written out step by step, or with a hand-written backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError, nearest

Backend = Literal["auto", "fused", "reference"]
"""Implementations by name; parameters, checkpoints and numbers (up to rounding) are the same.

* `reference`: `mfm.models.recurrence`, the readable definition, differentiated by autograd.
* `fused`: LSTMs that read the same steps run in one loop, gradients are written by hand, and nothing is computed for
  padded steps (`fused_lstm`, `fused_decoder`, `fused_memory`). It computes in 32 or 64 bits, also under autocast.
* `auto`: `fused` on CPU, CUDA and meta devices in 32 or 64 bits, `reference` for all else; encoders on CUDA
  are cuDNN's.

Transformations by `torch.func`, forward-mode differentiation and `torch.compile` always go through the reference,
whatever is chosen: a hand-written backward has no rule for them. Second derivatives are right with every backend.

Dropout draws its random numbers in another order in each of the first two, so that one seed gives another run.
"""


def use_backend(module: nn.Module, backend: str) -> None:
    """Choose the backend of a model and of all its parts.

    Raises:
        ConfigurationError: Unknown backend; the nearest is named.
    """
    if backend not in get_args(Backend):
        raise ConfigurationError(f"unknown backend {backend!r}: {nearest(str(backend), get_args(Backend))}")
    for part in module.modules():
        if hasattr(part, "backend"):
            cast(Any, part).backend = backend


def runs_fused(backend: Backend, *tensors: Tensor) -> bool:
    """Whether a recurrence over these parameters and inputs runs fused; see `Backend`."""
    if backend == "reference" or _is_transformed():
        return False
    if backend == "fused":
        return True
    return all(x.device.type in ("cpu", "cuda", "meta") and x.dtype in (torch.float32, torch.float64) for x in tensors)


def runs_cudnn(backend: Backend, x: Tensor) -> bool:
    """Whether `nn.LSTM` itself is the fastest for an input."""
    return backend == "auto" and x.device.type == "cuda"


def at_full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Context in which autocast leaves operations on the device of `x` alone."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device, for one
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def differentiates_further(*d_values: Tensor | None) -> bool:
    """Inside a backward: whether what it computes is differentiated again, or computed for many gradients at once."""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        # `torch.autograd.grad` with `is_grads_batched` has batches of its own kind
        or any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in d_values)
    )


def gradients_by_autograd(
    compute: Callable[..., tuple[Tensor, ...]],
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    d_values: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, for the backward of a function written by hand.

    Args:
        compute: What the function computes, by operations that autograd knows.
        tensors: Its arguments.
        needed: For which of them a gradient is needed.
        d_values: Gradients of its values; None for 0.

    Returns:
        A gradient for each tensor, None where it is not needed.
    """
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        # aliases, for one tensor given twice has two gradients
        own = [
            x.view_as(x) if further else x.detach().requires_grad_(need)
            for x, need in zip(tensors, needed, strict=True)
        ]
        values = compute(*own)
        pairs = [
            (value, d_value)
            for value, d_value in zip(values, d_values, strict=True)
            if d_value is not None and value.requires_grad
        ]
        wanted = [x for x, need in zip(own, needed, strict=True) if need]
        found = iter(
            torch.autograd.grad(
                [value for value, _ in pairs],
                wanted,
                [d_value for _, d_value in pairs],
                create_graph=further,
                materialize_grads=True,
            )
            if pairs and wanted
            else [torch.zeros_like(x) for x in wanted]
        )
    return [next(found) if need else None for need in needed]


def _is_transformed() -> bool:
    """Whether `torch.func`, forward-mode differentiation or `torch.compile` is looking."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch.compiler.is_compiling()
    )
