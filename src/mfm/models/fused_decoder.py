"""Free-running LSTMs of one length in one loop, with a backward written by hand.

The paper's decoder reads x_1 = [F_y; F_ai] once and then its own state (`recurrence.free_running_states`), so that

    a_1 = x_1 W_ih^T + b        a_t = h_{t-1} (W_ih + W_hh)^T + b  for t > 1                                       (1)

and the rest is (2) of `fused_lstm`. So is the backward, with W_ih + W_hh in place of W_hh; at its end

    dW_hh = sum_{t>1} da_t^T h_{t-1}     dW_ih = dW_hh + da_1^T x_1     db = sum_t da_t     dx_1 = da_1 W_ih         (7)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mfm.models.backend import at_full_precision, differentiates_further, gradients_by_autograd
from mfm.models.fused_lstm import (
    LSTMWeights,
    columns_of,
    run_back,
    run_steps,
    stepped,
    weight_gradient,
    weighted_sum,
    write_share,
)
from mfm.models.packing import Packing


def run_free(first_inputs: Sequence[Tensor], weights: Sequence[LSTMWeights], packing: Packing) -> list[Tensor]:
    """Run LSTMs that read a vector and then their own state.

    Args:
        first_inputs: (B, H) for each LSTM.
        weights: Its parameters, input as wide as state.
        packing: Which steps of which samples to compute, for all of them.

    Returns:
        (N, H) hidden states of each, in the weights' precision.
    """
    ranked = [packing.by_rank(x).to(own.hidden.dtype) for x, own in zip(first_inputs, weights, strict=True)]
    apply: Callable[..., Tensor] = _FreeRunning.apply
    hidden = apply(packing, *ranked, *(tensor for own in weights for tensor in own))
    return list(hidden.split_with_sizes([own.width for own in weights], dim=1))


class _FreeRunning(torch.autograd.Function):
    """(1) to (7) for a group of LSTMs.

    Arguments: the packing; the first input (B, H) of each, in order of rank; four weights an LSTM.
    Value: every h (N, S).
    """

    @staticmethod
    def forward(ctx: Any, packing: Packing, *tensors: Tensor) -> Tensor:
        inputs, weights = _apart(tensors)
        with at_full_precision(tensors[0]):
            columns = columns_of([own.width for own in weights])
            biases = [own.input_bias + own.hidden_bias for own in weights]

            def share(rows: slice, gates: Tensor) -> None:
                if rows.start == 0 and packing.sizes:
                    first = packing.sizes[0]
                    for x, own, bias, units in zip(inputs, weights, biases, columns, strict=True):
                        write_share(x[:first], own.input, bias, gates[:, :first, units])

            summed = [own.input + own.hidden for own in weights]
            gates, hidden, cells, tanh_cells = run_steps(
                share, summed, packing.sizes, biases, keep=any(ctx.needs_input_grad)
            )
        ctx.packing = packing
        ctx.save_for_backward(*tensors, gates, hidden, cells, tanh_cells)
        return hidden

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor) -> Any:
        *tensors, gates, hidden, cells, tanh_cells = ctx.saved_tensors
        packing, needed = ctx.packing, ctx.needs_input_grad[1:]
        if differentiates_further(d_hidden):
            return None, *gradients_by_autograd(partial(_by_autograd, packing), tensors, needed, [d_hidden])
        inputs, weights = _apart(tensors)
        with at_full_precision(gates):
            summed = [own.input + own.hidden for own in weights]
            d_state = hidden.new_zeros(packing.batch, hidden.shape[1])
            d_gates = run_back(gates, cells, tanh_cells, summed, packing.sizes, d_state, d_hidden)
            return None, *_gradients(packing, inputs, weights, hidden, d_gates, needed)


def _gradients(
    packing: Packing,
    inputs: Sequence[Tensor],
    weights: Sequence[LSTMWeights],
    hidden: Tensor,
    d_gates: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Equation (7), None where a gradient is not needed."""
    d_inputs: list[Tensor | None] = []
    d_weights: list[Tensor | None] = []
    before = packing.previous(hidden)
    first = d_gates.shape[1] - before.shape[0]
    d_bias = d_gates.sum(dim=1)
    columns = columns_of([own.width for own in weights])
    for place, (x, own, units) in enumerate(zip(inputs, weights, columns, strict=True)):
        needs_input, needs_hidden, *needs_bias = needed[len(inputs) + 4 * place :][:4]
        own_gates = d_gates[:, :, units]
        d_input = None
        if needed[place]:  # a rank without steps was not read
            d_input = F.pad(weighted_sum(own_gates[:, :first], own.input), (0, 0, 0, packing.batch - first))
        d_inputs.append(d_input)
        d_hidden = weight_gradient(own_gates[:, first:], before[:, units]) if needs_input or needs_hidden else None
        d_first = weight_gradient(own_gates[:, :first], x[:first]) if needs_input else None
        d_weights.append(None if d_first is None or d_hidden is None else d_first.add_(d_hidden))
        d_weights.append(d_hidden if needs_hidden else None)
        d_weights += [d_bias[:, units].flatten() if needs else None for needs in needs_bias]
    return [*d_inputs, *d_weights]


def _apart(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], list[LSTMWeights]]:
    """First inputs, and weights: five tensors an LSTM."""
    count = len(tensors) // 5
    return tensors[:count], [LSTMWeights(*tensors[place : place + 4]) for place in range(count, len(tensors), 4)]


def _by_autograd(packing: Packing, *tensors: Tensor) -> tuple[Tensor]:
    """What `_FreeRunning` computes, one step after the other by operations that autograd knows."""
    inputs, weights = _apart(tensors)
    first = packing.sizes[0] if packing.sizes else 0
    states = []
    for x, own in zip(inputs, weights, strict=True):
        bias = own.input_bias + own.hidden_bias
        share = torch.cat([F.linear(x[:first], own.input, bias), bias.expand(packing.height - first, -1)])
        states.append(stepped(share, own.input + own.hidden, packing)[0])
    return (torch.cat(states, dim=1),)
