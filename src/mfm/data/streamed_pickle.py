"""Pickles larger than the memory: numpy arrays whose bytes are made while they are written."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mfm.files import write_pieces

_RECONSTRUCT = np.zeros(0).__reduce__()[0]


class StreamedArray:
    """Pickles as an ordinary numpy array whose blocks are asked for when they are written.

    Args:
        shape: Shape of the whole array.
        dtype: Type of its numbers.
        blocks: Gives its blocks along the first axis, in order; called once for each writing.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, blocks: Callable[[], Iterable[NDArray[Any]]]) -> None:
        self.shape, self.dtype, self._blocks = shape, np.dtype(dtype), blocks

    def __reduce__(self) -> tuple[Any, ...]:
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        state = (1, self.shape, self.dtype, False, _StreamedBytes(size, self._chunks()))
        return _RECONSTRUCT, (np.ndarray, (0,), b"b"), state

    def _chunks(self) -> Iterator[memoryview]:
        for block in self._blocks():
            yield np.ascontiguousarray(block, dtype=self.dtype).data.cast("B")


class _StreamedBytes:
    """Bytes of a known size that are not there yet."""

    def __init__(self, size: int, chunks: Iterable[memoryview]) -> None:
        self.size, self.chunks = size, chunks


class StreamingPickler(pickle._Pickler):
    """The standard library's pickler (protocol 4) that can write a `StreamedArray`."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(pickle._Pickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, protocol=4)
        self._raw = file

    def _save_streamed(self, obj: _StreamedBytes) -> None:
        # outside of a frame, as the standard library writes large bytes itself
        self._write_large_bytes(pickle.BINBYTES8 + struct.pack("<Q", obj.size), b"")  # type: ignore[attr-defined]
        written = 0
        for chunk in obj.chunks:
            written += write_pieces(self._raw, chunk)
        if written != obj.size:
            raise RuntimeError(f"{written} bytes were generated where {obj.size} were announced")

    dispatch[_StreamedBytes] = _save_streamed
