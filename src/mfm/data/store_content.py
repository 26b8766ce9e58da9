"""What a store holds: its format's constants and the fingerprint of its content."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import numpy as np

from mfm.data.records import SPLITS, BoolArray, FloatArray, Sequences, SplitData, TimedWords

FORMAT = "mfm-store"
SCHEMA_VERSION = 1
_WORDS_AT_ONCE = 65536  # part of the fingerprint of words


def split_order(names: Iterable[str]) -> list[str]:
    """Sort split names: train, valid, test first, others after them by name."""
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def encode_name(name: str) -> str:
    """Make a name usable in HDF5, where the slash separates."""
    return quote(name, safe=" $()[]+,;=@&!'")


class ContentHash:
    """SHA-256 over what a corpus holds, in one canonical order.

    Independent of compression, chunking, date, package version and the source's data type and path: two
    stores of the same content have the same fingerprint.
    """

    def __init__(self, aligned: bool) -> None:
        self._hash = hashlib.sha256(b"mfm-content-1")
        self.item("aligned", bytes([aligned]))

    def item(self, name: str, payload: bytes | memoryview) -> None:
        """Add one named value, with its size, so that no two contents run together."""
        encoded = name.encode()
        self._hash.update(struct.pack("<QQ", len(encoded), len(payload)))
        self._hash.update(encoded)
        self._hash.update(payload)

    def array(self, name: str, values: np.ndarray[Any, Any], dtype: str) -> None:
        """Add an array with its shape."""
        self.item(f"{name}:{values.shape}", np.ascontiguousarray(values, dtype=dtype).tobytes())

    def split(self, name: str, split: SplitData) -> None:
        """Add everything of a split but its sequences."""
        self.item("split", name.encode())
        self.item("ids", "\0".join(split.ids).encode())
        self.item("has_ids", bytes([split.has_ids]))
        if split.raw_text is not None:
            self.item("raw_text", "\0".join(split.raw_text).encode())
        for label in sorted(split.labels):
            self.array(f"label {label}", split.labels[label], "<f8")
        if split.words is not None:
            self._words(split.words)

    def _words(self, words: TimedWords) -> None:
        self.array("word offsets", words.offsets, "<i8")
        for start in range(0, int(words.offsets[-1]), _WORDS_AT_ONCE):
            texts, times = words.rows(start, min(start + _WORDS_AT_ONCE, int(words.offsets[-1])))
            self.item("words", "\0".join(texts).encode())
            self.array("word times", times, "<f8")

    def sequences(self, name: str, sequences: Sequences) -> None:
        """Add the layout of one modality; its values follow through `values`."""
        self.item(f"modality {name}", struct.pack("<qqq", sequences.dim, sequences.file_steps, len(sequences)))
        self.array("lengths", sequences.lengths, "<i8")
        self.array("starts", sequences.starts, "<i8")

    def values(self, block: FloatArray) -> None:
        """Add the next real steps of the modality, in blocks of any size."""
        self._hash.update(np.ascontiguousarray(block, dtype="<f4").data.cast("B"))

    def observed(self, block: BoolArray) -> None:
        """Add the marks of the next real steps, in blocks of any size, after all values of the modality."""
        self._hash.update(np.ascontiguousarray(block, dtype="u1").data)

    def hexdigest(self) -> str:
        """Return the fingerprint of what was added."""
        return self._hash.hexdigest()
