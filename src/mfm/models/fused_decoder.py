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
    add_bias_gradients,
    add_weight_gradient,
    add_weighted_sum,
    columns_of,
    run_back,
    run_steps,
    stepped,
    write_share,
)
from mfm.models.packing import Chunk, Packing


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

            def share(chunk: Chunk, gates: Tensor) -> None:
                if chunk.first == 0:
                    first = packing.sizes[0]
                    for x, own, bias, units in zip(inputs, weights, biases, columns, strict=True):
                        write_share(x[:first], own.input, bias, gates[:, :first, units])

            summed = [own.input + own.hidden for own in weights]
            gates, hidden, cells = run_steps(share, summed, packing.sizes, biases, keep=any(ctx.needs_input_grad))
        ctx.packing, ctx.given = packing, len(tensors)
        ctx.save_for_backward(*tensors, hidden, cells, *gates)
        return hidden

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor) -> Any:
        tensors, (hidden, cells, *gates) = ctx.saved_tensors[: ctx.given], ctx.saved_tensors[ctx.given :]
        packing, needed = ctx.packing, ctx.needs_input_grad[1:]
        if differentiates_further(d_hidden):
            return None, *gradients_by_autograd(partial(_by_autograd, packing), tensors, needed, [d_hidden])
        inputs, weights = _apart(tensors)
        gradients = [x.new_zeros(x.shape) if need else None for x, need in zip(tensors, needed, strict=True)]
        d_inputs, d_weights = _apart(gradients)
        columns = columns_of([own.width for own in weights])
        d_summed = [own.hidden.new_zeros(own.hidden.shape) for own in weights]

        def collect(chunk: Chunk, d_gates: Tensor, before: Tensor) -> None:  # (7)
            first = slice(0, 0 if chunk.first else packing.sizes[0])
            for place, (x, own, d_x, d_own) in enumerate(zip(inputs, weights, d_inputs, d_weights, strict=True)):
                d_own_gates = d_gates[:, :, columns[place]]
                add_weight_gradient(d_summed[place], d_own_gates, before[:, columns[place]])
                add_weight_gradient(d_own.input, d_own_gates[:, first], x[first])
                add_weighted_sum(d_x, first, d_own_gates[:, first], own.input)
                add_bias_gradients(d_own, d_own_gates)

        with at_full_precision(hidden):
            summed = [own.input + own.hidden for own in weights]
            d_state = hidden.new_zeros(packing.batch, hidden.shape[1])
            run_back(gates, hidden, cells, summed, packing.sizes, d_state, collect, d_hidden)
            for own, total in zip(d_weights, d_summed, strict=True):
                for gradient in (own.input, own.hidden):
                    if gradient is not None:
                        gradient.add_(total)
        return None, *gradients


def _apart(tensors: Sequence[Any]) -> tuple[Sequence[Any], list[LSTMWeights]]:
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
