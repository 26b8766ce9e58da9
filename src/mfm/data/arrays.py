"""Sequences held in memory: for own features, notebooks and tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from mfm.data.records import FloatArray, Sequences
from mfm.errors import DataFormatError


class ArraySequences(Sequences):
    """N sequences of one modality from a list of arrays.

    Args:
        samples: N arrays (L_i, D); L_i = 0 where the modality is absent.
        dim: D; needed only when `samples` is empty.
        starts: Position of the first real step of each sample in a padded layout; 0 by default.
        file_steps: Steps T of that layout; 0 when there is none.

    Raises:
        DataFormatError: An array is not 2-dimensional, or its D differs from the others'.

    >>> sequences = ArraySequences([np.ones((2, 3)), np.ones((0, 3))])
    >>> sequences.lengths.tolist(), sequences.dim
    ([2, 0], 3)
    """

    def __init__(
        self,
        samples: Iterable[ArrayLike],
        *,
        dim: int | None = None,
        starts: Sequence[int] | None = None,
        file_steps: int = 0,
    ) -> None:
        self._samples: list[FloatArray] = [np.asarray(sample, dtype=np.float32) for sample in samples]
        if dim is None and not self._samples:
            raise DataFormatError("no samples and no dim: give `dim` for an empty modality")
        self.dim = dim if dim is not None else self._samples[0].shape[-1]
        for index, sample in enumerate(self._samples):
            if sample.ndim != 2 or sample.shape[1] != self.dim:
                raise DataFormatError(f"sample {index} has shape {sample.shape}, expected (steps, {self.dim})")
        self.lengths = np.array([len(sample) for sample in self._samples], dtype=np.int64)
        self.starts = np.zeros(len(self.lengths), dtype=np.int64) if starts is None else np.asarray(starts, np.int64)
        self.file_steps = file_steps
        self.dtype = np.dtype(np.float32)
        if len(self.starts) != len(self.lengths):
            raise DataFormatError(f"{len(self.starts)} starts for {len(self.lengths)} samples")
        if file_steps and (self.starts + self.lengths > file_steps).any():
            raise DataFormatError(f"a sample does not fit into {file_steps} steps from its start")

    def steps(self, index: int) -> FloatArray:
        """Real steps of one sample; see `Sequences.steps`."""
        return self._samples[index]

    def original(self, index: int) -> FloatArray:
        """The sample in its padded layout; see `Sequences.original`."""
        out = np.zeros((self.file_steps, self.dim), dtype=np.float32)
        start = int(self.starts[index])
        out[start : start + int(self.lengths[index])] = self._samples[index]
        return out
