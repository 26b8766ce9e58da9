"""Writing a store; see `mfm.data.store` for the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

import mfm
from mfm.data.records import CorpusData, FloatArray, IntArray, Sequences, SplitData, TimedWords
from mfm.data.store_content import FORMAT, SCHEMA_VERSION, ContentHash, encode_name, split_order
from mfm.errors import ConfigurationError, DataFormatError
from mfm.files import whole_file, write_pieces

_CHUNK_BYTES = 32 * 1024  # random samples read 2.6 times as fast as with 128 KB, for 1 % more space
_BLOCK_BYTES = 8 * 1024 * 1024  # written at once
_TRIAL_CHUNKS = 16  # compressed to see whether it is worth it
_WORTHWHILE = 0.85  # of its size, compressed: above it, values are stored as they are
_WORDS_AT_ONCE = 65536

Progress = Callable[[int, int], None]


def write_store(
    data: CorpusData,
    path: str | Path,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    source_fingerprint: str | Callable[[], str] | None = None,
) -> None:
    """Write a corpus to a store, one block of steps at a time.

    The file is written under a temporary name beside `path`, synced and renamed; whatever goes wrong,
    interruption included, nothing half-written stays.

    Args:
        data: What a reader handed over; read sample by sample, so that a 4 GB source needs little memory.
        path: File to write, by convention `*.h5`.
        progress: Called with (samples x modalities done, total) now and then.
        overwrite: Replace an existing file.
        source_fingerprint: Fingerprint of the source, recorded in the provenance; or gives it, asked at the end.

    Raises:
        ConfigurationError: `path` exists and `overwrite` is False, or its folder does not exist.
        MFMError: The disk is full or cannot be written to.
    """
    target = Path(path)
    if target.exists() and (target.is_dir() or not overwrite):
        raise ConfigurationError(f"{target} exists already; choose another name or allow overwriting")
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {target.parent} does not exist; create it first")
    with whole_file(target) as temporary, temporary.open("wb+") as raw:
        guarded = GuardedFile(raw)
        with h5py.File(guarded, "w") as file:
            _write_content(file, data, guarded, progress or (lambda done, total: None), source_fingerprint)
        guarded.check()


class GuardedFile:
    """A file whose failures HDF5 never sees.

    HDF5 cannot close a file whose last blocks it failed to write: it keeps it open and crashes at exit. So
    the first failure is kept for `check`, and everything after it is swallowed: the file is thrown away anyway.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:  # of the system, or Ctrl-C that arrived within HDF5
            raise self._failure

    def write(self, data: bytes | memoryview) -> int:
        """Write, or note that it failed."""
        if self._failure is None:
            try:
                return write_pieces(self._raw, data)
            except BaseException as failure:
                self._failure = failure
        return memoryview(data).nbytes

    def truncate(self, size: int) -> int:
        """Set the size, or note that it failed."""
        if self._failure is None:
            try:
                return self._raw.truncate(size)
            except BaseException as failure:
                self._failure = failure
        return size

    def flush(self) -> None:
        """Flush, or note that it failed."""
        if self._failure is None:
            try:
                self._raw.flush()
            except BaseException as failure:
                self._failure = failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek in the file."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Position in the file."""
        return self._raw.tell()

    def read(self, size: int = -1) -> bytes:
        """Read from the file."""
        return self._raw.read(size)

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        return int(self._raw.readinto(buffer))  # type: ignore[attr-defined]


def _write_content(
    file: h5py.File,
    data: CorpusData,
    guarded: GuardedFile,
    progress: Progress,
    source_fingerprint: str | Callable[[], str] | None,
) -> None:
    splits = split_order(data.splits)
    total = sum(len(data.splits[name]) * len(data.splits[name].sequences) for name in splits)
    done = 0
    content = ContentHash(data.aligned)
    for name in splits:
        split = data.splits[name]
        group = file.create_group(f"splits/{encode_name(name)}")
        write_split(group, split)
        content.split(name, split)
        for modality in sorted(split.sequences):
            sequences = split.sequences[modality]
            content.sequences(modality, sequences)
            for samples in _write_sequences(
                group.create_group(f"sequences/{encode_name(modality)}"), sequences, content
            ):
                guarded.check()
                done += samples
                progress(done, total)
    provenance = {
        "source": Path(data.path).name,
        "source_format": data.format,
        "source_fingerprint": source_fingerprint() if callable(source_fingerprint) else source_fingerprint,
    }
    write_attributes(file, data.aligned, data.notes, provenance, content.hexdigest())


def write_attributes(
    file: h5py.File, aligned: bool, notes: Sequence[str], provenance: Mapping[str, str | None], fingerprint: str
) -> None:
    """Write what makes a file a store; the package version and the date are added to the provenance."""
    written = datetime.now(UTC).isoformat(timespec="seconds")
    file.attrs["format"] = FORMAT
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["aligned"] = aligned
    file.attrs["notes"] = json.dumps(list(notes))
    file.attrs["provenance"] = json.dumps({**provenance, "mfm_version": mfm.__version__, "written": written})
    file.attrs["fingerprint"] = fingerprint


def write_split(group: h5py.Group, split: SplitData) -> None:
    """Write everything of a split but its sequences."""
    group.attrs["has_ids"] = split.has_ids
    group.create_dataset("ids", data=list(split.ids), dtype=h5py.string_dtype(), shape=(len(split),))
    if split.raw_text is not None:
        group.create_dataset("raw_text", data=list(split.raw_text), dtype=h5py.string_dtype(), shape=(len(split),))
    labels = group.create_group("labels")
    for name, values in split.labels.items():
        labels.create_dataset(encode_name(name), data=np.asarray(values, dtype=np.float64))
    if split.words is not None:
        _write_words(group.create_group("words"), split.words)


