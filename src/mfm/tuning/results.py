"""What a study leaves behind: the best configuration, a table of trials, a report."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from mfm.files import write_json, write_text
from mfm.tuning.space import SearchSpace, current_value, with_values
from mfm.tuning.study import ERROR, OWN, RECORD

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_SHOWN = 10


class Row(NamedTuple):
    """One trial.

    Attributes:
        number: Its number in the study.
        state: `complete`, `pruned` or `failed`.
        own: Whether it is the configuration as it stood, as far as the space has its values.
        value: Of the objective; where it was pruned, the last that was known; NaN where it failed.
        epochs: Epochs of each training.
        best_epoch: The epoch kept of each training.
        seconds: It took.
        parameters: Of the model.
        values: Option -> value.
        error: Why it failed; empty otherwise.
    """

    number: int
    state: str
    own: bool
    value: float
    epochs: tuple[int, ...]
    best_epoch: tuple[int, ...]
    seconds: float
    parameters: int | None
    values: dict[str, Any]
    error: str


def rows_of(trials: Sequence[FrozenTrial], space: SearchSpace) -> list[Row]:
    """Trials in order of their numbers."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        record = trial.user_attrs.get(RECORD, {})
        rows.append(
            Row(
                trial.number,
                states[trial.state.name],
                OWN in trial.user_attrs,
                float("nan") if trial.value is None else trial.value,
                tuple(record.get("epochs", ())),
                tuple(record.get("best_epoch", ())),
                float(record.get("seconds", float("nan"))),
                record.get("parameters"),
                space.decode(trial.params),
                trial.user_attrs.get(ERROR, ""),
            )
        )
    return rows


def write_trials(path: Path, rows: Sequence[Row], options: Sequence[str]) -> None:
    """Write a CSV row a trial; options in columns of their own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = [name for name in Row._fields if name != "values"]
    writer.writerow([*plain, *options])
    for row in rows:
        cells = [getattr(row, name) for name in plain]
        cells = [" ".join(map(str, cell)) if isinstance(cell, tuple) else cell for cell in cells]
        cells = ["" if cell != cell else cell for cell in cells]  # NaN
        writer.writerow([*cells, *(row.values.get(option) for option in options)])
    write_text(path, text.getvalue())


def write_best(path: Path, config: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write a configuration that `mfm fit` runs, with where it came from in front."""
    _write_config(path, "The best configuration of a study", summary, config)


def write_overlay(study: Path, path: Path) -> None:
    """Write the best of a study as an overlay: the model whole, and of everything else only what was varied.

    Data, budget and seed stay those of whatever the overlay is laid over.

    Args:
        study: Folder with its `best.yaml` and `report.json`.
        path: The overlay.
    """
    best = yaml.safe_load((study / "best.yaml").read_text(encoding="utf-8"))
    report = json.loads((study / "report.json").read_text(encoding="utf-8"))
    varied = {option: current_value(best, option) for option in report["space"] if not option.startswith("model.")}
    of_study = {key: value for key, value in report.items() if key not in ("command", "data", "space", "trials")}
    about = {**of_study, "trials": dict(Counter(trial["state"] for trial in report["trials"]))}
    _write_config(
        path,
        "The best of a study, to be laid over a configuration",
        about,
        with_values({"model": best["model"]}, varied),
    )


def write_report(folder: Path, summary: Mapping[str, Any], space: SearchSpace, rows: Sequence[Row], mode: str) -> None:
    """Write `report.json` and `report.md`.

    Args:
        folder: Where to.
        summary: What the study was and its best value.
        space: What was varied.
        rows: The trials.
        mode: Whether small (`min`) or large (`max`) values are better.
    """
    ranges = {dimension.option: {dimension.kind: list(dimension.values)} for dimension in space.dimensions}
    write_json(folder / "report.json", {**summary, "space": ranges, "trials": [row._asdict() for row in rows]})
    write_text(folder / "report.md", _markdown(summary, space, ranked(rows, mode), rows))


def ranked(rows: Sequence[Row], mode: str) -> list[Row]:
    """Complete trials, best first."""
    complete = [row for row in rows if row.state == "complete"]
    return sorted(complete, key=lambda row: row.value, reverse=mode == "max")


def _write_config(path: Path, title: str, about: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    said = yaml.safe_dump(dict(about), sort_keys=False, width=110, allow_unicode=True)
    comment = "\n".join(f"# {line}".rstrip() for line in (title, "", *said.splitlines()))
    write_text(path, f"{comment}\n{yaml.safe_dump(dict(config), sort_keys=False)}")


def _markdown(summary: Mapping[str, Any], space: SearchSpace, best: Sequence[Row], rows: Sequence[Row]) -> str:
    options = [dimension.option for dimension in space.dimensions]
    lines = ["# Hyperparameters", ""]
    lines += [f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in summary.items()]
    lines += ["", "![Values of the trials, and against each option](study.png)", "", "## Best trials", ""]
    lines += _table(["trial", "value", "epochs", *options], [_cells(row, options) for row in best[:_SHOWN]])
    lines += ["", "## Search space", ""]
    lines += _table(["option", "range"], [[d.option, str(d)] for d in space.dimensions])
    failed = [row for row in rows if row.error]
    if failed:
        lines += ["", "## Failed trials", ""]
        lines += _table(
            ["trial", "error", *options], [[row.number, row.error, *_options(row, options)] for row in failed]
        )
    return "\n".join(lines) + "\n"


def _cells(row: Row, options: Sequence[str]) -> list[Any]:
    name = f"{row.number} (as it stood)" if row.own else str(row.number)
    return [name, f"{row.value:.4f}", "+".join(map(str, row.epochs)), *_options(row, options)]


def _options(row: Row, options: Sequence[str]) -> list[str]:
    return [_shown(row.values[option]) if option in row.values else "" for option in options]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return "null" if value is None else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (list(head), ["---"] * len(head), *cells)]


def states(rows: Sequence[Row]) -> dict[str, int]:
    """How many trials ended in which way."""
    count = Counter(row.state for row in rows)
    return {state: count[state] for state in ("complete", "pruned", "failed")}
