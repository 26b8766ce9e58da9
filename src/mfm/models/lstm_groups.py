"""LSTMs by what they read: those whose sequences have the same lengths run in one loop of `fused_lstm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from mfm.models.fused_lstm import LSTMWeights, run_padded
from mfm.models.masking import zero_padding
from mfm.models.packing import Packing, packing_of


class LSTMTask(NamedTuple):
    """One LSTM and what it reads: `x` (B, T, D), left-aligned, anything in padding, and `lengths` (B,)."""

    x: Tensor
    lengths: Tensor
    weights: LSTMWeights


class LSTMStates(NamedTuple):
    """What an LSTM that starts at zero makes of its sequences.

    Attributes:
        hidden: (N, H), every step's h, as packed.
        cells: (N, H), every step's c.
        last: (B, H), h after each sample's last step, zeros where the length is 0.
        packing: How steps are packed.
    """

    hidden: Tensor
    cells: Tensor
    last: Tensor
    packing: Packing


def run_lstms(tasks: Sequence[LSTMTask]) -> list[LSTMStates]:
    """Run LSTMs, those whose sequences have the same lengths in one loop.

    Args:
        tasks: The LSTMs; a tensor that several of them read is one to the loop too.

    Returns:
        States of each, in the weights' precision.
    """
    groups: dict[Any, list[int]] = {}
    for place, task in enumerate(tasks):
        key = tuple(task.lengths.tolist()) if task.lengths.device.type == "cpu" else task.x.shape[1]
        groups.setdefault(key, []).append(place)
    states: dict[int, LSTMStates] = {}
    for places in groups.values():
        steps = max(tasks[place].x.shape[1] for place in places)
        packing = packing_of(tasks[places[0]].lengths, steps)
        states |= zip(places, _run_group([tasks[place] for place in places], packing), strict=True)
    return [states[place] for place in range(len(tasks))]


def _run_group(tasks: Sequence[LSTMTask], packing: Packing) -> list[LSTMStates]:
    """Run LSTMs whose sequences are packed alike."""
    read: dict[int, Tensor] = {}
    for x, lengths, weights in tasks:
        if id(x) not in read:
            # T may differ where it exceeds every length
            whole = F.pad(x, (0, 0, 0, packing.steps - x.shape[1])) if x.shape[1] < packing.steps else x
            real = whole if x.device.type == "cpu" else zero_padding(whole, lengths)
            read[id(x)] = real.to(weights.hidden.dtype)
    reads = tuple(list(read).index(id(task.x)) for task in tasks)
    hidden, cells, last = run_padded(packing, list(read.values()), [task.weights for task in tasks], reads)
    widths = [task.weights.width for task in tasks]
    parts = (states.split_with_sizes(widths, dim=1) for states in (hidden, cells, packing.by_sample(last)))
    return [LSTMStates(*values, packing=packing) for values in zip(*parts, strict=True)]  # type: ignore[misc]