def _write_words(group: h5py.Group, words: TimedWords) -> None:
    total = int(words.offsets[-1])
    group.create_dataset("offsets", data=words.offsets)
    texts = group.create_dataset("texts", shape=(total,), dtype=h5py.string_dtype())
    intervals = group.create_dataset("intervals", shape=(total, 2), dtype=np.float64)
    for start in range(0, total, _WORDS_AT_ONCE):
        stop = min(start + _WORDS_AT_ONCE, total)
        block, intervals[start:stop] = words.rows(start, stop)
        texts[start:stop] = list(block)


def chunk_layout(dim: int, rows: int | None = None) -> dict[str, Any]:
    """How the values of a modality are stored: small compressed chunks of whole rows, no longer than the data."""
    chunk = max(1, _CHUNK_BYTES // (4 * dim))
    return {"chunks": (min(chunk, rows or chunk), dim), "compression": "lzf", "shuffle": True}


def _values_layout(sequences: Sequences, offsets: IntArray) -> dict[str, Any]:
    """How all values of a modality are stored: compressed where that is worth its time, or else as they are.

    Dense features (BERT's, COVAREP's) shrink by 6 to 11 %, which takes ten times as long as writing them; features that
    repeat or hold zeros shrink to a half or less. A few chunks from all over the modality tell.
    """
    rows, dim = int(offsets[-1]), int(sequences.dim)
    if not rows or not dim:
        return {}
    layout = chunk_layout(dim, rows)
    chunk = layout["chunks"][0]
    if rows <= _TRIAL_CHUNKS * chunk:
        return layout
    starts = np.linspace(0, rows - chunk, _TRIAL_CHUNKS).astype(np.int64)
    trial = np.concatenate([_stored_rows(sequences, offsets, start, start + chunk) for start in starts.tolist()])
    with h5py.File("trial", "w", driver="core", backing_store=False) as memory:
        size = memory.create_dataset("values", data=trial, **layout).id.get_storage_size()
    return layout if size <= _WORTHWHILE * trial.nbytes else {}


def _stored_rows(sequences: Sequences, offsets: IntArray, start: int, stop: int) -> FloatArray:
    """Rows `start` to `stop` of the real steps of all samples, one sample after the other."""
    first = int(np.searchsorted(offsets, start, side="right")) - 1
    last = int(np.searchsorted(offsets, stop, side="left"))
    lengths = np.diff(offsets[first : last + 1]).tolist()
    rows = np.concatenate([_steps(sequences, index, length) for index, length in enumerate(lengths, start=first)])
    return rows[start - offsets[first] : stop - offsets[first]]


def _steps(sequences: Sequences, index: int, length: int) -> FloatArray:
    steps = sequences.steps(index)
    if steps.shape != (length, sequences.dim):
        raise DataFormatError(
            f"sample {index} has shape {steps.shape}, expected ({length}, {sequences.dim}); "
            "the reader's lengths and values disagree"
        )
    return steps


def _blocks(sequences: Sequences, rows: int) -> Iterator[tuple[int, FloatArray]]:
    """All real steps in blocks of `rows`, each with the samples that it completes; one buffer is filled ever anew."""
    buffer = np.empty((rows, sequences.dim), dtype=np.float32)
    filled, done = 0, 0
    for index, length in enumerate(sequences.lengths.tolist()):
        steps = _steps(sequences, index, length)
        while len(steps):
            part = steps[: rows - filled]
            buffer[filled : filled + len(part)] = part
            filled, steps = filled + len(part), steps[len(part) :]
            if filled == rows:
                yield index - done, buffer
                filled, done = 0, index
    yield len(sequences) - done, buffer[:filled]


def _write_sequences(group: h5py.Group, sequences: Sequences, content: ContentHash) -> Iterator[int]:
    """Write one modality; yields the number of samples done since the last yield."""
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum(sequences.lengths, out=offsets[1:])
    group.attrs["file_steps"] = int(sequences.file_steps)
    group.attrs["dtype"] = str(np.dtype(sequences.dtype))
    group.create_dataset("offsets", data=offsets)
    group.create_dataset("starts", data=np.asarray(sequences.starts, dtype=np.int64))
    dim = int(sequences.dim)
    layout = _values_layout(sequences, offsets)
    chunk = layout["chunks"][0] if layout else 1
    values = group.create_dataset("values", shape=(int(offsets[-1]), dim), dtype=np.float32, **layout)
    # blocks are whole chunks, so that none is compressed twice
    rows = chunk * max(1, _BLOCK_BYTES // (4 * max(dim, 1) * chunk))
    written = 0
    with ThreadPoolExecutor(1, "hashing") as hashing:  # a block is hashed while it is written
        for samples, block in _blocks(sequences, rows):
            if block.size:
                hashed = hashing.submit(content.values, block)
                values[written : written + len(block)] = block
                hashed.result()
                written += len(block)
            yield samples
    if sequences.marks_observed:
        marks = [sequences.observed(index) for index in range(len(sequences))]  # one byte a step
        observed = np.concatenate([np.zeros(0, dtype=np.bool_), *marks])
        group.create_dataset("observed", data=observed, dtype=np.bool_)
        content.observed(observed)
