"""What kind of file is this, and who reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import h5py

from mfm.data.readers.mfn import is_mfn_folder, read_mfn
from mfm.data.readers.mmsa import is_mmsa, read_mmsa
from mfm.data.readers.mult import read_mult
from mfm.data.records import CorpusData
from mfm.data.unpickle import read_pickle
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_READ_BYTES = 8 * 1024 * 1024  # hashed at once: few turns at the interpreter for a thread beside another


def read_corpus(path: str | Path, modalities: Sequence[str] | None = None) -> CorpusData:
    """Read a published file, folder or store, whatever its format.

    Nothing of a pickle is executed, and large arrays stay in the file until samples are asked for.

    Args:
        path: MMSA, MulT or MultiBench pickle, MFN folder, or store written by `mfm data convert`. The content
            decides, not the name.
        modalities: Modalities to use; all that every split has by default.

    Returns:
        The splits that the file has, which may be fewer than three.

    Raises:
        CorpusNotFoundError: Nothing is there.
        DataFormatError: It is none of these, damaged, or lacks a modality asked for.
        ConfigurationError: `modalities` is empty or names one twice.
    """
    path = Path(path)
    if modalities is not None and (not modalities or len(set(modalities)) < len(modalities)):
        raise ConfigurationError(f"modalities is {list(modalities)}; name at least one, and each once")
    if not path.exists():
        raise CorpusNotFoundError(f"{path} does not exist; check the path")
    if path.is_dir():
        return read_mfn(path, modalities)
    if _starts_with_hdf5(path):
        _check_store(path)
        from mfm.data.store import read_store

        return read_store(path, modalities)
    tree = read_pickle(path)
    splits = [split for split in tree.values() if isinstance(split, dict)] if isinstance(tree, dict) else []
    if any(is_mmsa(split) for split in splits):
        return read_mmsa(tree, path, modalities)
    return read_mult(tree, path, modalities)


def fingerprint(path: str | Path, progress: Callable[[int, int], None] | None = None) -> str:
    """Identify the content of a file, folder or store.

    Args:
        path: What `read_corpus` reads.
        progress: Called with (bytes done, total) while hashing.

    Returns:
        For a store the fingerprint that it records; for a file its SHA-256; for a folder the SHA-256 over the
        sorted names and SHA-256 of its .h5 files.

    Raises:
        CorpusNotFoundError: Nothing is there.
        DataFormatError: It cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise CorpusNotFoundError(f"{path} does not exist; check the path")
    if path.is_dir():
        if not is_mfn_folder(path):
            raise DataFormatError(f"{path} is not a folder of MFN files; give a file or such a folder")
        files = sorted(file for file in path.iterdir() if file.suffix in (".h5", ".hdf5"))
        total = hashlib.sha256()
        for file in files:
            total.update(f"{file.name}\0{_sha256(file, None)}\n".encode())
        return total.hexdigest()
    if _starts_with_hdf5(path):
        _check_store(path)
        from mfm.data.store import store_fingerprint

        return store_fingerprint(path)
    return _sha256(path, progress)


@contextmanager
def fingerprint_meanwhile(path: str | Path) -> Iterator[Callable[[], str]]:
    """Find the `fingerprint` in a thread while the block reads the same file; hashing leaves the interpreter free.

    Args:
        path: What `read_corpus` reads.

    Yields:
        Waits for the fingerprint and returns it, or raises what `fingerprint` raises. Nobody hashes any longer once
        the block is left.
    """
    left = Event()

    def go_on(done: int, total: int) -> None:
        if left.is_set():
            raise CancelledError

    with ThreadPoolExecutor(1, "fingerprint") as pool:
        found = pool.submit(fingerprint, path, go_on)
        try:
            yield found.result
        finally:
            left.set()


def _sha256(path: Path, progress: Callable[[int, int], None] | None) -> str:
    digest = hashlib.sha256()
    total, done = path.stat().st_size, 0
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            done += size
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()


def _starts_with_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_HDF5)) == _HDF5
    except OSError as error:
        raise DataFormatError(f"{path} cannot be read: {error.strerror or error}") from None


def _check_store(path: Path) -> None:
    """Say what an HDF5 file is that is not a store."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if "format" in file.attrs:
                return  # a store, or something that the store's reader explains
            groups = list(file)
            datasets = [name for name in groups if isinstance(file[name], h5py.Dataset)]
            sequence = len(groups) == 1 and not datasets and {"data", "metadata"} <= set(file[groups[0]])
    except OSError as error:
        raise DataFormatError(f"{path} is a damaged HDF5 file ({error}); download or convert it again") from None
    if datasets in (["d1"], ["data"]):
        raise DataFormatError(f"{path} is one array of an MFN folder; give the folder {path.parent} instead")
    if sequence:
        raise DataFormatError(
            f"{path} is a computational sequence of the CMU-Multimodal-SDK, not a file of samples; make those with "
            "`mfm data align`"
        )
    raise DataFormatError(f"{path} is an HDF5 file but not a store that mfm wrote; convert the published file again")
