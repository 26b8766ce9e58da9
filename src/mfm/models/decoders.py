"""Dec_i: X^_i from the factors F_y and F_ai."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.models.attention import sinusoids
from mfm.models.backend import Backend, runs_fused
from mfm.models.fused_decoder import run_free
from mfm.models.fused_lstm import LSTMWeights
from mfm.models.packing import Packing, packing_of_all
from mfm.models.recurrence import free_running_states, lstm_states, lstm_update
from mfm.models.registry import Registry, Size


class Decoder(nn.Module, ABC):
    """Interface of a decoder: `Decoder(f_y, f_i, output_dim, *, settings)`, sizes of F_y, F_ai and a step of X_i."""

    @abstractmethod
    def forward(self, f_y: Tensor, f_i: Tensor, steps: int, inputs: Tensor | None = None) -> Tensor:
        """Decode a batch.

        Args:
            f_y: (B, f_y) multimodal discriminative factor.
            f_i: (B, f_i) modality-specific generative factor.
            steps: Steps T to decode, >= 0. What is decoded for a step does not depend on T.
            inputs: (B, T, output_dim) the true sequence with zeros in padding, for decoders that are
                taught with it; None where there is none, as in generation.

        Returns:
            (B, T, output_dim).
        """


DECODERS: Registry[Decoder] = Registry("decoder")


@DECODERS.register("free_running")
class FreeRunningDecoder(Decoder):
    """LSTM that reads the factors once and then its own previous hidden state (the paper's decoder).

        h_1 = LSTM([F_y; F_ai], 0)   h_t = LSTM(h_{t-1}, state_{t-1})   x^_t = W h_t + b

    Args:
        f_y: Size of F_y.
        f_i: Size of F_ai.
        output_dim: Features D_i of a step.
    """

    def __init__(self, f_y: int, f_i: int, output_dim: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(f_y + f_i, f_y + f_i)
        self.output = nn.Linear(f_y + f_i, output_dim)

    backend: Backend = "auto"

    def runs_fused(self) -> bool:
        """Whether `run_free` and `read_out` take the place of `forward`."""
        return runs_fused(self.backend, self.cell.weight_hh)

    def weights(self) -> LSTMWeights:
        """Parameters of the LSTM."""
        return LSTMWeights(self.cell.weight_ih, self.cell.weight_hh, self.cell.bias_ih, self.cell.bias_hh)

    def read_out(self, states: Tensor, packing: Packing) -> Tensor:
        """Sequences (B, T, output_dim) from packed hidden states (N, f_y + f_i); zeros where there is no row."""
        return packing.unpack(self.output(states))

    def forward(self, f_y: Tensor, f_i: Tensor, steps: int, inputs: Tensor | None = None) -> Tensor:
        """See `Decoder.forward`."""
        if self.runs_fused():
            packing = packing_of_all(len(f_y), max(steps, 1), like=f_y)
            (hidden,) = run_free([torch.cat([f_y, f_i], dim=1)], [self.weights()], packing)
            return self.read_out(hidden, packing)[:, :steps]
        states = free_running_states(torch.cat([f_y, f_i], dim=1), self.cell, max(steps, 1))
        decoded: Tensor = self.output(states[:, :steps])
        return decoded


@DECODERS.register("teacher_forced")
class TeacherForcedDecoder(Decoder):
    """LSTM that reads the factors and the previous step at every step: the true one if known, else its own.

        h_t = LSTM([x_{t-1}; F_y; F_ai], state_{t-1})   x^_t = W h_t + b   x_0 = 0

    Args:
        f_y: Size of F_y.
        f_i: Size of F_ai.
        output_dim: Features D_i of a step.
        hidden: Width of the LSTM; that of both factors together by default.
    """

    def __init__(self, f_y: int, f_i: int, output_dim: int, *, hidden: Size | None = None) -> None:
        super().__init__()
        width = hidden or f_y + f_i
        self.cell = nn.LSTMCell(output_dim + f_y + f_i, width)
        self.output = nn.Linear(width, output_dim)

    def forward(self, f_y: Tensor, f_i: Tensor, steps: int, inputs: Tensor | None = None) -> Tensor:
        """See `Decoder.forward`."""
        factors = torch.cat([f_y, f_i], dim=1)
        if inputs is None:
            return self._generate(factors, max(steps, 1))[:, :steps]
        if inputs.shape[1] != steps:
            raise ValueError(f"asked to decode {steps} steps with {inputs.shape[1]} steps of inputs")
        previous = F.pad(inputs, (0, 0, 1, 0))[:, : max(steps, 1)]
        repeated = factors[:, None].expand(-1, previous.shape[1], -1)
        states, _ = lstm_states(torch.cat([previous, repeated.to(previous.dtype)], dim=2), self.cell)
        decoded: Tensor = self.output(states[:, :steps])
        return decoded

    def _generate(self, factors: Tensor, steps: int) -> Tensor:
        weight = self.cell.weight_ih
        dim = self.output.out_features
        from_factors = F.linear(factors, weight[:, dim:], self.cell.bias_ih + self.cell.bias_hh)
        hidden = cell = factors.new_zeros(factors.shape[0], self.cell.hidden_size)
        step = factors.new_zeros(factors.shape[0], dim)
        decoded = []
        for _ in range(steps):
            gates = from_factors + F.linear(step, weight[:, :dim]) + F.linear(hidden, self.cell.weight_hh)
            hidden, cell = lstm_update(gates, cell)
            step = self.output(hidden)
            decoded.append(step)
        return torch.stack(decoded, dim=1)


@DECODERS.register("mlp")
class MLPDecoder(Decoder):
    """Perceptron on the factors and the position of each step; nothing recurs.

        x^_t = W_2 ReLU(W_f [F_y; F_ai] + W_p position(t) + b_1) + b_2

    Args:
        f_y: Size of F_y.
        f_i: Size of F_ai.
        output_dim: Features D_i of a step.
        hidden: Width of the hidden layer; that of both factors together by default.
        positions: Width of the sinusoidal positions.
    """

    def __init__(
        self, f_y: int, f_i: int, output_dim: int, *, hidden: Size | None = None, positions: Size = 16
    ) -> None:
        super().__init__()
        width = hidden or f_y + f_i
        self.positions = positions
        self.from_factors = nn.Linear(f_y + f_i, width)
        self.from_positions = nn.Linear(positions, width, bias=False)
        self.output = nn.Linear(width, output_dim)

    def forward(self, f_y: Tensor, f_i: Tensor, steps: int, inputs: Tensor | None = None) -> Tensor:
        """See `Decoder.forward`."""
        factors = self.from_factors(torch.cat([f_y, f_i], dim=1))
        positions = self.from_positions(sinusoids(steps, self.positions, like=f_y))
        decoded: Tensor = self.output((factors[:, None] + positions).relu())
        return decoded
