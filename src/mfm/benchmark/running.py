"""Running a suite: which cells are finished, which are left, and a line for each that ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mfm.benchmark.executors import Execute
from mfm.benchmark.isolation import Task
from mfm.benchmark.records import RESULTS, Record, ResultsFile, newest, read_records
from mfm.benchmark.suite import Cell, Suite
from mfm.errors import ConfigurationError, nearest

RUNS, PREDICTIONS = "runs", "predictions"
_GRACE = 120  # seconds for reading data, testing and writing, beside the budget of training
Tell = Callable[[int, int, Record], None]
"""Called as a run ends with (runs ended, runs to do, its record)."""


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        tasks: Cells to run.
        kept: Cells that are finished.
        failed: Finished cells that failed and are left so.
    """

    tasks: tuple[Task, ...]
    kept: tuple[Cell, ...]
    failed: tuple[Cell, ...]


class Command(NamedTuple):
    """How a cell is run.

    Attributes:
        arguments: Arguments of `mfm fit`, but for `--run_dir`.
        config_hash: Identifies its configuration.
        shown: The command for its record, without paths of this machine.
    """

    arguments: tuple[str, ...]
    config_hash: str
    shown: str


@dataclass(frozen=True)
class Settings:
    """How cells are run; see `Task`.

    Attributes:
        folder: The suite's folder.
        function: `module:function` that a process calls.
        threads: Threads of each run.
        keep: Checkpoints to keep.
        retry: Run cells again that failed.
    """

    folder: Path
    function: str
    threads: int = 1
    keep: str = "best"
    retry: bool = False


def chosen_cells(suite: Suite, only: Collection[str], seeds: Collection[int]) -> list[Cell]:
    """The cells of a suite that were asked for.

    Args:
        suite: The suite.
        only: Labels of corpora and models; corpora that are named leave the others out, and models too. None: all.
        seeds: Seeds to use in place of the suite's; empty is the suite's.

    Raises:
        ConfigurationError: A label that the suite does not have.
    """
    for name in only:
        if name not in suite.corpora and name not in suite.models:
            raise ConfigurationError(f"--only {name}: {nearest(name, [*suite.corpora, *suite.models])}")
    corpora = [name for name in suite.corpora if name in only] or list(suite.corpora)
    models = [name for name in suite.models if name in only] or list(suite.models)
    return [
        Cell(corpus, model, seed)
        for seed in (dict.fromkeys(seeds) or suite.seeds)
        for corpus in corpora
        for model in models
    ]


def plan(
    suite: Suite,
    cells: Iterable[Cell],
    settings: Settings,
    commands: Mapping[Cell, Command],
) -> Plan:
    """Compare what is asked for with what is finished.

    A cell whose configuration is another than that of its line is run again; so is one that failed, with `retry`.

    Args:
        suite: The suite.
        cells: Cells asked for.
        settings: How they are run.
        commands: Cell -> how it is run.
    """
    done = newest(read_records(settings.folder) if (settings.folder / RESULTS).is_file() else [])
    tasks, kept, failed = [], [], []
    for cell in cells:
        command = commands[cell]
        record = done.get((cell.corpus, cell.model, cell.seed))
        same = record is not None and record.get("config_hash") == command.config_hash
        if record is not None and same and record["status"] == "ok":
            kept.append(cell)
        elif same and not settings.retry:
            failed.append(cell)
        else:
            tasks.append(_task(suite, cell, settings, command))
    return Plan(tuple(tasks), tuple(kept), tuple(failed))


def _task(suite: Suite, cell: Cell, settings: Settings, command: Command) -> Task:
    seconds = suite.budget.max_seconds
    budget = {"max_epochs": suite.budget.max_epochs, "max_seconds": seconds}
    about: Record = {**cell._asdict(), "suite": suite.name, "budget": budget}
    about |= {"config_hash": command.config_hash, "command": command.shown}
    return Task(
        function=settings.function,
        folder=str(settings.folder / RUNS / cell.key),
        lock=str(settings.folder / ".locks" / cell.key.replace("/", "-")),
        arguments=command.arguments,
        about=about,
        predictions=str(settings.folder / PREDICTIONS),
        threads=settings.threads,
        keep=settings.keep,
        kill_after=None if seconds is None else 2.0 * seconds + _GRACE,
    )


def carry_out(todo: Plan, folder: Path, execute: Execute, tell: Tell) -> int:
    """Run what is left, and append a line for each run as it ends.

    Returns:
        Number of runs that failed.
    """
    results = ResultsFile(folder)
    failures = 0
    for number, (_, record) in enumerate(execute(todo.tasks), start=1):
        results.append(record)
        failures += record["status"] != "ok"
        tell(number, len(todo.tasks), record)
    return failures


def threads_of(jobs: int) -> int:
    """Threads for each of so many runs at once: `OMP_NUM_THREADS`, or a fair share of the processors."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // jobs)
