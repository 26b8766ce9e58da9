"""LSTMs that read the same steps, in one loop, with a backward written by hand.

For one LSTM (the equations are those of `recurrence.lstm_update`), with a_t the (n, 4H) pre-activations of i, f, g, o,

    a_t = x_t W_ih^T + b + h_{t-1} W_hh^T                                                                          (1)
    c_t = f_t c_{t-1} + i_t g_t        h_t = o_t tanh(c_t)                                                         (2)

The input's share of (1) is one product for all steps. Backward, for a loss L, write dv for dL/dv. With dh_t and dc_t
what reaches h_t and c_t from outside and from step t + 1, (2) gives

    do = dh_t tanh(c_t)                   dc_t += dh_t o (1 - tanh(c_t)^2)                                         (3)
    di = dc_t g     df = dc_t c_{t-1}     dg = dc_t i      dc_{t-1} = dc_t f                                       (4)
    da = [di i (1 - i), df f (1 - f), dg (1 - g^2), do o (1 - o)]                                                  (5)

and (1)

    dh_{t-1} = da_t W_hh                                                                                           (6)
    dW_hh = sum_t da_t^T h_{t-1}     dW_ih = sum_t da_t^T x_t     db = sum_t da_t     dx_t = da_t W_ih             (7)

Only (3) to (6) are in the loop; each sum of (7) is one product over all steps.

The gates of all LSTMs of a group lie in one tensor (4, N, S), N rows as of `packing.Packing` and S the sum of the
widths, so that element-wise work is one operation on contiguous memory for all of them; products are one batched
operation (over the gates) for each LSTM. Because tanh(x) = 2 sigmoid(2x) - 1, and torch's sigmoid takes a sixth of the
time of its tanh on a CPU, the share of g is computed doubled and all four gates go through one sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mfm.models.backend import at_full_precision, differentiates_further, gradients_by_autograd
from mfm.models.packing import Packing
from mfm.models.recurrence import lstm_update

G = 2
"""Place of g among the gates."""

CHUNK = 1024
"""Rows of which the input's share is computed at once."""


class LSTMWeights(NamedTuple):
    """Parameters of an LSTM as PyTorch has them: (4H, D), (4H, H), (4H,) and (4H,), gates i, f, g, o."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor
    hidden_bias: Tensor

    @property
    def width(self) -> int:
        """H."""
        return self.hidden.shape[1]


def run_packed(
    packing: Packing, inputs: Sequence[Tensor], weights: Sequence[LSTMWeights], reads: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run LSTMs whose sequences are packed alike, from zero states.

    Args:
        packing: Of all of them.
        inputs: (N, D) for each tensor that is read.
        weights: Of each LSTM.
        reads: Place among the inputs of what each LSTM reads.

    Returns:
        Every h and every c, (N, S), and the last h of each rank, (B, S), zeros where the length is 0.
    """
    apply: Callable[..., tuple[Tensor, Tensor, Tensor]] = _LSTMs.apply
    return apply(packing, reads, *inputs, *(tensor for own in weights for tensor in own))


