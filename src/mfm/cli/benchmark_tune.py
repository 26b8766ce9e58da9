"""`mfm benchmark tune`: the same search for every model of a suite."""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from pathlib import Path
from typing import Any

from mfm.benchmark.running import chosen_cells
from mfm.benchmark.suite import Cell
from mfm.cli.suites import corpus_paths, opened, read_suite
from mfm.errors import ConfigurationError, MFMError

_DESCRIPTION = """\
Give every model of a suite the same search: `mfm tune` for each corpus and model, with the suite's options and budget
and as many trials. Each model is scored on validation; no test split is opened. Studies go on where they were stopped,
and a model whose search fails does not stop the others.

In DIR: <corpus>/<model>/ with the study, its table and its figure, and <corpus>/<model>.yaml, the overlay for
`mfm benchmark run --tuned`.
"""
_EXAMPLES = """\
examples:
  mfm benchmark tune mosi-context --data DATA --output tuned --trials 20
  mfm benchmark run mosi-context --data DATA --output results --tuned 'tuned/{label}/{model}.yaml'
  mfm benchmark tune mmmo --data DATA --output tuned --folds 5 --only mfm tfn
"""
_PASSED = ("trials", "jobs", "folds", "pruner", "seed")  # options of mfm tune that are the same for all models


def add_command(commands: Any) -> None:
    """Add `tune` to the parser of `mfm benchmark`."""
    tune = commands.add_parser(
        "tune", help="search for each model's hyperparameters, with one budget", description=_DESCRIPTION,
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    tune.set_defaults(command=_tune)
    tune.add_argument("suite", metavar="SUITE", help="YAML file, or the name of a shipped suite")
    tune.add_argument("--output", required=True, metavar="DIR", help="folder of the studies and overlays")
    tune.add_argument("--data", metavar="DIR", help="folder that ${MFM_DATA} means in the suite's paths")
    tune.add_argument("--only", nargs="+", default=[], metavar="LABEL", help="only these corpora and models")
    tune.add_argument(
        "--space",
        default="{model}",
        metavar="NAME",
        help="search space; {model} is the suite's name (default: {model})",
    )
    tune.add_argument("--trials", type=int, default=20, metavar="N", help="trials a model (default: 20)")
    tune.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at once (default: 1)")
    tune.add_argument("--folds", type=int, default=0, metavar="K", help="validate on K folds over videos")
    tune.add_argument("--pruner", default="median", help="median (default), hyperband or none")
    tune.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the draws and the folds (default: 1)")


def _tune(options: argparse.Namespace) -> int:
    suite = read_suite(options.suite)
    # trainings have the suite's first seed: what differs over seeds is for `run` to find out
    cells = chosen_cells(suite, options.only, suite.seeds[:1])
    folder = Path(options.output)
    paths = corpus_paths(suite, dict.fromkeys(cell.corpus for cell in cells), options.data, folder)
    cached = functools.cache(opened)
    failures: dict[Cell, MFMError] = {}
    for number, cell in enumerate(cells, start=1):
        print(f"{number}/{len(cells)} {cell.corpus}/{cell.model}", flush=True)
        recipe = suite.recipe(cell, None, cached, untuned=True)
        passed = [word for name in _PASSED for word in (f"--{name}", str(getattr(options, name)))]
        try:
            study = folder / cell.corpus / cell.model
            space = _filled(options.space, cell)
            _search([*suite.arguments(cell, paths[cell.corpus], recipe), "--space", space, *passed], study)
        except MFMError as error:
            failures[cell] = error
            sys.stderr.write(f"{cell.corpus}/{cell.model}: {error}\n")
    print(shlex.join(["mfm", "benchmark", "run", options.suite, "--tuned", f"{folder}/{{label}}/{{model}}.yaml"]))
    if failures:
        names = ", ".join(f"{cell.corpus}/{cell.model}" for cell in failures)
        sys.stderr.write(f"mfm benchmark: {len(failures)} of {len(cells)} searches failed: {names}\n")
    return 1 if failures else 0


def _filled(space: str, cell: Cell) -> str:
    try:
        return space.format(model=cell.model, label=cell.corpus)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigurationError(f"--space {space!r}: only {{model}} and {{label}} are known") from error


def _search(arguments: list[str], study: Path) -> None:
    """Run `mfm tune`, and write the overlay that makes a suite's run of the model the best one of the study."""
    from mfm.cli.tune import main as tune
    from mfm.tuning.results import write_overlay

    tune([*arguments, "--output", str(study)])
    write_overlay(study, study.with_name(f"{study.name}.yaml"))
