"""Q(Z_ai | X_i): encoders of one modality. All are deterministic, as in the paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from torch import Tensor, nn

from mfm.models.attention import SelfAttention, sinusoids
from mfm.models.backend import Backend, runs_cudnn, runs_fused
from mfm.models.fused_lstm import LSTMWeights
from mfm.models.lstm_groups import LSTMTask, run_lstms
from mfm.models.masking import last_state, masked_mean, step_mask, zero_padding
from mfm.models.recurrence import run_recurrence
from mfm.models.registry import Rate, Registry, Size


class Encoder(nn.Module, ABC):
    """Interface of an encoder: `Encoder(input_dim, code_dim, *, settings)`."""

    @abstractmethod
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Encode a batch of sequences.

        Args:
            x: (B, T, input_dim), left-aligned; padded steps may hold anything, NaN included.
            lengths: (B,) int64 real steps.

        Returns:
            (B, code_dim); zeros, the prior's mean, where the length is 0.
        """


ENCODERS: Registry[Encoder] = Registry("encoder")


class _RecurrentEncoder(Encoder):
    """The last real hidden state of a recurrence, mapped linearly to the code."""

    def __init__(self, recurrence: nn.LSTM | nn.GRU, code_dim: int) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.to_code = nn.Linear(recurrence.hidden_size, code_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        # Left-aligned input and a causal recurrence: padding comes after everything that is read out, so the padded
        # tensor goes in as it is, without packing (which would bring the lengths to the CPU).
        states = run_recurrence(self.recurrence, zero_padding(x, lengths))
        return self.read_out(last_state(states, lengths), lengths)

    def read_out(self, last: Tensor, lengths: Tensor) -> Tensor:
        """The code from the last real hidden state (B, H)."""
        return _code(self.to_code(last), lengths)


@ENCODERS.register("lstm")
class LSTMEncoder(_RecurrentEncoder):
    """LSTM, its last hidden state mapped linearly to the code (the paper's encoder).

    Args:
        input_dim: Features D_i of a step.
        code_dim: Size of Z_ai.
        hidden: Width of the LSTM; the code's size by default, as in the authors' code.
        layers: Stacked LSTM layers.
    """

    def __init__(self, input_dim: int, code_dim: int, *, hidden: Size | None = None, layers: Size = 1) -> None:
        super().__init__(nn.LSTM(input_dim, hidden or code_dim, layers, batch_first=True), code_dim)

    backend: Backend = "auto"

    def runs_fused(self, x: Tensor) -> bool:
        """Whether `task` and `read_out` take the place of `forward`."""
        recurrence = cast(nn.LSTM, self.recurrence)
        if recurrence.num_layers > 1 or runs_cudnn(self.backend, x):
            return False
        return runs_fused(self.backend, *recurrence.all_weights[0])

    def task(self, x: Tensor, lengths: Tensor) -> LSTMTask:
        """What to run; arguments as of `Encoder.forward`."""
        own = cast(nn.LSTM, self.recurrence)
        weights = LSTMWeights(*own.all_weights[0])
        return LSTMTask(x, lengths, weights)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        if not self.runs_fused(x):
            return super().forward(x, lengths)
        return self.read_out(run_lstms([self.task(x, lengths)])[0].last, lengths)


@ENCODERS.register("gru")
class GRUEncoder(_RecurrentEncoder):
    """GRU, its last hidden state mapped linearly to the code.

    Args:
        input_dim: Features D_i of a step.
        code_dim: Size of Z_ai.
        hidden: Width of the GRU; the code's size by default.
        layers: Stacked GRU layers.
    """

    def __init__(self, input_dim: int, code_dim: int, *, hidden: Size | None = None, layers: Size = 1) -> None:
        super().__init__(nn.GRU(input_dim, hidden or code_dim, layers, batch_first=True), code_dim)


@ENCODERS.register("transformer")
class TransformerEncoder(Encoder):
    """Pre-norm transformer over the real steps, their mean mapped linearly to the code.

    Args:
        input_dim: Features D_i of a step.
        code_dim: Size of Z_ai.
        width: Model width, a multiple of `heads`.
        layers: Blocks.
        heads: Attention heads.
        dropout: Dropout in the blocks.
    """

    def __init__(
        self,
        input_dim: int,
        code_dim: int,
        *,
        width: Size = 64,
        layers: Size = 2,
        heads: Size = 4,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(input_dim, width)
        self.attention = SelfAttention(width, layers, heads, dropout)
        self.to_code = nn.Linear(width, code_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        x = zero_padding(x, lengths)
        mask = step_mask(lengths, x.shape[1])
        tokens = self.embed(x)
        tokens = tokens + sinusoids(tokens.shape[1], tokens.shape[2], like=tokens)
        return _code(self.to_code(masked_mean(self.attention(tokens, mask), mask)), lengths)


@ENCODERS.register("mean")
class MeanEncoder(Encoder):
    """Mean over the real steps, then a perceptron of one hidden layer; blind to order.

    Args:
        input_dim: Features D_i of a step.
        code_dim: Size of Z_ai.
        hidden: Width of the hidden layer; the code's size by default.
        dropout: Dropout after the hidden layer.
    """

    def __init__(self, input_dim: int, code_dim: int, *, hidden: Size | None = None, dropout: Rate = 0.0) -> None:
        super().__init__()
        width = hidden or code_dim
        self.to_code = nn.Sequential(
            nn.Linear(input_dim, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, code_dim)
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        x = zero_padding(x, lengths)
        return _code(self.to_code(masked_mean(x, step_mask(lengths, x.shape[1]))), lengths)


def _code(code: Tensor, lengths: Tensor) -> Tensor:
    """Zeros, the prior's mean, where there was nothing to encode."""
    return code.masked_fill((lengths == 0)[:, None], 0.0)
