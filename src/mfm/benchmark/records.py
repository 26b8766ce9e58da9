"""`results.jsonl`: one line a run, appended whole, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mfm.errors import ConfigurationError, DataFormatError, MFMError
from mfm.files import plain_values

RESULTS = "results.jsonl"
Record = dict[str, Any]


def read_records(path: str | Path) -> list[Record]:
    """Every line of a file of results, in order.

    A last line without line break is what a killed process was writing; it is left out.

    Args:
        path: The file, or the folder that holds `results.jsonl`.

    Raises:
        DataFormatError: No such file, or a line that is no record.
    """
    file = Path(path) / RESULTS if Path(path).is_dir() else Path(path)
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise DataFormatError(
            f"{file} cannot be read ({error.strerror}); `mfm benchmark run SUITE --output DIR` writes it"
        ) from error
    records = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not {"corpus", "model", "seed", "status"} <= record.keys():
            raise DataFormatError(f"{file}: line {number} is no record of a run; remove it")
        records.append(record)
    return records


def newest(records: Sequence[Record]) -> dict[tuple[str, str, int], Record]:
    """(corpus, model, seed) -> its last record, in order of first appearance."""
    found: dict[tuple[str, str, int], Record] = {}
    for record in records:
        found[(record["corpus"], record["model"], record["seed"])] = record
    return found


class ResultsFile:
    """Appends records; opening it drops a torn last line.

    Args:
        folder: The suite's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.is_file():
            content = self._path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                os.truncate(self._path, whole)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line with one system call, and flush it to the disk.

        Raises:
            MFMError: The system refused.
        """
        line = json.dumps(plain_values(dict(record)), allow_nan=False, sort_keys=True) + "\n"
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                content = line.encode()
                if os.write(handle, content) < len(content):
                    raise MFMError(f"cannot write {self._path}: the disk is full; make room and run the suite again")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise MFMError(f"cannot write {self._path}: {error.strerror}; run the suite again afterwards") from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a suite's folder for one `mfm benchmark run`; the system lets go of it however the process ends.

    Raises:
        ConfigurationError: Another one holds it, or the folder cannot be made.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / ".locks" / "suite", wait=False))
        except BlockingIOError as error:
            raise ConfigurationError(
                f"--output {folder} is in use by another mfm benchmark run; wait for it, or choose another folder"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"--output {folder} cannot be written ({error.strerror}); choose another folder"
            ) from error
        yield


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock that is a file; the system lets go of it when the process ends.

    Raises:
        BlockingIOError: It is held elsewhere, and `wait` is off.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
