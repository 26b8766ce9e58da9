"""Reading a store lazily; see `mfm.data.store` for the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
from numpy.typing import NDArray

import mfm
from mfm.data.records import BoolArray, CorpusData, FloatArray, IntArray, Sequences, SplitData, TimedWords
from mfm.data.store_content import FORMAT, SCHEMA_VERSION, split_order
from mfm.errors import CorpusNotFoundError, DataFormatError, nearest


class StoreFile:
    """An h5py handle that is opened when first needed, once in every process.

    HDF5 handles neither survive a fork nor a pickle: a worker opens its own. If the file was replaced
    meanwhile, the recorded layout would be wrong, so the fingerprint is compared at each opening.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self._file: h5py.File | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "fingerprint": self.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def open(self) -> h5py.File:
        """Return this process' handle."""
        if self._file is None or self._pid != os.getpid():
            file = open_h5(self.path)
            if file.attrs.get("fingerprint") != self.fingerprint:
                file.close()
                raise DataFormatError(f"{self.path} was replaced by another store while in use; start again")
            self._file, self._pid = file, os.getpid()
        return self._file


def open_h5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, without locks (stores are never changed, network folders may refuse locks).

    Raises:
        CorpusNotFoundError: No such file.
        DataFormatError: Truncated, or not HDF5.
    """
    if not path.is_file():
        raise CorpusNotFoundError(f"no such file: {path}; `mfm data convert` writes a store")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise DataFormatError(
            f"{path} is not a readable HDF5 file ({_hdf5_fault(str(error))}); copy or convert it again"
        ) from error


def _hdf5_fault(text: str) -> str:
    if "truncated" in text:
        return "it is truncated"
    if "signature" in text:
        return "it has no HDF5 signature"
    return text.splitlines()[0]


class StoredSequences(Sequences):
    """Sequences of one modality that stay in the file until asked for; picklable and fork-safe."""

    def __init__(
        self,
        file: StoreFile,
        group: str,
        dim: int,
        offsets: IntArray,
        starts: IntArray,
        file_steps: int,
        dtype: np.dtype[np.generic],
        marks_observed: bool = False,
    ) -> None:
        self._file, self._group, self._offsets = file, group, offsets
        self.dim, self.starts, self.file_steps, self.dtype = dim, starts, file_steps, dtype
        self.lengths = np.diff(offsets)
        self.marks_observed = marks_observed
        self._values: h5py.Dataset | None = None
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_values": None, "_pid": -1}

    @property
    def total(self) -> int:
        """Real steps of all samples together."""
        return int(self._offsets[-1])

    def offset_fault(self) -> bool:
        """Whether the offsets do not span the stored values exactly."""
        stored = self._file.open()[f"{self._group}/values"].shape[0]
        return bool(self._offsets[0] != 0 or self._offsets[-1] != stored)

    def steps(self, index: int) -> FloatArray:
        """Real steps of one sample; see `Sequences.steps`."""
        return self.rows(int(self._offsets[index]), int(self._offsets[index + 1]))

    def rows(self, start: int, stop: int) -> FloatArray:
        """Rows of the concatenated real steps of all samples: (stop - start, dim) float32."""
        if self._values is None or self._pid != os.getpid():
            self._values, self._pid = self._file.open()[f"{self._group}/values"], os.getpid()
        read: FloatArray = _read_rows(self._file, self._values, start, stop)
        return read

    def observed(self, index: int) -> BoolArray:
        """Steps of one sample at which something was observed; see `Sequences.observed`."""
        return self.marks(int(self._offsets[index]), int(self._offsets[index + 1]))

    def marks(self, start: int, stop: int) -> BoolArray:
        """Which rows of the concatenated real steps of all samples were observed: (stop - start,)."""
        if not self.marks_observed:
            return np.ones(stop - start, dtype=np.bool_)
        marks: BoolArray = _read_rows(self._file, self._file.open()[f"{self._group}/observed"], start, stop)
        return marks

    def original(self, index: int) -> FloatArray:
        """The sample in the source's padded layout; see `Sequences.original`."""
        out = np.zeros((self.file_steps, self.dim), dtype=np.float32)
        start = int(self.starts[index])
        out[start : start + int(self.lengths[index])] = self.steps(index)
        return out


