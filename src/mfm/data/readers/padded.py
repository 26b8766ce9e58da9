"""Sequences over padded arrays that may be views of a file larger than the memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfm.data.records import FloatArray, IntArray, Sequences
from mfm.data.spans import Spans, SplitSpans
from mfm.errors import DataFormatError

BLOCK_BYTES = 64 * 1024 * 1024
# A mapped page counts as this process' memory until it is given back; do that after reading so many bytes.
RELEASE_BYTES = 128 * 1024 * 1024


class _Place(NamedTuple):
    """Where in its file an array lies."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """The memory map that an array is a view of, if it is one."""
    root: Any = array
    while isinstance(root, np.ndarray):
        root = root.base
    if isinstance(root, memoryview):
        root = root.obj
    return root if isinstance(root, mmap.mmap) else None


class PaddedRows:
    """N samples of one padded modality as the file stores them.

    Handed to another process it travels as a place in the file, not as its numbers: data loader
    workers map the file again.

    Args:
        rows: (N, T, D) array, or N arrays (T, D) of one type.
        path: The file that `rows` are views of, if they are.
    """

    def __init__(self, rows: NDArray[Any] | Sequence[NDArray[Any]], path: str | Path | None = None) -> None:
        self._rows = rows
        self._path = None if path is None else str(Path(path).absolute())
        first = rows[0] if len(rows) else np.empty(np.shape(rows)[1:])
        self.shape: tuple[int, int, int] = (len(rows), *np.shape(first))
        self.dtype: np.dtype[Any] = rows.dtype if isinstance(rows, np.ndarray) else first.dtype
        self._read = 0

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Size in the file's data type."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def row(self, index: int, start: int, stop: int) -> FloatArray:
        """Steps `start` to `stop` of one sample: (stop - start, D) float32, a copy."""
        row = self._rows[index][start:stop]
        if row.dtype == np.float32:
            copy: FloatArray = row.copy()
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # a float64 beyond float32's range becomes infinite
                copy = row.astype(np.float32)
        self._count(row.nbytes)
        return copy

    def blocks(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Blocks of at most 64 MB (one sample at least): first sample, one after the last, (n, T, D) array."""
        size = max(1, BLOCK_BYTES // max(1, self.nbytes // max(1, len(self))))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            rows = self._rows[start:stop]
            block = rows if isinstance(rows, np.ndarray) else np.stack(list(rows))
            yield start, stop, block
            self._count(block.nbytes)

    def _count(self, size: int) -> None:
        self._read += size
        if self._read >= RELEASE_BYTES:
            self._read = 0
            mapping = mapping_of(self._rows[0])
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)  # they are read again from the file when needed

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_read": 0}
        whole = isinstance(self._rows, np.ndarray)
        mapping = mapping_of(self._rows[0]) if len(self) else None
        if self._path is None or mapping is None:
            return state
        arrays = [self._rows] if whole else list(self._rows)
        if any(mapping_of(array) is not mapping for array in arrays):  # type: ignore[arg-type]
            return state
        base = np.frombuffer(mapping, np.uint8).__array_interface__["data"][0]
        places = [
            _Place(array.__array_interface__["data"][0] - base, array.dtype.str, array.shape, array.strides)  # type: ignore[union-attr]
            for array in arrays
        ]
        return state | {"_rows": None, "places": places, "whole": whole, "size": len(mapping)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        places, whole, size = state.pop("places", None), state.pop("whole", True), state.pop("size", 0)
        self.__dict__.update(state)
        if places is None:
            return
        with Path(str(self._path)).open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(mapping) != size:
            raise DataFormatError(f"{self._path} has changed since it was opened; start again")
        arrays = [
            np.ndarray(place.shape, place.dtype, buffer=mapping, offset=place.offset, strides=place.strides)
            for place in places
        ]
        self._rows = arrays[0] if whole else arrays


class PaddedSequences(Sequences):
    """One modality of a file that pads its samples; lengths are found when first asked for.

    Args:
        rows: The padded samples.
        spans: Spans of the split that they belong to.
        name: Modality.
    """

    def __init__(self, rows: PaddedRows, spans: SplitSpans, name: str) -> None:
        self.rows = rows
        self.split_spans: SplitSpans | None = spans
        self.name = name
        self._found: Spans | None = None
        self.file_steps, self.dim = rows.shape[1:]
        self.dtype = rows.dtype

    @property
    def spans(self) -> Spans:
        """Starts and lengths together."""
        if self._found is None:
            assert self.split_spans is not None
            self._found = self.split_spans.spans(self.name)
        return self._found

    @property
    def lengths(self) -> IntArray:  # type: ignore[override]
        """(N,) real steps of each sample."""
        return self.spans.lengths

    @property
    def starts(self) -> IntArray:  # type: ignore[override]
        """(N,) position of the first real step."""
        return self.spans.starts

    def __len__(self) -> int:
        return len(self.rows)

    def steps(self, index: int) -> FloatArray:
        """Real steps of one sample; see `Sequences.steps`."""
        start, length = int(self.starts[index]), int(self.lengths[index])
        return self.rows.row(index, start, start + length)

    def original(self, index: int) -> FloatArray:
        """The sample as the file stores it; see `Sequences.original`."""
        return self.rows.row(index, 0, self.file_steps)

    def __getstate__(self) -> dict[str, Any]:
        # a worker needs the spans, not the other modalities that they were found in
        return self.__dict__ | {"_found": self.spans, "split_spans": None}