class _LSTMs(torch.autograd.Function):
    """(1) to (7) for a group of LSTMs.

    Arguments: the packing; for each LSTM, which of the inputs it reads; the inputs (N, D); four weights an LSTM.
    Values: every h and every c (N, S), and the last h of each rank (B, S).
    """

    @staticmethod
    def forward(ctx: Any, packing: Packing, reads: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs, weights = _apart(tensors, len(reads))
        with at_full_precision(tensors[-1]):
            columns = columns_of([own.width for own in weights])
            biases = [own.input_bias + own.hidden_bias for own in weights]

            def share(rows: slice, gates: Tensor) -> None:
                for own, bias, units, read in zip(weights, biases, columns, reads, strict=True):
                    write_share(inputs[read][rows], own.input, bias, gates[:, :, units])

            gates, hidden, cells, tanh_cells = run_steps(
                share, [own.hidden for own in weights], packing.sizes, keep=any(ctx.needs_input_grad)
            )
        ctx.packing, ctx.reads = packing, reads
        ctx.save_for_backward(*tensors, gates, hidden, cells, tanh_cells)
        ctx.set_materialize_grads(False)
        return hidden, cells, packing.last_rows(hidden)

    @staticmethod
    def backward(ctx: Any, *d_states: Tensor | None) -> Any:
        *tensors, gates, hidden, cells, tanh_cells = ctx.saved_tensors
        packing, reads, needed = ctx.packing, ctx.reads, ctx.needs_input_grad[2:]
        if differentiates_further(*d_states):
            again = partial(_by_autograd, packing, reads)
            return None, None, *gradients_by_autograd(again, tensors, needed, d_states)
        inputs, weights = _apart(tensors, len(reads))
        d_hidden, d_cells, d_last = d_states
        with at_full_precision(gates):
            if d_last is None:
                d_state = hidden.new_zeros(packing.batch, hidden.shape[1])
            else:
                d_state, d_hidden = packing.into_last_rows(d_last, d_hidden)
            recurrent = [own.hidden for own in weights]
            d_gates = run_back(gates, cells, tanh_cells, recurrent, packing.sizes, d_state, d_hidden, d_cells)
            return None, None, *_gradients(packing, reads, inputs, weights, hidden, d_gates, needed)


def _gradients(
    packing: Packing,
    reads: tuple[int, ...],
    inputs: Sequence[Tensor],
    weights: Sequence[LSTMWeights],
    hidden: Tensor,
    d_gates: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Equation (7), None where a gradient is not needed."""
    d_inputs: list[Tensor | None] = [None] * len(inputs)
    d_weights: list[Tensor | None] = []
    before = packing.previous(hidden)
    after = d_gates[:, d_gates.shape[1] - before.shape[0] :]  # the rows that have a step before them
    d_bias = d_gates.sum(dim=1)
    columns = columns_of([own.width for own in weights])
    for place, (own, units, read) in enumerate(zip(weights, columns, reads, strict=True)):
        needs_input, needs_hidden, *needs_bias = needed[len(inputs) + 4 * place :][:4]
        if needed[read]:
            d_inputs[read] = weighted_sum(d_gates[:, :, units], own.input, d_inputs[read])
        d_weights.append(weight_gradient(d_gates[:, :, units], inputs[read]) if needs_input else None)
        d_weights.append(weight_gradient(after[:, :, units], before[:, units]) if needs_hidden else None)
        d_weights += [d_bias[:, units].flatten() if needs else None for needs in needs_bias]
    return [*d_inputs, *d_weights]


def _apart(tensors: Sequence[Tensor], count: int) -> tuple[Sequence[Tensor], list[LSTMWeights]]:
    """Inputs, and the weights of `count` LSTMs."""
    first = len(tensors) - 4 * count
    return tensors[:first], [LSTMWeights(*tensors[place : place + 4]) for place in range(first, len(tensors), 4)]


def _by_autograd(packing: Packing, reads: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `_LSTMs` computes, one step after the other by operations that autograd knows."""
    inputs, weights = _apart(tensors, len(reads))
    hiddens, cells = [], []
    for own, read in zip(weights, reads, strict=True):
        share = F.linear(inputs[read], own.input, own.input_bias + own.hidden_bias)
        states = stepped(share, own.hidden, packing)
        hiddens.append(states[0])
        cells.append(states[1])
    hidden = torch.cat(hiddens, dim=1)
    return hidden, torch.cat(cells, dim=1), packing.last_rows(hidden)


def stepped(share: Tensor, recurrent: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
    """Equations (1) and (2) by operations that autograd knows.

    Args:
        share: (N, 4H) share of the input in the gates.
        recurrent: W_hh (4H, H).
        packing: Of the N rows.

    Returns:
        h and c of every step, (N, H).
    """
    hidden = cell = share.new_zeros(packing.batch, recurrent.shape[1])
    hiddens, cells = [hidden[:0]], [cell[:0]]
    for own in share.split_with_sizes(packing.sizes) if packing.sizes else ():
        hidden, cell = lstm_update(torch.addmm(own, hidden[: len(own)], recurrent.t()), cell[: len(own)])
        hiddens.append(hidden)
        cells.append(cell)
    return torch.cat(hiddens), torch.cat(cells)


def columns_of(widths: Sequence[int]) -> list[slice]:
    """Where each LSTM's units lie among the S of the group."""
    return [slice(end - width, end) for end, width in zip(accumulate(widths), widths, strict=True)]


def write_share(x: Tensor, weight: Tensor, bias: Tensor, gates: Tensor) -> None:
    """Write x W^T + b, that of g doubled.

    Args:
        x: (N, D).
        weight: W (4H, D).
        bias: b (4H,).
        gates: (4, N, H), written.
    """
    per_gate = zip(weight.reshape(4, -1, weight.shape[1]), bias.view(4, 1, -1), gates, strict=True)
    for gate, (own, own_bias, share) in enumerate(per_gate):
        scale = 2 if gate == G else 1
        torch.addmm(own_bias.expand_as(share), x, own.t(), beta=scale, alpha=scale, out=share)


def run_steps(
    share: Callable[[slice, Tensor], None],
    recurrent: Sequence[Tensor],
    sizes: Sequence[int],
    bias: Sequence[Tensor] | None = None,
    *,
    keep: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Equations (1) and (2) from zero states.

    The input's share is computed for `CHUNK` rows at a time: enough for one efficient product, and still in the cache
    when their steps come.

    Args:
        share: Writes the input's share of rows, that of g doubled, into (4, rows, S).
        recurrent: W_hh (4H, H) of each LSTM, the widths adding up to S.
        sizes: Rows of each step.
        bias: b (4H,) of each, where there is no input after step 0; what `share` writes for later steps is not read.
        keep: Whether there will be a backward.

    Returns:
        i, f, g and o of every step (4, N, S), and h, c and tanh(c), each (N, S); unless `keep`, gates and tanh(c) hold
        what was last written only.
    """
    columns = columns_of([weight.shape[1] for weight in recurrent])
    chunks = _chunks(sizes)
    rows = [sum(sizes[first:stop]) for first, stop in chunks]
    hidden, cells = (recurrent[0].new_empty(sum(sizes), columns[-1].stop) for _ in range(2))
    gates = hidden.new_empty(4, sum(sizes) if keep else max(rows, default=0), hidden.shape[1])
    tanh_cells = torch.empty_like(hidden if keep else hidden[: max(sizes, default=0)])
    one = gates.new_ones(())  # a Python number costs more to hand over than to subtract
    weights = [_transposed(weight) for weight in recurrent]
    biases = None if bias is None else [_doubled(own.reshape(4, 1, -1).clone()) for own in bias]
    states = hidden.expand(4, -1, -1)
    own_states = [states[:, :, units].split_with_sizes(list(sizes), dim=1) for units in columns]
    values = list(zip(hidden.split_with_sizes(list(sizes)), cells.split_with_sizes(list(sizes)), strict=True))
    start = 0
    for (first, stop), count in zip(chunks, rows, strict=True):
        here = list(sizes[first:stop])
        part = gates[:, start : start + count] if keep else gates[:, :count]
        share(slice(start, start + count), part)
        own_gates = [part[:, :, units].split_with_sizes(here, dim=1) for units in columns]
        tanhs = tanh_cells[start : start + count].split_with_sizes(here) if keep else [tanh_cells[:n] for n in here]
        gate_steps = zip(*(x.split_with_sizes(here, dim=-2) for x in (part, *part)), tanhs, strict=True)
        for place, (all_gates, i, f, g, o, tanh_c) in enumerate(gate_steps):
            step, size = first + place, here[place]
            h, c = values[step]
            if step:
                whole = size == sizes[step - 1]
                for own, (gate, state, weight) in enumerate(zip(own_gates, own_states, weights, strict=True)):
                    before = state[step - 1] if whole else state[step - 1][:, :size]
                    given = gate[place] if biases is None else biases[own].expand_as(gate[place])
                    torch.baddbmm(given, before, weight, out=gate[place])  # (1)
            all_gates.sigmoid_()
            _turn_into_tanh(g, one)
            torch.mul(i, g, out=c)  # (2)
            if step:
                c.addcmul_(f, values[step - 1][1][:size])
            torch.add(c, c, out=tanh_c).sigmoid_()
            _turn_into_tanh(tanh_c, one)
            torch.mul(o, tanh_c, out=h)
        start += count
    return gates, hidden, cells, tanh_cells


def _chunks(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of consecutive steps of at least `CHUNK` rows together, the last one perhaps of fewer."""
    chunks, first, rows = [], 0, 0
    for step, size in enumerate(sizes):
        rows += size
        if rows >= CHUNK or step + 1 == len(sizes):
            chunks.append((first, step + 1))
            first, rows = step + 1, 0
    return chunks


def run_back(
    gates: Tensor,
    cells: Tensor,
    tanh_cells: Tensor,
    recurrent: Sequence[Tensor],
    sizes: Sequence[int],
    d_state: Tensor,
    d_hidden: Tensor | None = None,
    d_cells: Tensor | None = None,
) -> Tensor:
    """Equations (3) to (6), from the last step to the first.

    Args:
        gates: (4, N, S) i, f, g, o.
        cells: (N, S).
        tanh_cells: (N, S).
        recurrent: As in `run_steps`.
        sizes: As in `run_steps`.
        d_state: (B, S), what reaches each rank's last h from outside. A row waits until that step is reached; from
            then on it holds dh, and is overwritten.
        d_hidden: (N, S), what reaches every h from outside.
        d_cells: (N, S), what reaches every c from outside.

    Returns:
        da, (4, N, S).
    """
    d_gates = torch.empty_like(gates)
    if not sizes:
        return d_gates
    columns = columns_of([weight.shape[1] for weight in recurrent])
    weights = [weight.reshape(4, weight.shape[1], -1) for weight in recurrent]
    own_gates = [d_gates[:, :, units].split_with_sizes(sizes, dim=1) for units in columns]
    parts = gates.new_empty(4, *d_state.shape)
    own_parts = [parts[:, :, units] for units in columns]
    d_cell, scratch = torch.zeros_like(d_state), torch.empty_like(d_state)
    steps = list(zip(*(x.split_with_sizes(sizes, dim=-2) for x in (*gates, cells, tanh_cells, gates[:G])), strict=True))
    d_steps = list(zip(*(x.split_with_sizes(sizes, dim=-2) for x in (*d_gates, d_gates[:G])), strict=True))
    from_outside = [None if x is None else x.split_with_sizes(sizes) for x in (d_hidden, d_cells)]
    for step in reversed(range(len(sizes))):
        i, f, g, o, _, tanh_c, i_and_f = steps[step]
        d_i, d_f, d_g, d_o, d_i_and_f = d_steps[step]
        size = sizes[step]
        d_h, d_c, part = d_state[:size], d_cell[:size], scratch[:size]
        if from_outside[0] is not None:
            d_h.add_(from_outside[0][step])
        if from_outside[1] is not None:
            d_c.add_(from_outside[1][step])
        torch.mul(d_h, tanh_c, out=d_o)  # (3)
        d_c.add_(_tanh_backward(torch.mul(d_h, o, out=part), tanh_c, grad_input=part))
        torch.mul(d_c, g, out=d_i)  # (4)
        torch.mul(d_c, i, out=d_g)
        if step:
            torch.mul(d_c, steps[step - 1][4][:size], out=d_f)
            d_c.mul_(f)
        else:
            d_f.zero_()
        _sigmoid_backward(d_i_and_f, i_and_f, grad_input=d_i_and_f)  # (5)
        _sigmoid_backward(d_o, o, grad_input=d_o)
        _tanh_backward(d_g, g, grad_input=d_g)
        if step:
            for d_own, weight, own_part in zip(own_gates, weights, own_parts, strict=True):
                torch.bmm(d_own[step], weight, out=own_part[:, :size])  # (6)
            torch.sum(parts[:, :size], dim=0, out=d_h)
    return d_gates


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def weight_gradient(d_gates: Tensor, read: Tensor) -> Tensor:
    """sum_t da_t^T x_t of (7): (4, N, H) and (N, D) to (4H, D)."""
    gradient = d_gates.new_empty(4 * d_gates.shape[2], read.shape[1])
    for own, d_gate in zip(gradient.view(4, d_gates.shape[2], -1), d_gates, strict=True):
        torch.mm(d_gate.t(), read, out=own)
    return gradient


def weighted_sum(d_gates: Tensor, weight: Tensor, so_far: Tensor | None = None) -> Tensor:
    """The product da W of (7), added to `so_far`: (4, N, H) and (4H, D) to (N, D)."""
    total = d_gates.new_zeros(d_gates.shape[1], weight.shape[1]) if so_far is None else so_far
    for d_gate, own in zip(d_gates, weight.reshape(4, d_gates.shape[2], -1), strict=True):
        total.addmm_(d_gate, own)
    return total


def _transposed(recurrent: Tensor) -> Tensor:
    """W_hh (4H, H) as (4, H, H) to multiply states with from the right, that of g doubled."""
    weight = recurrent.reshape(4, recurrent.shape[1], -1).transpose(1, 2)
    return _doubled(weight.clone(memory_format=torch.contiguous_format))


def _doubled(gates: Tensor) -> Tensor:
    """Double the share of g in (4, ...), in place."""
    gates[G].mul_(2)
    return gates


def _turn_into_tanh(x: Tensor, one: Tensor) -> None:
    """From sigmoid(2x) to tanh(x), in place."""
    x.add_(x).sub_(one)