class StoredWords(TimedWords):
    """Words of one split that stay in the file until asked for."""

    def __init__(self, file: StoreFile, group: str, offsets: IntArray) -> None:
        self._file, self._group, self.offsets = file, group, offsets

    def rows(self, start: int, stop: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Words of all samples together; see `TimedWords.rows`."""
        group = self._file.open()[self._group]
        texts = _read_rows(self._file, group["texts"].asstr(), start, stop)
        return tuple(texts.tolist()), _read_rows(self._file, group["intervals"], start, stop)


def _read_rows(file: StoreFile, dataset: Any, start: int, stop: int) -> NDArray[Any]:
    try:
        return np.asarray(dataset[start:stop])
    except OSError as error:
        raise DataFormatError(
            f"{file.path}: its values cannot be read ({_hdf5_fault(str(error))}); "
            "check it with `mfm data verify` and convert it again"
        ) from error


def read_store(path: str | Path, modalities: Sequence[str] | None = None) -> CorpusData:
    """Open a store lazily: ids, labels and lengths are read now, values when asked for.

    Args:
        path: A file that `write_store` wrote.
        modalities: Modalities to read; all by default.

    Raises:
        CorpusNotFoundError: No such file.
        DataFormatError: Not a store, truncated, written by a newer version, or lacking a modality.
    """
    where = Path(path)
    with open_h5(where) as file:
        check_schema(file, where)
        try:
            shared = StoreFile(where.absolute(), str(file.attrs["fingerprint"]))
            splits = {
                unquote(name): read_split(shared, file["splits"][name], modalities)
                for name in split_order(list(file["splits"]))
            }
            return CorpusData(
                path=str(where),
                format="store",
                splits=splits,
                aligned=bool(file.attrs["aligned"]),
                notes=tuple(json.loads(file.attrs["notes"])),
            )
        except (KeyError, OSError, ValueError) as error:
            raise DataFormatError(f"{where} is a damaged store ({error}); convert the source again") from error


def check_schema(file: h5py.File, path: Path) -> None:
    """Refuse what is not a store of a known version."""
    if file.attrs.get("format") != FORMAT:
        raise DataFormatError(
            f"{path} is an HDF5 file but not a store of this project (no attribute format={FORMAT!r}); "
            "give a file written by `mfm data convert`"
        )
    version = int(file.attrs.get("schema_version", 0))
    if version != SCHEMA_VERSION:
        remedy = "install a newer mfm-lightning" if version > SCHEMA_VERSION else "convert the source again"
        raise DataFormatError(
            f"{path} has store version {version}, mfm-lightning {mfm.__version__} reads version {SCHEMA_VERSION}; "
            f"{remedy}"
        )


def store_fingerprint(path: str | Path) -> str:
    """Fingerprint that a store records of its content, without reading the content."""
    with open_h5(Path(path)) as file:
        check_schema(file, Path(path))
        return str(file.attrs["fingerprint"])


def store_provenance(path: str | Path) -> dict[str, str | None]:
    """Where a store's content came from: source name, format and fingerprint, package version, date."""
    with open_h5(Path(path)) as file:
        check_schema(file, Path(path))
        return dict(json.loads(file.attrs["provenance"]))


def read_split(shared: StoreFile, group: h5py.Group, modalities: Sequence[str] | None = None) -> SplitData:
    """Open one split of a store lazily; see `read_store`."""
    there = {unquote(name): name for name in group["sequences"]}
    wanted = sorted(there) if modalities is None else list(modalities)
    for name in wanted:
        if name not in there:
            raise DataFormatError(
                f"{shared.path} has no modality {name!r} in split {unquote(Path(group.name).name)!r}: "
                f"{nearest(name, there)}"
            )
    return SplitData(
        ids=tuple(group["ids"].asstr()[:].tolist()),
        sequences={name: _read_sequences(shared, group["sequences"][there[name]]) for name in wanted},
        labels={unquote(name): values[:] for name, values in group["labels"].items()},
        raw_text=tuple(group["raw_text"].asstr()[:].tolist()) if "raw_text" in group else None,
        has_ids=bool(group.attrs["has_ids"]),
        words=StoredWords(shared, f"{group.name}/words", group["words/offsets"][:]) if "words" in group else None,
    )


def _read_sequences(shared: StoreFile, group: h5py.Group) -> StoredSequences:
    return StoredSequences(
        shared,
        str(group.name),
        int(group["values"].shape[1]),
        group["offsets"][:],
        group["starts"][:],
        int(group.attrs["file_steps"]),
        np.dtype(str(group.attrs["dtype"])),
        "observed" in group,
    )
