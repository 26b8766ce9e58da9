"""Sequences of a batch as one matrix that holds real steps only, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1024
"""Rows of a chunk: what is not in the loop over steps is computed for so many at once."""


class Chunk(NamedTuple):
    """Consecutive steps, `first` to before `stop`, and their rows, `start` to before `end`."""

    first: int
    stop: int
    start: int
    end: int

    @property
    def steps(self) -> slice:
        """Its steps."""
        return slice(self.first, self.stop)

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.start, self.end)


def chunks_of(sizes: Sequence[int]) -> list[Chunk]:
    """Chunks of at least `CHUNK` rows, the last one perhaps of fewer."""
    chunks, first, start, end = [], 0, 0, 0
    for step, size in enumerate(sizes):
        end += size
        if end - start >= CHUNK or step + 1 == len(sizes):
            chunks.append(Chunk(first, step + 1, start, end))
            first, start = step + 1, end
    return chunks


def rows_before(packed: Tensor, sizes: Sequence[int], chunk: Chunk) -> Tensor:
    """What (N, S) holds one step before each row of a chunk that is not of step 0."""
    first = max(chunk.first, 1)
    now, then = sizes[first : chunk.stop], sizes[first - 1 : chunk.stop - 1]
    start = chunk.start - (sizes[first - 1] if chunk.first else 0)
    before = packed[start : start + sum(then)]
    if now == then:
        return before
    return torch.cat([step[:size] for step, size in zip(before.split_with_sizes(list(then)), now, strict=True)])


class Packing(NamedTuple):
    """Where the steps of B padded sequences lie in a matrix of N rows.

    The samples are ranked by length, longest first, and the rows are those of step 0 in order of rank, then those of
    step 1, and so on. As samples end, fewer rows remain, always the first ranks: the state before a row of rank j is
    the row of rank j one step earlier.

    On the CPU only real steps have rows. Elsewhere reading the lengths would wait for the device: there every
    sequence has all T rows, and what comes after its end is not read.

    Attributes:
        batch: B.
        steps: T of the padded tensors.
        sizes: Rows of each step, not growing; their sum is N.
        order: (B,) rank -> sample; None where it is the identity.
        ranks: (B,) sample -> rank; None where it is the identity.
        rows: (N,) row -> its place in the padded sequences laid end to end, sample * T + step; None where every
            sequence has T rows.
        last: (B,) rank -> row of its last step; 0 where the length is 0.
        empty: (B, 1) bool, rank -> whether the length is 0; None where it is known that none is.
    """

    batch: int
    steps: int
    sizes: tuple[int, ...]
    order: Tensor | None
    ranks: Tensor | None
    rows: Tensor | None
    last: Tensor
    empty: Tensor | None

    @property
    def height(self) -> int:
        """N."""
        return sum(self.sizes)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, D) padded sequences as (N, D)."""
        if self.rows is None:
            return x.transpose(0, 1).reshape(self.height, x.shape[2])
        return x.reshape(self.batch * self.steps, x.shape[2]).index_select(0, self.rows)

    def pack_some(self, x: Tensor, chunk: Chunk) -> Tensor:
        """The rows of `pack` that a chunk has; `x` contiguous where not every step has B rows."""
        if self.rows is None:
            return x[:, chunk.steps].transpose(0, 1).reshape(-1, x.shape[2])
        return x.view(self.batch * self.steps, x.shape[2]).index_select(0, self.rows[chunk.rows])

    def unpack(self, packed: Tensor) -> Tensor:
        """(N, D) as (B, T, D) padded sequences, zeros where there is no row."""
        if self.rows is None:
            return packed.view(self.steps, self.batch, packed.shape[1]).transpose(0, 1)
        padded = packed.new_zeros(self.batch * self.steps, packed.shape[1])
        return padded.index_copy(0, self.rows, packed).view(self.batch, self.steps, packed.shape[1])

    def by_sample(self, ranked: Tensor) -> Tensor:
        """(B, ...) in order of rank, in the order of the samples."""
        return ranked if self.ranks is None else ranked.index_select(0, self.ranks)

    def by_rank(self, x: Tensor) -> Tensor:
        """(B, ...) in the order of the samples, in order of rank."""
        return x if self.order is None else x.index_select(0, self.order)

    def held(self, lengths: Tensor, other: Packing) -> Tensor:
        """For each row of `other`, the row here of the same sample and step, or of its last step if that was before.

        Args:
            lengths: (B,) real steps of the sequences packed here.
            other: How longer sequences of the same samples are packed.

        Returns:
            (N of `other`,) int64; N, one more than the last row, where the length is 0.
        """
        places = torch.arange(other.height, device=lengths.device) if other.rows is None else other.rows
        if other.rows is None:
            samples, steps = places % other.batch, places // other.batch
        else:
            samples, steps = places // other.steps, places % other.steps
        own = lengths.index_select(0, samples)
        offsets = torch.tensor([0, *accumulate(self.sizes)], device=lengths.device)
        rank = samples if self.ranks is None else self.ranks.index_select(0, samples)
        row = offsets.index_select(0, torch.minimum(steps, (own - 1).clamp(min=0))) + rank
        return row.masked_fill(own == 0, self.height)

    def last_rows(self, packed: Tensor) -> Tensor:
        """Row of the last step of each rank, (B, D); zeros where the length is 0."""
        if not self.height:
            return packed.new_zeros(self.batch, packed.shape[1])
        found = packed.index_select(0, self.last)
        return found if self.empty is None else found.masked_fill(self.empty, 0.0)

    def into_last_rows(self, d_last: Tensor, d_packed: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Backward of `last_rows`, for a loop that goes from the last step to the first.

        Args:
            d_last: (B, D), what reaches each rank's last row.
            d_packed: (N, D), what else reaches every row; None for nothing.

        Returns:
            (B, D), not `d_last` itself, which waits for each rank's first row met, and (N, D) as `d_packed`.
        """
        if self.rows is not None or self.empty is None:
            return d_last.clone(), d_packed
        # every rank goes on to step T, and only the device knows which step is its last
        outside = d_last.new_zeros(self.height, d_last.shape[1]) if d_packed is None else d_packed.clone()
        return torch.zeros_like(d_last), outside.index_add_(0, self.last, d_last.masked_fill(self.empty, 0.0))

    def spread(self, ranked: Tensor) -> Tensor:
        """(B, D) in order of rank, repeated for every row: (N, D)."""
        if self.rows is None:
            return ranked.repeat(self.steps, 1)
        return torch.cat([ranked[:size] for size in self.sizes]) if self.sizes else ranked[:0]

    def lagged(self, packed: Tensor, lag: int) -> Tensor:
        """What each sample had `lag` steps before each row, zeros before its first step: (N, D)."""
        sizes = self.sizes[lag:]
        if not sizes:
            return torch.zeros_like(packed)
        if self.rows is None:
            return F.pad(packed[: sum(sizes)], (0, 0, self.batch * lag, 0))
        before = packed.new_zeros(sum(self.sizes[:lag]), packed.shape[1])
        return torch.cat(
            [before, *(step[:size] for step, size in zip(packed.split_with_sizes(self.sizes), sizes, strict=False))]
        )

    def previous(self, packed: Tensor) -> Tensor:
        """What each sample had one step before each row, for all rows but those of step 0: (N - sizes[0], D)."""
        if self.rows is None or not self.sizes:
            return packed[: max(0, self.height - self.batch)]
        return self.lagged(packed, 1)[self.sizes[0] :]


def packing_of(lengths: Tensor, steps: int) -> Packing:
    """Pack sequences by their lengths.

    Args:
        lengths: (B,) int64 real steps, at most `steps`.
        steps: T.
    """
    batch = lengths.shape[0]
    if lengths.device.type != "cpu":
        sample = torch.arange(batch, device=lengths.device)
        last = (lengths - 1).clamp(min=0) * batch + sample
        return Packing(batch, steps, (batch,) * steps, None, None, None, last, (lengths == 0)[:, None])
    known: list[int] = lengths.tolist()
    if steps and all(length == steps for length in known):
        return packing_of_all(batch, steps, lengths)
    order = sorted(range(batch), key=lambda sample: -known[sample])
    return _shrinking([known[sample] for sample in order], order, steps)


def packing_of_all(batch: int, steps: int, like: Tensor) -> Packing:
    """Pack sequences of which every step is real, on the device of `like`."""
    last = torch.arange((steps - 1) * batch, steps * batch, device=like.device)
    return Packing(batch, steps, (batch,) * steps, None, None, None, last, None)


def _shrinking(ranked: Sequence[int], order: Sequence[int], steps: int) -> Packing:
    """From lengths in order of rank, and rank -> sample."""
    batch = len(ranked)
    sizes: list[int] = []
    running = batch
    for step in range(ranked[0] if ranked else 0):
        while ranked[running - 1] <= step:
            running -= 1
        sizes.append(running)
    samples = torch.tensor(order, dtype=torch.int64)
    offsets = [0, *accumulate(sizes)]
    starts = samples * steps
    rows = torch.cat([starts[:size] + step for step, size in enumerate(sizes)]) if sizes else samples[:0]
    last = torch.tensor([offsets[length - 1] + rank if length else 0 for rank, length in enumerate(ranked)])
    ranks = torch.empty_like(samples)
    ranks[samples] = torch.arange(batch)
    empty = torch.tensor([length == 0 for length in ranked])[:, None] if ranked and ranked[-1] == 0 else None
    return Packing(batch, steps, tuple(sizes), samples, ranks, rows, last.to(torch.int64), empty)
