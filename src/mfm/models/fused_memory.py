"""The gated memory of the Memory Fusion Network, with a backward written by hand.

With k_t the share of the attended cells in the first layer of both gates (U_1, U_2 its columns for them, V those for
the memory, gates side by side), c^_t the proposals and m_t the dropout masks (0 or 1 / (1 - p); 1 without dropout),

    r_t = relu(k_t + mem_{t-1} V^T) m_t                           first layers                                     (1)
    keep_t = sigmoid(r_t,1 W_1^T + b_1)   write_t = sigmoid(r_t,2 W_2^T + b_2)                                     (2)
    mem_t = keep_t mem_{t-1} + write_t c^_t                                                                        (3)

Backward, dv for dL/dv and dmem_t what reaches mem_t from outside and from step t + 1:

    ds_1 = dmem_t mem_{t-1} keep_t (1 - keep_t)     ds_2 = dmem_t c^_t write_t (1 - write_t)                       (4)
    dc^_t = dmem_t write_t                          before the sigmoids of (2)
    dk_t = [ds_1 W_1, ds_2 W_2] m_t where r_t > 0, else 0                                                          (5)
    dmem_{t-1} = dmem_t keep_t + dk_t V                                                                            (6)
    dW_i = sum_t ds_i^T r_t,i     db_i = sum_t ds_i     dV = sum_t dk_t^T mem_{t-1}                                (7)

Only (4) to (6) are in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mfm.models.backend import at_full_precision, differentiates_further, gradients_by_autograd
from mfm.models.packing import Packing


def run_memory(
    known: Tensor,
    proposals: Tensor,
    from_memory: Tensor,
    second: Sequence[Tensor],
    masks: Tensor | None,
    packing: Packing,
) -> Tensor:
    """Run the memory.

    Args:
        known: k (N, K_1 + K_2), what the first layers of the gates make of the attended cells.
        proposals: c^ (N, memory).
        from_memory: V (K_1 + K_2, memory).
        second: W_1 (memory, K_1), b_1 (memory,), W_2 (memory, K_2) and b_2 (memory,).
        masks: m (N, K_1 + K_2), or None without dropout.
        packing: Of the N rows.

    Returns:
        The memory after each sample's last step, (B, memory) in order of rank; zeros where there is no step.
    """
    apply: Callable[..., Tensor] = _Memory.apply
    return apply(packing, masks, *(x.to(from_memory.dtype) for x in (known, proposals, from_memory, *second)))


class _Memory(torch.autograd.Function):
    """(1) to (7); arguments: packing, masks, known, proposals, from_memory, and the four of `second`."""

    @staticmethod
    def forward(ctx: Any, packing: Packing, masks: Tensor | None, *tensors: Tensor) -> Tensor:
        known, proposals, from_memory, *second = tensors
        with at_full_precision(known):
            first, gates, memories = _run_steps(packing, masks, known, proposals, from_memory, second)
        ctx.packing, ctx.masks = packing, masks
        ctx.save_for_backward(*tensors, first, gates, memories)
        return packing.last_rows(memories)

    @staticmethod
    def backward(ctx: Any, d_last: Tensor) -> Any:
        *tensors, first, gates, memories = ctx.saved_tensors
        packing, masks, needed = ctx.packing, ctx.masks, ctx.needs_input_grad[2:]
        if differentiates_further(d_last):
            again = partial(_by_autograd, packing, masks)
            return None, None, *gradients_by_autograd(again, tensors, needed, [d_last])
        _, proposals, from_memory, *second = tensors
        with at_full_precision(first):
            d_memory, d_memories = packing.into_last_rows(d_last, None)
            d_known, d_gates, d_proposals = _run_back(
                packing.sizes, masks, proposals, from_memory, second, first, gates, memories, d_memory, d_memories
            )
            before = packing.previous(memories)
            after = d_known[d_known.shape[0] - before.shape[0] :]  # the rows that have a step before them
            split = second[0].shape[1]
            firsts = first[:, :split], first[:, split:]
            d_second: list[Tensor] = []
            for d_gate, read in zip(d_gates, firsts, strict=True):
                d_second += [d_gate.t() @ read, d_gate.sum(dim=0)]
            return None, None, d_known, d_proposals, after.t() @ before, *d_second


def _run_steps(
    packing: Packing,
    masks: Tensor | None,
    known: Tensor,
    proposals: Tensor,
    from_memory: Tensor,
    second: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """(1) to (3) from a memory of zeros: r (N, K_1 + K_2), the gates (2, N, memory) and mem (N, memory)."""
    sizes, (weight_1, bias_1, weight_2, bias_2) = packing.sizes, second
    first, memories = known.clone(), torch.empty_like(proposals)
    gates = proposals.new_empty(2, *proposals.shape)
    if not sizes:
        return first, gates, memories
    widths = [weight_1.shape[1], weight_2.shape[1]]
    into_1, into_2, from_memory = weight_1.t(), weight_2.t(), from_memory.t().contiguous()
    keeps_and_writes = gates.split_with_sizes(sizes, dim=1)
    firsts = [part.split_with_sizes(sizes) for part in first.split_with_sizes(widths, dim=1)]
    given = [None] * len(sizes) if masks is None else masks.split_with_sizes(sizes)
    parts = (x.split_with_sizes(sizes) for x in (first, *gates, proposals, memories))
    memory = None
    for step, (r, keep, write, proposal, result) in enumerate(zip(*parts, strict=True)):
        if memory is not None:
            memory = memory[: sizes[step]]
            r.addmm_(memory, from_memory)  # (1)
        r.relu_()
        if (mask := given[step]) is not None:
            r.mul_(mask)
        torch.addmm(bias_1, firsts[0][step], into_1, out=keep)  # (2)
        torch.addmm(bias_2, firsts[1][step], into_2, out=write)
        keeps_and_writes[step].sigmoid_()
        torch.mul(write, proposal, out=result)  # (3)
        if memory is not None:
            result.addcmul_(keep, memory)
        memory = result
    return first, gates, memories


def _run_back(
    sizes: Sequence[int],
    masks: Tensor | None,
    proposals: Tensor,
    from_memory: Tensor,
    second: Sequence[Tensor],
    first: Tensor,
    gates: Tensor,
    memories: Tensor,
    d_memory: Tensor,
    d_memories: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(4) to (6): dk (N, K_1 + K_2), ds (2, N, memory) and dc^ (N, memory).

    `d_memory` (B, memory) waits for each rank's last step (see `Packing.into_last_rows`) and is overwritten;
    `d_memories` (N, memory) is what else reaches every memory.
    """
    d_known, d_gates, d_proposals = (torch.empty_like(x) for x in (first, gates, proposals))
    if not sizes:
        return d_known, d_gates, d_proposals
    weight_1, _, weight_2, _ = second
    widths = [weight_1.shape[1], weight_2.shape[1]]
    d_firsts = [part.split_with_sizes(sizes) for part in d_known.split_with_sizes(widths, dim=1)]
    both = [x.split_with_sizes(sizes, dim=1) for x in (gates, d_gates)]
    given = [None] * len(sizes) if masks is None else masks.split_with_sizes(sizes)
    parts = (first, *gates, proposals, memories, d_known, *d_gates, d_proposals)
    steps = list(zip(*(x.split_with_sizes(sizes) for x in parts), strict=True))
    outside = () if d_memories is None else d_memories.split_with_sizes(sizes)
    for step in reversed(range(len(sizes))):
        r, keep, write, proposal, _, d_r, d_keep, d_write, d_proposal = steps[step]
        d = d_memory[: sizes[step]]
        if d_memories is not None:
            d.add_(outside[step])
        torch.mul(d, proposal, out=d_write)  # (4)
        torch.mul(d, write, out=d_proposal)
        if step:
            torch.mul(d, steps[step - 1][4][: sizes[step]], out=d_keep)
        else:
            d_keep.zero_()
        _sigmoid_backward(both[1][step], both[0][step], grad_input=both[1][step])
        torch.mm(d_keep, weight_1, out=d_firsts[0][step])  # (5)
        torch.mm(d_write, weight_2, out=d_firsts[1][step])
        if (mask := given[step]) is not None:
            d_r.mul_(mask)
        _threshold_backward(d_r, r, 0, grad_input=d_r)
        if step:
            d.mul_(keep).addmm_(d_r, from_memory)  # (6)
    return d_known, d_gates, d_proposals


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_threshold_backward = torch.ops.aten.threshold_backward.grad_input


def _by_autograd(
    packing: Packing,
    masks: Tensor | None,
    known: Tensor,
    proposals: Tensor,
    from_memory: Tensor,
    *second: Tensor,
) -> tuple[Tensor]:
    """What `_Memory` computes, by operations that autograd knows."""
    weight_1, bias_1, weight_2, bias_2 = second
    memory = proposals.new_zeros(packing.batch, proposals.shape[1])
    memories = [memory[:0]]
    widths = [weight_1.shape[1], weight_2.shape[1]]
    start = 0
    for size in packing.sizes:
        rows, memory = slice(start, start + size), memory[:size]
        first = torch.addmm(known[rows], memory, from_memory.t()).relu()
        keep, write = (first if masks is None else first * masks[rows]).split_with_sizes(widths, dim=1)
        keep, write = F.linear(keep, weight_1, bias_1).sigmoid(), F.linear(write, weight_2, bias_2).sigmoid()
        memory = keep * memory + write * proposals[rows]
        memories.append(memory)
        start += size
    return (packing.last_rows(torch.cat(memories)),)
