"""Published numbers beside ours: each with its source and convention, marked where the data differ."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mfm.benchmark.study import CorpusRuns, Study
from mfm.benchmark.tables import Table, number, spread

PUBLISHED = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """One published row.

    Attributes:
        corpus: Name of the corpus.
        model: Model, under the name that suites give it.
        source: Who published it.
        data: On which features.
        convention: How binary metrics are defined, in words.
        sha256: Of the file, where it is known.
        recalled: Written down from memory.
        metrics: Metric -> mean, or (mean, deviation).
    """

    corpus: str
    model: str
    source: str
    data: str
    convention: str
    sha256: str | None
    recalled: bool
    metrics: Mapping[str, tuple[float, float | None]]


def read_published(path: Path = PUBLISHED) -> list[Published]:
    """The published rows that ship with the package."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = []
    for record in content["records"]:
        source: Mapping[str, Any] = content["sources"][record["source"]]
        metrics = {
            name: (float(value[0]), float(value[1])) if isinstance(value, list) else (float(value), None)
            for name, value in record["metrics"].items()
        }
        rows.append(
            Published(
                corpus=record["corpus"],
                model=record["model"],
                source=source["title"],
                data=source["data"],
                convention=content["conventions"][record["convention"]],
                sha256=source.get("sha256"),
                recalled=bool(source.get("recalled")),
                metrics=metrics,
            )
        )
    return rows


def comparison_tables(study: Study, published: Sequence[Published]) -> list[Table]:
    """A table a corpus of ours: every published row of that corpus, and our rows of the same model beneath it."""
    return [
        _table(study, runs, [row for row in published if row.corpus == runs.corpus.name])
        for runs in study.corpora.values()
    ]


def _table(study: Study, runs: CorpusRuns, published: Sequence[Published]) -> Table:
    ours = next(iter(runs.runs.values()))[0]["metrics"]["test"]
    metrics = [name for name in dict.fromkeys(name for row in published for name in row.metrics) if name in ours]
    metrics = metrics or runs.metrics()
    models = list(dict.fromkeys([*runs.runs, *(row.model for row in published)]))
    rows = []
    for model in models:
        if model in runs.runs:
            values = {metric: runs.values(model, metric) for metric in metrics}
            cells = [_spread(values[metric]) for metric in metrics]
            count = len(runs.runs[model])
            rows.append([study.titles.get(model, model), f"ours, n = {count}", *cells, "this file", "by its name"])
        for row in published:
            if row.model == model:
                cells = [_published(row, metric) for metric in metrics]
                mark = "same file" if row.sha256 == runs.fingerprint else f"OTHER DATA: {row.data}"
                source = row.source + (" (recalled, unchecked)" if row.recalled else "")
                rows.append([study.titles.get(model, model), source, *cells, mark, row.convention])
    title = f"{runs.title} (data {runs.fingerprint[:12]})"
    return Table(title, ["model", "source", *metrics, "data", "convention of acc2 and f1"], rows)


def _spread(values: Sequence[float]) -> str:
    return spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan"))


def _published(row: Published, metric: str) -> str:
    if metric not in row.metrics:
        return "-"
    mean, deviation = row.metrics[metric]
    digits = 3 if round(mean, 3) == mean else 4
    return number(mean, digits) if deviation is None else spread(mean, deviation)
