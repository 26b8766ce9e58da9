"""`mfm benchmark`: run a suite of corpora x models x seeds, report on it, set published numbers beside it."""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mfm.benchmark.executors import Execute, dask, processes
from mfm.benchmark.records import Record, exclusive
from mfm.benchmark.running import Command, Plan, Settings, carry_out, chosen_cells, plan, threads_of
from mfm.benchmark.suite import Cell, Suite
from mfm.cli import benchmark_report, benchmark_tune
from mfm.cli.suites import corpus_paths, opened, read_suite
from mfm.errors import ConfigurationError
from mfm.files import write_json

_DESCRIPTION = """\
Settle which model is better: corpora x models x seeds in one command, each epoch chosen on validation, with
intervals over test samples and seeds, and failures listed.
"""
_RUN = """\
Run a suite: `mfm fit`, then `mfm test` of the best checkpoint, for every corpus, model and seed, each in a process
of its own. Finished runs are kept: stopped or killed, the same command goes on, and ends with the numbers it would
have had. A run that fails is recorded, and the others go on; the exit status is then 1.

In DIR: results.jsonl (a line a run), predictions/ of the test split, runs/<corpus>/<model>/seed_<n> with log.txt.
`mfm benchmark report DIR` makes tables of it.
"""
_RUN_EXAMPLES = """\
examples:
  mfm benchmark run mosi-context --data DATA --output results/mosi-context --jobs 4
  mfm benchmark run my_suite.yaml --output out --only mfm tfn --seeds 1 2 3
  mfm benchmark run my_suite.yaml --output out --dry-run
  mfm benchmark run paper --data DATA --output out --skip-missing --executor dask --scheduler tcp://10.0.0.1:8786

a suite (mfm.benchmark.suite_file documents every key; shipped ones are in configs/suites):
  name: mine
  corpora:
    mosi: {path: "${MFM_DATA}/mosi/aligned_50.pkl"}
  models:
    mfm: mosi.yaml
    tfn: {config: "collection/{corpus}_tfn.yaml", options: {model.lr: 1.0e-3}, tuned: tuned/tfn/best.yaml}
  seeds: [1, 2, 3]
  budget: {max_epochs: 40, max_seconds: 600}
"""


