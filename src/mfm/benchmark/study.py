"""What the records of suites say: runs grouped by corpus and model, their scores with intervals and tests."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mfm.benchmark.predictions import Predicted, read_predicted
from mfm.benchmark.records import Record, newest, read_records
from mfm.benchmark.running import PREDICTIONS
from mfm.benchmark.statistics import (
    Floats,
    Interval,
    bootstrap,
    holm,
    interval,
    losses_of,
    ranks,
    score_of,
    two_sided,
)
from mfm.corpora import Corpus, get_corpus
from mfm.errors import ConfigurationError, DataFormatError, nearest

SUITE = "suite.json"
BOUND = "bound"


@dataclass(frozen=True)
class CorpusRuns:
    """Finished runs on one corpus.

    Attributes:
        label: The suite's name of it.
        title: What it is.
        note: What the suite says about its results; empty for nothing.
        folder: Folder of its suite.
        runs: Model -> its finished runs, by seed.
        fingerprint: Of the data.
        corpus: What is known of the corpus.
    """

    label: str
    title: str
    note: str
    folder: Path
    runs: Mapping[str, Sequence[Record]]
    fingerprint: str
    corpus: Corpus

    @property
    def monitor(self) -> str:
        """The metric that selected every epoch, which also orders the table."""
        return str(self._first["monitor"]).partition("/")[2]

    @property
    def higher_is_better(self) -> bool:
        """Of that metric."""
        return bool(self._first["mode"] == "max")

    @property
    def _first(self) -> Record:
        return next(iter(self.runs.values()))[0]

    def values(self, model: str, metric: str, stage: str = "test") -> list[float]:
        """A model's values, one a seed; NaN where a run has none."""
        found = (run["metrics"][stage].get(metric) for run in self.runs[model])
        return [float("nan") if value is None else float(value) for value in found]

    def mean(self, model: str, metric: str) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values(model, metric))

    def metrics(self) -> list[str]:
        """Metrics of the corpus that every model has; of several targets the means only."""
        names = [run["metrics"]["test"].keys() for runs in self.runs.values() for run in runs]
        shared = [name for name in names[0] if "/" not in name and all(name in one for one in names)]
        return sorted(shared, key=lambda name: (name != self.monitor, not name.startswith("corr"), name))

    def best_first(self) -> list[str]:
        """Models, the best mean of the selecting metric first."""
        means = {model: self.mean(model, self.monitor) for model in self.runs}
        losses = losses_of(means, higher_is_better=self.higher_is_better)
        return sorted(losses, key=losses.__getitem__)

    def predictions(self) -> dict[str, list[Predicted]]:
        """Model -> predictions of its runs.

        Raises:
            DataFormatError: They are lost, or of other samples than those of another model.
        """
        found = {}
        for model, runs in self.runs.items():
            for run in runs:
                if "predictions" not in run:
                    raise DataFormatError(f"{self.folder}: {model} on {self.label} has no predictions; run it again")
            found[model] = [read_predicted(self.folder / PREDICTIONS, run["predictions"]) for run in runs]
        targets = {one.targets: model for model, several in found.items() for one in several}
        if len(targets) > 1:
            names = " and ".join(sorted(targets.values()))
            raise DataFormatError(f"{self.folder}: on {self.label}, {names} were tested on different samples")
        return found

    def bound(self) -> Predicted | None:
        """Predictions of who knows the label factor, of a generated corpus."""
        if not (self.folder / PREDICTIONS / self.label / f"{BOUND}.npz").is_file():
            return None
        return read_predicted(self.folder / PREDICTIONS, f"{self.label}/{BOUND}.npz")


@dataclass(frozen=True)
class Study:
    """Several suites' records together.

    Attributes:
        folders: The suites' folders.
        titles: Model -> what it is called.
        corpora: Label -> its runs, in the suites' order.
        failures: Failed runs that no later run of the cell made good.
        repeated: Failed runs that a later run of the cell made good.
        reference: The row that others are tested against; None for no tests.
    """

    folders: Sequence[Path]
    titles: Mapping[str, str]
    corpora: Mapping[str, CorpusRuns]
    failures: Sequence[Record]
    repeated: Sequence[Record]
    reference: str | None

    def finished(self) -> list[Record]:
        """All finished runs."""
        return [run for corpus in self.corpora.values() for runs in corpus.runs.values() for run in runs]

    def mean_ranks(self) -> dict[str, tuple[float, int]]:
        """Model -> mean over the corpora it has runs on of its rank there, and how many these are."""
        found: dict[str, list[float]] = {}
        for corpus in self.corpora.values():
            means = {model: corpus.mean(model, corpus.monitor) for model in corpus.runs}
            for model, rank in ranks(means, higher_is_better=corpus.higher_is_better).items():
                found.setdefault(model, []).append(rank)
        return {model: (statistics.fmean(several), len(several)) for model, several in found.items()}


