"""`mfm tune`: search for hyperparameters on validation."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mfm.analysis.figures import save_figure
from mfm.cli.configs import find_config, shipped_configs
from mfm.cli.tune_trials import TrialCLI, quieten_trials
from mfm.cli.tune_workers import Plan, Runner, run_here, run_in_processes
from mfm.errors import ConfigurationError, nearest
from mfm.tuning.curve import ValidationCurve
from mfm.tuning.figures import study_figure
from mfm.tuning.objective import Objective, own_monitor
from mfm.tuning.results import Row, ranked, rows_of, states, write_best, write_report, write_trials
from mfm.tuning.space import SearchSpace, parse_space, with_values
from mfm.tuning.study import PRUNERS, best_trial, counted, open_storage, open_study, require_optuna

_DESCRIPTION = """\
Search for the options that give the best validation value, with Optuna: TPE, after random trials, and trials that fall
behind are ended early. The first trial is the configuration as it stands. The test split is never opened.

A study is kept in DIR/study.db. The same command again goes on with it, up to --trials; trials that a kill left
half-done are replaced. It may run in several terminals or machines at once, with one --storage.

Writes DIR/best.yaml (runs with mfm fit; says where it came from), trials.csv, report.md, report.json and study.png.
"""
_EXAMPLES = """\
examples:
  mfm tune --config mosi.yaml --data.path aligned_50.pkl --space mfm --output tuned
  mfm tune --config mosi.yaml --data.path aligned_50.pkl --space mine.yaml --trials 50 --jobs 4 --output tuned
  mfm tune --config mmmo.yaml --data.path mmmo --space mfm --folds 5 --output tuned      # a small corpus
  mfm tune ... --storage postgresql://user@host/tuning                                    # several machines

a space:
  model.lr: {log_uniform: [1.0e-4, 3.0e-3]}        # also uniform, int, log_int
  model.fusion.hidden: {choice: [32, 64, 128]}     # the configuration's own value is a choice, too
"""
_VARIABLE = ("path", "num_workers", "in_memory")  # where the data is and how it is read: no trial depends on it


class Base(NamedTuple):
    """The configuration as it stands, and what its data is.

    Attributes:
        config: Whole, defaults included.
        monitor: Name of the validation value.
        mode: Whether that is better small (`min`) or large (`max`).
        modalities: Modalities of the data.
        fingerprint: Of the data.
        named: Whether the data names its samples, so that videos are known.
    """

    config: dict[str, Any]
    monitor: str
    mode: Literal["min", "max"]
    modalities: list[str]
    fingerprint: str
    named: bool


def main(arguments: list[str]) -> int:
    """Run `mfm tune`.

    Args:
        arguments: Those after `mfm tune`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    os.environ["MFM_COMMAND"] = shlex.join(["mfm", "tune", *arguments])
    given, rest = _parser().parse_known_args(arguments)
    _check(given, rest)
    require_optuna()
    space = _read_space(given.space)
    if given.max_epochs is not None:
        rest = [*rest, "--trainer.max_epochs", str(given.max_epochs)]
    cli = TrialCLI(rest)
    base = _try(cli, space, given.folds)
    quieten_trials()
    space = space.with_own_values(base.config)
    folder = Path(given.output)
    own, outside = space.own_parameters(base.config)
    plan = _plan(given, rest, base, space, own)
    if outside:
        _say(f"not in the space as they stand, so that the first trial draws them: {', '.join(outside)}")
    if given.folds and not base.named:
        _say("the data does not name its samples, so that no video is known: every sample may be in any fold")
    storage = open_storage(plan.storage)
    open_study(storage, base.mode, _settings(plan, base))
    runner = Runner(plan, cli, storage)
    _run(runner, given.jobs, base)
    _write(folder, runner, base, given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfm tune",
        usage="mfm tune --config FILE --space FILE --output DIR [options] [options of mfm fit]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--space",
        metavar="FILE",
        help="search space, a file or a shipped one: mfm, tfn, ... (mfm configs lists spaces/)",
    )
    add("--output", metavar="DIR", help="folder of the study")
    add("--trials", type=int, default=20, metavar="N", help="trials in all, those of earlier calls included (20)")
    add("--jobs", type=int, default=1, metavar="N", help="trials at once, in processes of their own (1)")
    add(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="validate on K folds over the videos of training and validation",
    )
    add("--pruner", default="median", help="how trials end early: median (default), hyperband or none")
    add(
        "--seed", type=int, default=1, metavar="N", help="seed of the draws and the folds (1); trainings have their own"
    )
    add("--storage", metavar="URL", help="database of the study; sqlite:///DIR/study.db by default")
    add("--max_epochs", type=int, metavar="N", help="the same as --trainer.max_epochs")
    return parser