def main(argv: Sequence[str]) -> int:
    """Run `mfm benchmark`.

    Args:
        argv: Arguments after `mfm benchmark`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    parser = argparse.ArgumentParser(
        prog="mfm benchmark", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    benchmark_tune.add_command(commands)
    benchmark_report.add_commands(commands)
    options = parser.parse_args(list(argv) or ["--help"])
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run", help="run a suite, or go on with one", description=_RUN, epilog=_RUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    run.set_defaults(command=_run)
    run.add_argument("suite", metavar="SUITE", help="YAML file, or the name of a shipped suite")
    run.add_argument("--output", required=True, metavar="DIR", help="folder of the suite's runs and results")
    run.add_argument("--data", metavar="DIR", help="folder that ${MFM_DATA} means in the suite's paths")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    run.add_argument(
        "--threads", type=int, metavar="N", help="threads a run (default: OMP_NUM_THREADS or a fair share)"
    )
    run.add_argument("--only", nargs="+", default=[], metavar="LABEL", help="only these corpora and models")
    run.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="N", help="these seeds in place of the suite's"
    )
    run.add_argument("--tuned", metavar="YAML", help="overlay of models without one, with {label}, {corpus}, {model}")
    run.add_argument("--keep-checkpoints", choices=("best", "all", "none"), default="best", help="(default: best)")
    run.add_argument("--retry", action="store_true", help="run again what failed")
    run.add_argument("--skip-missing", action="store_true", help="leave out corpora whose files are not there")
    run.add_argument("--executor", choices=("processes", "dask"), default="processes", help="(default: processes)")
    run.add_argument("--scheduler", metavar="ADDRESS", help="dask scheduler, or its file (default: a local cluster)")
    run.add_argument("--dry-run", action="store_true", help="print the commands of the runs that are left")


def _run(options: argparse.Namespace) -> int:
    for name in ("jobs", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigurationError(f"--{name} is {value}; give a number >= 1")
    suite = read_suite(options.suite)
    folder = Path(options.output)
    cells = chosen_cells(suite, options.only, options.seeds)
    if options.dry_run:
        return _show_plan(_planned(suite, cells, options, folder, dry=True))
    execute = _executor(options)
    with exclusive(folder):
        todo = _planned(suite, cells, options, folder, dry=False)
        write_json(folder / "suite.json", suite_content(suite))
        print(f"{len(todo.tasks)} runs to do, {len(todo.kept)} finished, {len(todo.failed)} failed before", flush=True)
        with _Told(len(todo.tasks)) as tell:
            failures = carry_out(todo, folder, execute, tell)
    failures += len(todo.failed)
    print(f"mfm benchmark report {folder}")
    if failures:
        again = " (--retry runs those of before again)" if todo.failed else ""
        sys.stderr.write(
            f"mfm benchmark: {failures} of {len(cells)} runs failed{again}; {folder}/results.jsonl says why\n"
        )
    return 1 if failures else 0


def suite_content(suite: Suite) -> dict[str, Any]:
    """What a report needs to know of a suite: titles in order, notes, and the reference."""
    return {
        "name": suite.name,
        "title": suite.title,
        "corpora": {label: entry.title for label, entry in suite.corpora.items()},
        "notes": {label: entry.note for label, entry in suite.corpora.items() if entry.note is not None},
        "models": {label: entry.title for label, entry in suite.models.items()},
        "reference": suite.reference,
    }


def _planned(suite: Suite, cells: list[Cell], options: argparse.Namespace, folder: Path, *, dry: bool) -> Plan:
    labels = dict.fromkeys(cell.corpus for cell in cells)
    paths = corpus_paths(suite, labels, options.data, folder, skip_missing=options.skip_missing, dry=dry)
    cells[:] = [cell for cell in cells if cell.corpus in paths]
    commands, cached = {}, functools.cache(opened)
    for cell in cells:
        recipe = suite.recipe(cell, options.tuned, cached)
        shown = suite.arguments(cell, suite.corpora[cell.corpus].path or "GENERATED", recipe, shown=True)
        commands[cell] = Command(
            arguments=suite.arguments(cell, paths[cell.corpus], recipe),
            config_hash=suite.config_hash(cell, recipe),
            shown=shlex.join(["mfm", "fit", *shown]),
        )
    settings = Settings(
        folder=folder.resolve(),
        function="mfm.cli.benchmark_cell:train_and_test",
        threads=options.threads or threads_of(options.jobs),
        keep=options.keep_checkpoints,
        retry=options.retry,
    )
    return plan(suite, cells, settings, commands)


def _executor(options: argparse.Namespace) -> Execute:
    if options.executor == "dask":
        return dask(options.jobs, options.scheduler)
    if options.scheduler is not None:
        raise ConfigurationError("--scheduler is for --executor dask; add that, or leave --scheduler out")
    return processes(options.jobs, ("mfm.cli.benchmark_cell",))


def _show_plan(todo: Plan) -> int:
    for task in todo.tasks:
        print(shlex.join(["mfm", "fit", *task.arguments, "--run_dir", task.folder]))
    print(f"{len(todo.tasks)} runs to do, {len(todo.kept)} finished, {len(todo.failed)} failed before", file=sys.stderr)
    return 0


class _Told:
    """A line for each run that ends, and a bar with the time left where standard error is a terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("runs"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._bar_task = self._bar.add_task("runs", total=total)

    def __enter__(self) -> Callable[[int, int, Record], None]:
        self._bar.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _tell(self, number: int, total: int, record: Record) -> None:
        self._bar.update(self._bar_task, completed=number)
        name = f"{record['corpus']}/{record['model']}/seed_{record['seed']}"
        if record["status"] == "ok":
            short = record["monitor"].partition("/")[2]
            value = record["metrics"]["test"].get(short)
            says = f"{record['epochs']} epochs, test {short} " + ("-" if value is None else f"{value:.4f}")
        else:
            says = f"FAILED: {record['error']}"
        seconds = f" ({record['seconds']:.0f} s)" if "seconds" in record else ""  # unknown of a worker that was lost
        print(f"{number}/{total} {name}{seconds}: {says}", flush=True)
