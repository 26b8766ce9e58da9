"""One run in a process of its own: what it does to memory, random states or itself touches no other run.

The process is forked from a server that has imported what the run needs (`multiprocessing`'s `forkserver`), or, where
processes may have no children (dask's workers), started anew.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

from mfm.benchmark.records import Record, locked
from mfm.errors import MFMError
from mfm.files import write_json

RECORD = "record.json"
LOG = "log.txt"


@dataclass(frozen=True)
class Task:
    """What a process needs to know, as plain values.

    Attributes:
        function: `module:function`, which takes the task and returns what it found out, for the record.
        folder: Folder of the run; what is in it is removed first.
        lock: File that two processes of the same run never hold at once.
        arguments: Arguments of `mfm fit`, but for `--run_dir`.
        about: Values of the record that are known beforehand.
        predictions: Folder for the predictions of the test split.
        threads: Threads of torch.
        keep: Checkpoints to keep: `best`, `all` or `none`.
        kill_after: Seconds after which the process is killed; None is never.
    """

    function: str
    folder: str
    lock: str
    arguments: tuple[str, ...]
    about: Record
    predictions: str
    threads: int = 1
    keep: str = "best"
    kill_after: float | None = None


class _Running(Protocol):
    def join(self, timeout: float | None) -> bool:
        """Wait; whether it ended."""

    def exit_status(self) -> int:
        """Its exit status, or minus the signal that ended it."""

    def kill(self) -> None:
        """End it."""


def run_isolated(task: Task, started: Callable[[_Running], None] | None = None) -> Record:
    """Run a task in a process of its own and wait for it.

    Args:
        task: The task.
        started: Called with the process, so that it can be ended from elsewhere.

    Returns:
        Its record: `status` is `ok`, or `failed` with `error`, and `signal` where one ended it.
    """
    begin = time.time()
    (Path(task.folder) / RECORD).unlink(missing_ok=True)  # a process that dies early must not answer with an old one
    process: _Running = _Fresh(task) if multiprocessing.current_process().daemon else _Forked(task)
    if started is not None:
        started(process)
    in_time = process.join(task.kill_after)
    if not in_time:
        process.kill()
        process.join(None)
    record = {**task.about, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin))}
    record["threads"] = task.threads
    record |= _outcome(task, process.exit_status(), in_time)
    record.setdefault("seconds", round(time.time() - begin, 3))
    return record


def _outcome(task: Task, status: int, in_time: bool) -> Record:
    if not in_time:
        return {"status": "failed", "error": f"killed: it took more than {task.kill_after:g} s"}
    if status < 0:
        name = signal.Signals(-status).name
        cause = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return {"status": "failed", "signal": name, "error": f"its process was ended by {name}{cause}"}
    try:
        found: Record = json.loads((Path(task.folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"status": "failed", "error": f"its process ended with status {status}; see {LOG} in its folder"}
    return found


class _Forked:
    """A process forked from the server."""

    def __init__(self, task: Task) -> None:
        self._process = multiprocessing.get_context("forkserver").Process(target=_forked, args=(task,))
        self._process.start()

    def join(self, timeout: float | None) -> bool:
        self._process.join(timeout)
        return self._process.exitcode is not None

    def exit_status(self) -> int:
        return int(self._process.exitcode or 0)

    def kill(self) -> None:
        self._process.kill()


class _Fresh:
    """A new interpreter, which ends when its standard input is closed."""

    def __init__(self, task: Task) -> None:
        command = [sys.executable, "-m", __name__]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()

    def join(self, timeout: float | None) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def exit_status(self) -> int:
        return int(self._process.returncode)

    def kill(self) -> None:
        self._process.kill()


def preload(modules: Sequence[str]) -> None:
    """Name what the server of processes imports once, for all runs."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(modules))


def _forked(task: Task) -> None:
    """What a forked process does; it ends with the process that asked for it, killed or not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        _end_when(lambda: wait([parent.sentinel]))
    _carry_out(task)


def _main() -> None:
    """What a new interpreter does: its task is the first line that it reads."""
    content = json.loads(sys.stdin.readline())
    _end_when(sys.stdin.read)
    _carry_out(Task(**{**content, "arguments": tuple(content["arguments"])}))


def _end_when(returns: Callable[[], object]) -> None:
    def watch() -> None:
        returns()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _carry_out(task: Task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides
    folder = Path(task.folder)
    with locked(Path(task.lock)):  # a run that lost its worker may need a moment to notice
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write_output_to(folder / LOG)
        write_json(folder / RECORD, _called(task))


def _called(task: Task) -> dict[str, Any]:
    module, _, name = task.function.partition(":")
    try:
        found: dict[str, Any] = getattr(importlib.import_module(module), name)(task)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        traceback.print_exc()
        kind = "" if isinstance(error, MFMError) else f"{type(error).__name__}: "
        return {"status": "failed", "error": f"{kind}{' '.join(str(error).split())}"[:1000]}
    return {"status": "ok", **found}


def _write_output_to(path: Path) -> None:
    """Let standard output and error go to a file, those of libraries in C included."""
    with contextlib.suppress(ValueError):
        sys.stdout.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", buffering=1, closefd=False)


if __name__ == "__main__":
    _main()