def _check(given: argparse.Namespace, rest: list[str]) -> None:
    for option in ("space", "output"):
        if not getattr(given, option):
            raise ConfigurationError(f"tune needs --{option}; mfm tune --help has examples")
    for option, least in (("trials", 1), ("jobs", 1), ("seed", 0)):
        if getattr(given, option) < least:
            raise ConfigurationError(f"--{option} is {getattr(given, option)}, but must be at least {least}")
    if given.folds < 0 or given.folds == 1:
        raise ConfigurationError(f"--folds is {given.folds}, but must be 0 or at least 2")
    if given.pruner not in PRUNERS:
        raise ConfigurationError(f"--pruner: unknown pruner {given.pruner!r}: {nearest(given.pruner, PRUNERS)}")
    for argument in rest:
        if argument.partition("=")[0] in ("--ckpt_path", "--run_dir"):
            raise ConfigurationError(f"tune leaves no runs and resumes none: drop {argument.partition('=')[0]}")


def _read_space(name: str) -> SearchSpace:
    shipped = shipped_configs()
    short = next((found for found in (f"spaces/{name}", f"spaces/{name}.yaml") if found in shipped), None)
    try:
        path = find_config(name) if short is None or Path(name).is_file() else str(shipped[short])
    except ConfigurationError as error:
        spaces = [found.removeprefix("spaces/") for found in shipped if found.startswith("spaces/")]
        raise ConfigurationError(
            f"--space: no file {name!r} here, and no shipped one: {nearest(name, spaces)}"
        ) from error
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--space: {path} is not readable YAML ({str(error).splitlines()[0]})") from error
    return parse_space(content, f"--space {name}")


def _try(cli: TrialCLI, space: SearchSpace, folds: int) -> Base:
    """Build the configuration as it stands, and check every range's ends by type, before anything is written.

    Raises:
        MFMError: What is wrong with the configuration, the data or the space.
    """
    config = cli.base
    objective = Objective(cli.build, config, space, folds=folds, seed=0)
    data = objective.prepared(config, ValidationCurve(), 0 if folds else None).data
    data.setup("fit")
    space.check(config, data.modalities)
    for end in (0, -1):
        values = {dimension.option: dimension.values[end] for dimension in space.dimensions}
        cli.parsed(with_values(config, values))
    by_corpus = (data.corpus_record.monitor, data.corpus_record.mode) if data.labels else ("val/loss", "min")
    monitor, mode = own_monitor(config) or by_corpus
    named = all(split.has_ids for split in data.corpus_data.splits.values())
    return Base(config, monitor, mode, list(data.modalities), data.fingerprint, named)


