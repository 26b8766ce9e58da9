"""The Memory Fusion Network (Zadeh et al., AAAI 2018, arXiv 1802.00927), the paper's Q(Z_y | X_1:M)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.models.alignment import on_one_clock
from mfm.models.backend import Backend, runs_fused
from mfm.models.fused_lstm import LSTMWeights
from mfm.models.fused_memory import run_memory
from mfm.models.fusion import CLOCK_LIMIT, FUSIONS, Fusion, longest
from mfm.models.lstm_groups import LSTMStates, LSTMTask, run_lstms
from mfm.models.masking import hold_last, last_state
from mfm.models.packing import Packing, packing_of
from mfm.models.per_modality import PerModality, spread
from mfm.models.recurrence import lstm_states
from mfm.models.registry import Rate, Size


class Perceptron(nn.Module):
    """Linear - ReLU - Dropout - Linear."""

    def __init__(self, input_dim: int, hidden: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(input_dim, hidden)
        self.second = nn.Linear(hidden, output_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        return self.readout(self.first(x))

    def readout(self, x: Tensor) -> Tensor:
        """What follows the first linear layer, whose result `x` (..., hidden) was computed outside."""
        output: Tensor = self.second(self.dropout(x.relu()))
        return output


@FUSIONS.register("mfn")
class MemoryFusionNetwork(Fusion):
    """Memory Fusion Network: an LSTM a modality, attention across their cells, a gated memory (the paper's).

    With c_t the cell states of all modalities' LSTMs, concatenated,

        c*_t       = [c_{t-1}; c_t]                                 the last `window` steps
        attended_t = softmax(MLP_1(c*_t)) * c*_t                    attention 1
        c^_t       = tanh(MLP_2(attended_t))                        attention 2
        g1_t, g2_t = sigmoid(MLP_3,4([attended_t; mem_{t-1}]))      gates
        mem_t      = g1_t * mem_{t-1} + g2_t * c^_t
        Z_y        = Linear([h_T of every modality; mem_T])

    h, c and mem start at 0. A modality's state is held after its last step and the memory after the
    sample's last step; T is each sample's own end. The cells of an absent modality take no part in
    the attention's softmax.

    Args:
        feature_dims: Modality -> D_m.
        code_dim: Size of Z_y.
        aligned: Whether step t is one moment in all modalities; otherwise they are averaged onto one clock.
        hidden: Width of the LSTMs, one for all or per modality (with `default`).
        memory: Width of the memory.
        window: Steps of cell states that the attention sees.
        attention1: Hidden width of MLP_1.
        attention2: Hidden width of MLP_2.
        gate1: Hidden width of the gate that keeps memory.
        gate2: Hidden width of the gate that writes memory.
        attention1_dropout: Dropout in MLP_1.
        attention2_dropout: Dropout in MLP_2.
        gate1_dropout: Dropout in the gate that keeps.
        gate2_dropout: Dropout in the gate that writes.
        clock_limit: Most steps of the shared clock of unaligned features.
    """

    backend: Backend = "auto"

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        code_dim: int,
        aligned: bool,
        *,
        hidden: Size | Mapping[str, Size] = 64,
        memory: Size = 64,
        window: Size = 2,
        attention1: Size = 64,
        attention2: Size = 64,
        gate1: Size = 64,
        gate2: Size = 64,
        attention1_dropout: Rate = 0.0,
        attention2_dropout: Rate = 0.0,
        gate1_dropout: Rate = 0.0,
        gate2_dropout: Rate = 0.0,
        clock_limit: Size | None = CLOCK_LIMIT,
    ) -> None:
        super().__init__()
        self.aligned = aligned
        self.clock_limit = clock_limit
        self.window = window
        self.memory = memory
        widths = spread("setting 'hidden' of fusion 'mfn'", hidden, sorted(feature_dims))
        total = sum(widths.values())
        self.cells = PerModality({name: nn.LSTMCell(feature_dims[name], widths[name]) for name in widths})
        attended = self._build_attention(widths, attention1, attention1_dropout)
        self.attention2 = Perceptron(attended, attention2, memory, attention2_dropout)
        self.gate1 = Perceptron(attended + memory, gate1, memory, gate1_dropout)
        self.gate2 = Perceptron(attended + memory, gate2, memory, gate2_dropout)
        self.to_code = nn.Linear(total + memory, code_dim)

    def _build_attention(self, widths: Mapping[str, int], hidden: int, dropout: float) -> int:
        """Make the parts of `_attended`; returns the width of what that gives."""
        total = self.window * sum(widths.values())
        self.attention1 = Perceptron(total, hidden, total, dropout)
        return total

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """See `Fusion.forward`."""
        if self.runs_fused():
            features, lengths = self.on_its_clock(features, lengths)
            return self.fuse(run_lstms(self.tasks(features, lengths)), lengths)
        features, lengths = on_one_clock(features, lengths, aligned=self.aligned, limit=self.clock_limit)
        ends = longest(lengths)
        hiddens, cells, absent = [], [], []
        for name, weights in self.cells.items():
            hidden, cell = lstm_states(features[name], weights)
            hiddens.append(last_state(hidden, lengths[name]))
            cells.append(hold_last(cell, lengths[name]))
            absent.append((lengths[name] == 0)[:, None].expand(-1, weights.hidden_size))
        attended = self._attend(torch.cat(cells, dim=2), torch.cat(absent, dim=1))
        memories = self._memories(attended, self.attention2(attended).tanh())
        return self._code(hiddens, last_state(memories, ends), ends)

    def _code(self, hiddens: list[Tensor], memory: Tensor, ends: Tensor) -> Tensor:
        code: Tensor = self.to_code(torch.cat([*hiddens, memory], dim=1))
        return code.masked_fill((ends == 0)[:, None], 0.0)

    # ------------------------------------------------- the same by `fused_lstm` and `fused_memory`
    def runs_fused(self) -> bool:
        """Whether `tasks` and `fuse` take the place of `forward`."""
        return runs_fused(self.backend, self.to_code.weight)

    def on_its_clock(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Features and lengths on the clock of `forward`; as they are where they share one already."""
        if self.aligned:
            return features, lengths
        return on_one_clock(features, lengths, aligned=False, limit=self.clock_limit)

    def tasks(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> list[LSTMTask]:
        """The modalities' LSTMs."""
        return [
            LSTMTask(
                features[name],
                lengths[name],
                LSTMWeights(own.weight_ih, own.weight_hh, own.bias_ih, own.bias_hh),
            )
            for name, own in self.cells.items()
        ]

    def fuse(self, states: Sequence[LSTMStates], lengths: Mapping[str, Tensor]) -> Tensor:
        """Z_y from what the LSTMs of `tasks` made of their sequences."""
        ends = longest(lengths)
        packing, cells = _on_one_packing(states, list(lengths.values()), ends)
        windows = torch.cat([packing.lagged(cells, lag) for lag in reversed(range(self.window))], dim=1)
        everyone = all(own.packing.empty is None for own in states)
        attended = self._attended(windows, None if everyone else self._absent(packing, lengths))
        proposals = self.attention2(attended).tanh()
        weight, from_memory, bias = self._first_layers(attended.shape[1])
        known = F.linear(attended, weight, bias)
        second = (self.gate1.second, self.gate2.second)
        parameters = [tensor for layer in second for tensor in (layer.weight, layer.bias)]
        memory = run_memory(known, proposals, from_memory, parameters, self._masks(known), packing)
        return self._code([own.last for own in states], packing.by_sample(memory), ends)

    def _absent(self, packing: Packing, lengths: Mapping[str, Tensor]) -> Tensor:
        """(N, H) bool, True for cells of modalities that a row's sample does not have."""
        parts = [(lengths[name] == 0)[:, None].expand(-1, own.hidden_size) for name, own in self.cells.items()]
        return packing.spread(packing.by_rank(torch.cat(parts, dim=1)))

    def _masks(self, first: Tensor) -> Tensor | None:
        """Dropout masks of both gates' first layers for all steps at once; None without dropout."""
        gates = (self.gate1, self.gate2)
        if not self.training or not any(gate.dropout.p for gate in gates):
            return None
        return torch.cat([gate.dropout(first.new_ones(len(first), gate.first.out_features)) for gate in gates], dim=1)

    # ------------------------------------------------------------------------------ shared by both
    def _attend(self, cells: Tensor, absent: Tensor) -> Tensor:
        """Attention 1 over the last `window` cell states, for all steps at once.

        Args:
            cells: (B, T, H), H the sum of all modalities' widths.
            absent: (B, H) bool, True for cells of absent modalities.

        Returns:
            (B, T, width) as of `_attended`; a window has its oldest step first.
        """
        steps = cells.shape[1]
        windows = torch.cat([F.pad(cells, (0, 0, lag, 0))[:, :steps] for lag in reversed(range(self.window))], dim=2)
        return self._attended(windows, absent[:, None])

    def _attended(self, windows: Tensor, absent: Tensor | None) -> Tensor:
        """softmax(MLP_1(c*)) * c* for windows (..., window * H); absent (..., H), with at most ones for dimensions."""
        scores = self.attention1(windows)
        if absent is not None:
            absent = absent & ~absent.all(dim=-1, keepdim=True)  # a softmax over nothing would be NaN
            scores = scores.masked_fill(torch.cat([absent] * self.window, dim=-1), float("-inf"))
        return torch.softmax(scores, dim=-1) * windows

    def _first_layers(self, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """First layers of both gates, side by side: W [attended; mem] = W[:, :width] attended + W[:, width:] mem."""
        gates = (self.gate1, self.gate2)
        weight = torch.cat([gate.first.weight for gate in gates])
        return weight[:, :width], weight[:, width:], torch.cat([gate.first.bias for gate in gates])

    def _memories(self, attended: Tensor, proposals: Tensor) -> Tensor:
        """The memory after every step; all that does not depend on the memory is computed before the loop.

        Args:
            attended: (B, T, width).
            proposals: (B, T, memory), c^.

        Returns:
            (B, T, memory).
        """
        weight, from_memory, bias = self._first_layers(attended.shape[2])
        from_attended, from_memory = F.linear(attended, weight, bias), from_memory.t()
        widths = [gate.first.out_features for gate in (self.gate1, self.gate2)]
        memory = proposals.new_zeros(proposals.shape[0], self.memory, dtype=attended.dtype)
        memories = []
        for known, proposal in zip(from_attended.unbind(dim=1), proposals.unbind(dim=1), strict=True):
            first = torch.addmm(known, memory, from_memory)
            keep, write = torch.split(first, widths, dim=1)
            memory = self.gate1.readout(keep).sigmoid() * memory + self.gate2.readout(write).sigmoid() * proposal
            memories.append(memory)
        return torch.stack(memories, dim=1)


def _on_one_packing(states: Sequence[LSTMStates], lengths: Sequence[Tensor], ends: Tensor) -> tuple[Packing, Tensor]:
    """All modalities' cells (N, H) with one row for each step of the longest, held after their own last step."""
    packings = {id(own.packing): own.packing for own in states}
    if len(packings) == 1 and (states[0].packing.rows is not None or states[0].packing.empty is None):
        return states[0].packing, torch.cat([own.cells for own in states], dim=1)
    packing = packing_of(ends, max(own.packing.steps for own in states))
    cells = []
    for own, length in zip(states, lengths, strict=True):
        nothing = own.cells.new_zeros(1, own.cells.shape[1])
        cells.append(torch.cat([own.cells, nothing]).index_select(0, own.packing.held(length, packing)))
    return packing, torch.cat(cells, dim=1)