def read_study(folders: Sequence[str | Path], reference: str | None = None) -> Study:
    """Read suites' folders.

    Args:
        folders: Each with `results.jsonl`.
        reference: Model to test the others against; by default the first suite's, where it has runs.

    Raises:
        DataFormatError: No results, or results that do not belong together: of different data, or of one model with
            different settings.
        ConfigurationError: A reference that has no runs.
    """
    titles: dict[str, str] = {}
    corpora: dict[str, CorpusRuns] = {}
    failures: list[Record] = []
    repeated: list[Record] = []
    default: str | None = None
    for folder in map(Path, folders):
        records = read_records(folder)
        about = _about(folder)
        last = newest(records)
        failed = [record for record in records if record["status"] != "ok"]
        failures += [record for record in failed if last[_cell(record)] is record]
        repeated += [record for record in failed if last[_cell(record)]["status"] == "ok"]
        titles |= {model: title for model, title in about.get("models", {}).items() if model not in titles}
        for label in dict.fromkeys(record["corpus"] for record in last.values() if record["status"] == "ok"):
            if label in corpora:
                raise DataFormatError(f"{corpora[label].folder} and {folder} both have a corpus {label!r}; name one")
            own = [record for record in last.values() if record["corpus"] == label and record["status"] == "ok"]
            corpora[label] = _corpus_runs(label, folder, own, about)
        default = default or about.get("reference")
    models = {model for corpus in corpora.values() for model in corpus.runs}
    if not corpora:
        raise DataFormatError(f"{', '.join(map(str, folders))}: no run has finished; results.jsonl says why")
    if reference is not None and reference not in models:
        raise ConfigurationError(f"--reference {reference}: {nearest(reference, models)}")
    reference = reference or (default if default in models else None)
    titles |= {model: model for model in models if model not in titles}
    return Study([Path(folder) for folder in folders], titles, corpora, failures, repeated, reference)


def _cell(record: Record) -> tuple[str, str, int]:
    return record["corpus"], record["model"], record["seed"]


def _about(folder: Path) -> dict[str, Any]:
    path = folder / SUITE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _corpus_runs(label: str, folder: Path, records: Sequence[Record], about: Mapping[str, Any]) -> CorpusRuns:
    order = list(about.get("models", {}))
    runs: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda one: order.index(one["model"]) if one["model"] in order else len(order)):
        runs.setdefault(record["model"], []).append(record)
    _refuse_mixed(folder, label, runs)
    if len({record["monitor"] for record in records}) > 1:
        named = ", ".join(sorted({f"{record['model']} by {record['monitor']}" for record in records}))
        raise DataFormatError(f"{folder}: epochs on {label} were selected by different metrics ({named}); use one")
    return CorpusRuns(
        label,
        about.get("corpora", {}).get(label, label),
        about.get("notes", {}).get(label, ""),
        folder,
        {model: sorted(several, key=lambda one: one["seed"]) for model, several in runs.items()},
        records[0]["data_fingerprint"],
        get_corpus(records[0]["corpus_name"]),
    )


def _refuse_mixed(folder: Path, label: str, runs: Mapping[str, Sequence[Record]]) -> None:
    prints: dict[str, list[str]] = {}
    for model, several in runs.items():
        for run in several:
            prints.setdefault(run["data_fingerprint"], []).append(f"{model}/seed_{run['seed']}")
        hashes = {run["config_hash"] for run in several}
        if len(hashes) > 1:
            raise DataFormatError(
                f"{folder}: runs of {model} on {label} have different settings "
                f"({', '.join(sorted(one[:12] for one in hashes))}); run the suite again, which makes them alike"
            )
    if len(prints) > 1:
        named = "; ".join(f"{one[:12]}: {', '.join(cells[:4])}" for one, cells in prints.items())
        raise DataFormatError(f"{folder}: runs on {label} are of different data ({named}); they cannot share a table")


@dataclass(frozen=True)
class Comparison:
    """One metric on one corpus, with its uncertainty.

    Attributes:
        metric: Its name.
        intervals: Model -> 95 % interval of its mean.
        differences: Model -> 95 % interval of its mean less that of the reference; of all but the reference.
        p_values: The same models -> p-value.
        adjusted: After Holm's correction over these models.
        bound: Value of the best possible prediction, of a generated corpus.
    """

    metric: str
    intervals: Mapping[str, Interval]
    differences: Mapping[str, Interval] = field(default_factory=dict)
    p_values: Mapping[str, float] = field(default_factory=dict)
    adjusted: Mapping[str, float] = field(default_factory=dict)
    bound: float | None = None


def compare_models(
    runs: CorpusRuns, metric: str, reference: str | None, *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Intervals of a metric's means, and tests against a reference, by the bootstrap over samples and seeds."""
    score = score_of(runs.corpus, metric)
    predictions = runs.predictions()
    drawn: dict[str, Floats] = bootstrap(score, predictions, resamples=resamples, seed=seed)
    intervals = {model: interval(values) for model, values in drawn.items()}
    best = runs.bound()
    bound = None
    if best is not None:
        truth = next(iter(predictions.values()))[0]
        if list(best.ids) != list(truth.ids) or not np.array_equal(best.target.ravel(), truth.target.ravel()):
            raise DataFormatError(
                f"{runs.folder}: the bound of {runs.label} is of other samples; remove predictions/{runs.label}/"
                f"{BOUND}.npz and run the suite again"
            )
        bound = score(truth._replace(prediction=best.prediction), np.arange(len(truth.ids)))
    if reference not in drawn:
        return Comparison(metric, intervals, bound=bound)
    apart = {model: values - drawn[reference] for model, values in drawn.items() if model != reference}
    p_values = {model: two_sided(values) for model, values in apart.items()}
    differences = {model: interval(values) for model, values in apart.items()}
    return Comparison(metric, intervals, differences, p_values, holm(p_values), bound)