def _plan(given: argparse.Namespace, rest: list[str], base: Base, space: SearchSpace, own: dict[str, Any]) -> Plan:
    folder = Path(given.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--output {folder} cannot be made ({error.strerror}); choose another") from error
    epochs = base.config["trainer"].get("max_epochs") or 1000  # Lightning's own limit
    return Plan(
        arguments=rest,
        config=base.config,
        space=space,
        own=own,
        storage=given.storage or f"sqlite:///{(folder / 'study.db').resolve()}",
        trials=given.trials,
        seed=given.seed,
        folds=given.folds,
        pruner=given.pruner,
        steps=given.folds or epochs,
    )


def _settings(plan: Plan, base: Base) -> dict[str, Any]:
    """What makes the trials of a study comparable."""
    data = dict(base.config["data"])
    data["init_args"] = {key: value for key, value in data["init_args"].items() if key not in _VARIABLE}
    settings = {
        "configuration": {**base.config, "data": data},
        "space": {dimension.option: [dimension.kind, *dimension.values] for dimension in plan.space.dimensions},
        "data": base.fingerprint,
        "monitor": base.monitor,
        "seed": plan.seed,
        "folds": plan.folds,
        "pruner": plan.pruner,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _run(runner: Runner, jobs: int, base: Base) -> None:
    done = len(counted(runner.study))
    if runner.left() <= 0:
        _say(f"the study has its {done} trials already; a larger --trials goes on with it")
        return
    if done:
        _say(f"going on after {done} trials")
    try:
        with _progress(runner, base) as announce:
            if jobs == 1:
                run_here(runner, announce)
            else:
                run_in_processes(runner, jobs, announce)
    except KeyboardInterrupt:
        _say(f"\n{len(counted(runner.study))} of {runner.plan.trials} trials are done; the same command goes on")
        raise


@contextmanager
def _progress(runner: Runner, base: Base) -> Iterator[Any]:
    """A bar on a terminal, and a line for every finished trial."""
    known = {trial.number for trial in counted(runner.study)}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("trials", total=runner.plan.trials, completed=len(known))

        def announce() -> None:
            rows = rows_of(counted(runner.study), runner.plan.space)
            best = next(iter(ranked(rows, base.mode)), None)
            for row in rows:
                if row.number not in known:
                    known.add(row.number)
                    console.print(_line(row, best, base.monitor), highlight=False, soft_wrap=True, markup=False)
            bar.update(task, completed=len(known))

        yield announce


def _line(row: Row, best: Row | None, monitor: str) -> str:
    value = "" if row.state == "failed" else f" {monitor} {row.value:.4f}"
    so_far = "" if best is None else f"; best {best.value:.4f} (trial {best.number})"
    return f"trial {row.number}: {row.state}{value}{so_far}, {row.seconds:.1f} s {row.error}".rstrip()


def _write(folder: Path, runner: Runner, base: Base, given: argparse.Namespace) -> None:
    """Write the results, and print the best trials; the last line is the `mfm fit` command."""
    space, trials = runner.plan.space, counted(runner.study)
    rows = rows_of(trials, space)
    write_trials(folder / "trials.csv", rows, [dimension.option for dimension in space.dimensions])
    best = best_trial(runner.study)
    command = shlex.join(["mfm", "fit", "--config", os.path.relpath(folder / "best.yaml")])
    summary = _summary(runner, rows, base, given, best.number)
    write_report(folder, summary, space, rows, base.mode)
    save_figure(study_figure(rows, space, base.monitor, base.mode), folder / "study.png")
    write_best(folder / "best.yaml", with_values(base.config, space.decode(best.params)), summary)
    out = Console(file=sys.stdout)
    out.print(_best_table(ranked(rows, base.mode)[:5], base, space))
    missing = given.trials - len(trials)
    if missing > 0:
        out.print(f"{missing} trials are under way in other processes; the same command writes the results anew")
    out.print(os.path.relpath(folder / "report.md"), soft_wrap=True, highlight=False)
    out.print(command, soft_wrap=True, highlight=False)


def _summary(runner: Runner, rows: list[Row], base: Base, given: argparse.Namespace, best: int) -> dict[str, Any]:
    value = next(row.value for row in rows if row.number == best)
    own = next((row.value for row in rows if row.own and row.state == "complete"), None)
    plan = runner.plan
    scored = f"mean over {plan.folds} folds of videos" if plan.folds else "validation split"
    return {
        "command": os.environ["MFM_COMMAND"],
        "date": date.today().isoformat(),
        base.monitor: value,
        "value_is": f"best epoch, {scored}",
        "best_trial": best,
        "first_trial": own,
        "trials": states(rows),
        "seconds": round(sum(row.seconds for row in rows if row.seconds == row.seconds), 1),
        "seed_of_draws": plan.seed,
        "seed_of_trainings": base.config.get("seed_everything"),
        "pruner": plan.pruner,
        "space": given.space,
        "data": str(base.config["data"]["init_args"].get("path")),
        "data_fingerprint": base.fingerprint,
        "versions": {name: version(name) for name in ("mfm-lightning", "torch", "lightning", "optuna")},
    }


def _best_table(best: list[Row], base: Base, space: SearchSpace) -> Table:
    table = Table(title=f"best trials by {base.monitor}", title_justify="left")
    for name in ("trial", "value", "epochs"):
        table.add_column(name, justify="right")
    table.add_column("options", overflow="fold")
    for row in best:
        options = ", ".join(f"{name} {_shown(value)}" for name, value in row.values.items())
        name = f"{row.number} (first)" if row.own else str(row.number)
        table.add_row(name, f"{row.value:.4f}", "+".join(map(str, row.epochs)), options)
    return table


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
