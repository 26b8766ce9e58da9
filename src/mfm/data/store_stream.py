"""Writing a store sample by sample, for sources that do not fit into memory; see `mfm.data.store`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mfm.data.records import BoolArray, FloatArray
from mfm.data.store_content import ContentHash, encode_name, split_order
from mfm.data.store_read import StoredSequences, StoreFile, read_split
from mfm.data.store_verify import hash_values
from mfm.data.store_write import GuardedFile, chunk_layout, write_attributes
from mfm.errors import ConfigurationError
from mfm.files import whole_file

_LABELS = "labels"
_BUFFER_BYTES = 1024 * 1024  # of each modality


@dataclass(frozen=True)
class WordSample:
    """A sample whose steps are words, or frames beside its words.

    Attributes:
        id: Its name.
        words: L words, by start.
        intervals: (L, 2) float64, their start and end in seconds of the video.
        labels: (K,) float64.
        steps: Modality -> (L, D) float32, or (0, D) where it is absent; unaligned: of any length.
        observed: Modality -> (steps,), whether there is an observation at a step; the others are zero vectors.
    """

    id: str
    words: tuple[str, ...]
    intervals: NDArray[np.float64]
    labels: NDArray[np.float64]
    steps: Mapping[str, FloatArray]
    observed: Mapping[str, BoolArray]

    @property
    def transcript(self) -> str:
        """The words with a blank between them; one without blanks of its own for each step."""
        return " ".join("_".join(word.split()) or "_" for word in self.words)


class StoreStream:
    """A store that is being written; samples of one split may come in between those of another.

    Args:
        file: Opened for writing.
        guarded: What it writes to.
        dims: Modality -> D.
        dtypes: Modality -> type in the source, for the record.
        label_columns: Label array -> its columns of the samples' labels; one array `labels` by default.
        aligned: Whether step t of every modality is word t.
    """

    def __init__(
        self,
        file: h5py.File,
        guarded: GuardedFile,
        dims: Mapping[str, int],
        dtypes: Mapping[str, str],
        label_columns: Mapping[str, Sequence[int]] | None = None,
        aligned: bool = True,
    ) -> None:
        self._aligned = aligned
        self._file, self._guarded, self._dims, self._dtypes = file, guarded, dims, dtypes
        self._label_columns = label_columns
        self._splits: dict[str, _SplitStream] = {}

    @property
    def samples(self) -> dict[str, int]:
        """Split -> samples so far."""
        return {name: len(self._splits[name].ids) for name in split_order(self._splits)}

    def append(self, split: str, sample: WordSample) -> None:
        """Add a sample.

        Raises:
            MFMError: The disk is full or cannot be written to.
        """
        if split not in self._splits:
            group = self._file.create_group(f"splits/{encode_name(split)}")
            self._splits[split] = _SplitStream(group, self._dims, self._dtypes, self._label_columns)
        self._splits[split].append(sample)
        self._guarded.check()

    def finish(self, notes: Sequence[str], provenance: Mapping[str, str | None]) -> str:
        """Write the rest, and the fingerprint of what was written, which is read once more for it.

        Args:
            notes: What a user may want to know.
            provenance: `source`, `source_format`, `source_fingerprint`.

        Returns:
            The fingerprint.
        """
        for split in self._splits.values():
            split.finish()
        self._file.flush()
        self._guarded.check()
        content = ContentHash(self._aligned)
        written = _OpenStore(self._file)
        for name in split_order(self._splits):
            data = read_split(written, self._file["splits"][encode_name(name)])
            content.split(name, data)
            for modality in sorted(data.sequences):
                sequences = data.sequences[modality]
                assert isinstance(sequences, StoredSequences)
                content.sequences(modality, sequences)
                hash_values(content, sequences)
        write_attributes(self._file, self._aligned, notes, provenance, content.hexdigest())
        return content.hexdigest()


@contextmanager
def stream_store(
    path: str | Path,
    dims: Mapping[str, int],
    dtypes: Mapping[str, str],
    *,
    label_columns: Mapping[str, Sequence[int]] | None = None,
    aligned: bool = True,
    overwrite: bool = False,
) -> Iterator[StoreStream]:
    """Open a store for writing sample by sample; call `finish` at the end.

    The file is written under a temporary name beside `path`, synced and renamed; whatever goes wrong, interruption
    included, nothing half-written stays.

    Args:
        path: File to write.
        dims: Modality -> D.
        dtypes: Modality -> type in the source, for the record.
        label_columns: Label array -> its columns of the samples' labels; one array `labels` by default.
        aligned: Whether step t of every modality is word t.
        overwrite: Replace an existing file.

    Raises:
        ConfigurationError: `path` exists and `overwrite` is False.
        MFMError: The disk is full or cannot be written to.
    """
    target = Path(path)
    if target.exists() and (target.is_dir() or not overwrite):
        raise ConfigurationError(f"{target} exists already; choose another name or allow overwriting")
    with whole_file(target) as temporary, temporary.open("wb+") as raw:
        guarded = GuardedFile(raw)
        with h5py.File(guarded, "w", rdcc_nbytes=0) as file:  # whole chunks are written: caches would only grow
            yield StoreStream(file, guarded, dims, dtypes, label_columns, aligned)
        guarded.check()


class _OpenStore(StoreFile):
    """The store that is being written, for reading it back."""

    def __init__(self, file: h5py.File) -> None:
        super().__init__(Path("the new store"), "")
        self._open = file

    def open(self) -> h5py.File:
        return self._open


class _Rows:
    """A dataset that grows; rows are written many at once."""

    def __init__(self, dataset: h5py.Dataset, at_once: int) -> None:
        self._dataset, self._at_once = dataset, at_once
        self._waiting: list[NDArray[Any]] = []
        self._count = 0

    def append(self, rows: NDArray[Any]) -> None:
        self._waiting.append(rows)
        self._count += len(rows)
        if self._count >= self._at_once:
            self._write(self._count - self._count % self._at_once)  # whole chunks: none is compressed twice

    def finish(self) -> None:
        self._write(self._count)

    def _write(self, count: int) -> None:
        if not count:
            return
        rows = np.concatenate(self._waiting)
        there = len(self._dataset)
        self._dataset.resize(there + count, axis=0)
        self._dataset[there:] = rows[:count]
        self._waiting, self._count = [rows[count:].copy()], self._count - count


class _SplitStream:
    """One split that is being written."""

    def __init__(
        self,
        group: h5py.Group,
        dims: Mapping[str, int],
        dtypes: Mapping[str, str],
        label_columns: Mapping[str, Sequence[int]] | None,
    ) -> None:
        self._group, self._dims, self._label_columns = group, dims, label_columns
        self.ids: list[str] = []
        self._transcripts: list[str] = []
        self._labels: list[NDArray[np.float64]] = []
        self._counts: list[int] = []
        self._lengths: dict[str, list[int]] = {name: [] for name in dims}
        string = h5py.string_dtype()
        words = group.create_group("words")
        self._words = _Rows(words.create_dataset("texts", (0,), string, maxshape=(None,), chunks=(4096,)), 4096)
        self._times = _Rows(
            words.create_dataset("intervals", (0, 2), np.float64, maxshape=(None, 2), chunks=(4096, 2)), 4096
        )
        self._values: dict[str, _Rows] = {}
        self._observed: dict[str, _Rows] = {}
        for name, dim in dims.items():
            part = group.create_group(f"sequences/{encode_name(name)}")
            part.attrs["file_steps"] = 0
            part.attrs["dtype"] = dtypes[name]
            layout = chunk_layout(dim)
            chunk = layout["chunks"][0]
            values = part.create_dataset("values", (0, dim), np.float32, maxshape=(None, dim), **layout)
            self._values[name] = _Rows(values, chunk * max(1, _BUFFER_BYTES // (4 * dim * chunk)))
            observed = part.create_dataset(
                "observed", (0,), np.bool_, maxshape=(None,), chunks=(4096,), compression="lzf"
            )
            self._observed[name] = _Rows(observed, 4096)

    def append(self, sample: WordSample) -> None:
        self.ids.append(sample.id)
        self._transcripts.append(sample.transcript)
        self._labels.append(sample.labels)
        self._counts.append(len(sample.words))
        self._words.append(np.array(sample.words, dtype=object))
        self._times.append(sample.intervals)
        for name, steps in sample.steps.items():
            self._lengths[name].append(len(steps))
            self._values[name].append(steps)
            self._observed[name].append(sample.observed[name])

    def finish(self) -> None:
        group, string = self._group, h5py.string_dtype()
        group.attrs["has_ids"] = True
        group.create_dataset("ids", data=self.ids, dtype=string)
        group.create_dataset("raw_text", data=self._transcripts, dtype=string)
        labels = np.stack(self._labels)
        for name, columns in (self._label_columns or {_LABELS: range(labels.shape[1])}).items():
            group.create_dataset(f"labels/{encode_name(name)}", data=labels[:, list(columns)])
        group.create_dataset("words/offsets", data=_offsets(self._counts))
        for rows in (self._words, self._times, *self._values.values(), *self._observed.values()):
            rows.finish()
        for name, lengths in self._lengths.items():
            part = group[f"sequences/{encode_name(name)}"]
            part.create_dataset("offsets", data=_offsets(lengths))
            part.create_dataset("starts", data=np.zeros(len(lengths), dtype=np.int64))


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
