"""Recurrences written out, where `nn.LSTM` does not give what is needed (all cell states, own inputs)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def run_recurrence(recurrence: nn.LSTM | nn.GRU, inputs: Tensor) -> Tensor:
    """Hidden states of every step of an `nn.LSTM` or `nn.GRU` that starts at zero.

    On the CPU it runs in float32 also under autocast: whether 16-bit recurrences exist there depends on the
    processor and the type, and where they do not they raise.

    Args:
        recurrence: Built with `batch_first=True`.
        inputs: (B, T, D), T >= 1.

    Returns:
        (B, T, H).
    """
    if inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            inputs = inputs.to(next(recurrence.parameters()).dtype)
            states: Tensor = recurrence(inputs)[0]
    else:
        states = recurrence(inputs)[0]
    return states


def lstm_update(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM update (Hochreiter and Schmidhuber 1997, with forget gate, gates in PyTorch's order).

        i, f, o = sigmoid(.)   g = tanh(.)   c_t = f * c_{t-1} + i * g   h_t = o * tanh(c_t)

    Args:
        gates: (B, 4H) pre-activations of i, f, g, o.
        cell: (B, H) previous cell state c_{t-1}.

    Returns:
        h_t and c_t, both (B, H).
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def lstm_states(inputs: Tensor, weights: nn.LSTMCell) -> tuple[Tensor, Tensor]:
    """All hidden and cell states of an LSTM that starts at zero.

    The input's share of the gates does not depend on the state, so it is one matrix product for all
    steps; only the state's share stays in the loop.

    Args:
        inputs: (B, T, D), T >= 1, finite everywhere.
        weights: The cell's parameters.

    Returns:
        Hidden states and cell states, both (B, T, H).
    """
    projected = F.linear(inputs, weights.weight_ih, weights.bias_ih + weights.bias_hh)
    recurrent = weights.weight_hh.t()
    hidden = cell = inputs.new_zeros(inputs.shape[0], weights.hidden_size)
    hiddens, cells = [], []
    for from_input in projected.unbind(dim=1):
        hidden, cell = lstm_update(torch.addmm(from_input, hidden, recurrent), cell)
        hiddens.append(hidden)
        cells.append(cell)
    return torch.stack(hiddens, dim=1), torch.stack(cells, dim=1)


def free_running_states(first_input: Tensor, weights: nn.LSTMCell, steps: int) -> Tensor:
    """Hidden states of an LSTM that starts at zero and reads its own previous hidden state.

    From the second step on input and state are the same vector, so that

        gates_t = W_ih h_{t-1} + W_hh h_{t-1} + b = (W_ih + W_hh) h_{t-1} + b

    is one matrix product instead of two.

    Args:
        first_input: (B, H) input of the first step.
        weights: Parameters of a cell whose input is as wide as its state.
        steps: Steps T >= 1.

    Returns:
        (B, T, H).
    """
    bias = weights.bias_ih + weights.bias_hh
    summed = (weights.weight_ih + weights.weight_hh).t()
    hidden = cell = torch.zeros_like(first_input)
    # 0 times W_hh is kept, so that every parameter has a gradient even if there is one step only
    gates = torch.addmm(F.linear(first_input, weights.weight_ih, bias), hidden, weights.weight_hh.t())
    hidden, cell = lstm_update(gates, cell)
    hiddens = [hidden]
    for _ in range(steps - 1):
        hidden, cell = lstm_update(torch.addmm(bias, hidden, summed), cell)
        hiddens.append(hidden)
    return torch.stack(hiddens, dim=1)
