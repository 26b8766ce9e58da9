"""How much each reconstructed step moves with the shared factor F_y."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from mfm.errors import ConfigurationError, nearest

Direction = Literal["auto", "forward", "reverse"]
Decode = Callable[[Tensor, Tensor], Tensor]


def gradient_flow(
    decode: Decode,
    f_y: Tensor,
    f_i: Tensor,
    lengths: Tensor,
    *,
    direction: Direction = "auto",
    memory: int = 2**28,
) -> Tensor:
    """||d x^_i^t / d F_y||_F^2 for every sample and step of one modality (Tsai et al., ICLR 2019, section 3.3).

    The Jacobians come from whole batches of directions at once: of F_y's f_y directions with forward mode, or of
    the step's T D_i outputs with reverse mode, whichever are fewer. No Jacobian is stored: the squares are summed
    as they come.

    Args:
        decode: (B, f_y) and (B, f_i) to (B, T, D_i), each row from its own rows alone; no dropout.
        f_y: (B, f_y) shared factors.
        f_i: (B, f_i) the modality's own factors, held fixed.
        lengths: (B,) real steps.
        direction: `auto` chooses the cheaper; `forward` or `reverse` insists.
        memory: Bytes that a batch of directions may need, about.

    Returns:
        (B, T) in squared units of what `decode` returns; NaN in padded steps.

    Raises:
        ConfigurationError: Unknown direction.
    """
    if direction not in get_args(Direction):
        raise ConfigurationError(f"unknown direction {direction!r}: {nearest(direction, get_args(Direction))}")
    with torch.no_grad():
        if not len(f_y):
            return f_y.new_zeros(0, 0)
        steps, dim = decode(f_y[:1], f_i[:1]).shape[1:]
        if direction == "auto":
            direction = "forward" if f_y.shape[1] <= steps * dim else "reverse"
        flow_of = _forward if direction == "forward" else _reverse
        # a direction holds its decoded sequence and, inside the decoder, a few times as much
        one = max(1, 4 * steps * (dim + f_y.shape[1] + f_i.shape[1]) * f_y.element_size())
        rows = max(1, min(len(f_y), memory // one))
        chunk = max(1, memory // (one * rows))
        batches = zip(torch.split(f_y, rows), torch.split(f_i, rows), strict=True)
        flow = torch.cat([flow_of(decode, y, i, chunk) for y, i in batches])
        padded = torch.arange(steps, device=lengths.device) >= lengths[:, None]
        return flow.masked_fill(padded.to(flow.device), torch.nan)


def _forward(decode: Decode, f_y: Tensor, f_i: Tensor, chunk: int) -> Tensor:
    """Columns of all samples' Jacobians: one direction of F_y moves every sample, for rows do not mix."""

    def column(direction: Tensor) -> Tensor:
        tangent: Tensor = torch.func.jvp(lambda y: decode(y, f_i), (f_y,), (direction.expand_as(f_y),))[1]
        return tangent.square().sum(dim=2)

    flow = f_y.new_zeros(())
    for part in torch.split(torch.eye(f_y.shape[1], dtype=f_y.dtype, device=f_y.device), chunk):
        flow = flow + torch.func.vmap(column)(part).sum(dim=0)
    return flow


def _reverse(decode: Decode, f_y: Tensor, f_i: Tensor, chunk: int) -> Tensor:
    """Rows of all samples' Jacobians: one output of every sample is pulled back at once."""
    decoded, pull = torch.func.vjp(lambda y: decode(y, f_i), f_y)[:2]
    assert isinstance(decoded, Tensor)
    count, steps, dim = decoded.shape
    flow = decoded.new_zeros(steps, count)

    def row(output: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(output, steps * dim).to(decoded.dtype).view(1, steps, dim)
        (gradient,) = pull(one_hot.expand_as(decoded))
        squared: Tensor = gradient.square().sum(dim=1)
        return squared

    for part in torch.split(torch.arange(steps * dim, device=f_y.device), chunk):
        flow.index_add_(0, part // dim, torch.func.vmap(row)(part))
    return flow.t().contiguous()
