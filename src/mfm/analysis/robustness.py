"""How a model's metrics fall when input is missing or damaged."""

from __future__ import annotations

import csv
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfm.analysis.corruption import add_noise, drop_span, drop_steps, fill_absent, only
from mfm.data.batch import AffectBatch, draw_absent
from mfm.errors import ConfigurationError, nearest
from mfm.files import whole_file
from mfm.metrics.conventions import Definition
from mfm.metrics.functional import UndefinedMetricWarning
from mfm.models.subsets import Subset, all_subsets, subset_name

PROTOCOLS = ("subsets", "random", "spans", "steps", "noise")
"""What is done to the input:

* `subsets`: every non-empty subset of modalities is observed; level: share of modalities that are missing.
* `random`: each sample loses modalities at random and keeps at least one; level: the rate.
* `spans`: a span of consecutive steps is lost; level: its share of the sequence.
* `steps`: single steps are lost; level: the rate.
* `noise`: white noise is added; level: signal-to-noise ratio in decibels.

All but `subsets` hit each modality alone, and all jointly.
"""
RATES = tuple(rate / 10 for rate in range(10))
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
DECIBELS = (30.0, 20.0, 10.0, 5.0, 0.0, -5.0, -10.0)

Predict = Callable[[AffectBatch], Tensor]


class Method(NamedTuple):
    """A way of predicting from incomplete input.

    Attributes:
        predict: Batch in the file's units -> (B, output_dim), each sample from its own input alone.
        fill: What is put in place of absent modalities, which are then called observed; None leaves them absent.
        lost: What stands in a lost step; NaN is the training mean to a model that standardises.
        model: Which model predicts; methods of one model do the same where no modality is absent.
    """

    predict: Predict
    fill: float | None = None
    lost: float = math.nan
    model: str = ""


class Row(NamedTuple):
    """One evaluation.

    Attributes:
        protocol: Name in `PROTOCOLS`.
        observed: The modalities that were left untouched, sorted.
        level: See `PROTOCOLS`.
        draw: Number of the draw, from 0.
        method: Name of the method.
        metrics: Metric -> value.
    """

    protocol: str
    observed: Subset
    level: float
    draw: int
    method: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """A value over draws: its mean and the central 95% of the draws (their whole spread where they are few).

    Attributes:
        mean: Mean; NaN where a metric is undefined in every draw.
        low: 2.5% quantile.
        high: 97.5% quantile.
        draws: Number of draws.
    """

    mean: float
    low: float
    high: float
    draws: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise draws; those in which the metric is undefined say nothing."""
        known = torch.tensor([value for value in values if math.isfinite(value)], dtype=torch.float64)
        if not len(known):
            return cls(math.nan, math.nan, math.nan, len(values))
        low, high = known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return cls(float(known.mean()), low, high, len(values))


class RobustnessStudy:
    """Evaluates methods on batches that are read once.

    A sample's prediction depends on its own input alone. So whichever modalities samples lose at random, each has the
    prediction of one of the subsets: `random` needs no pass over the data beyond those of `subsets`.

    Args:
        batches: All batches of a split.
        methods: Name -> method.
        definitions: Metric -> definition.
        std: Modality -> (D_m,) deviation in the training split, in the file's units, for `noise`.
        constant: (output_dim,) prediction that needs no input, as a reference; None for none.

    Raises:
        ConfigurationError: No sample has a label, or none has any modality.
    """

    def __init__(
        self,
        batches: Iterable[AffectBatch],
        methods: Mapping[str, Method],
        definitions: Mapping[str, Definition],
        std: Mapping[str, Tensor],
        constant: Tensor | None = None,
    ) -> None:
        self.batches = list(batches)
        self.methods = dict(methods)
        self.definitions = dict(definitions)
        self.std = dict(std)
        self.constant = constant
        if not self.batches or not any(bool(batch.target_mask.any()) for batch in self.batches):
            raise ConfigurationError("no sample has a label to score predictions with; give a file with labels")
        self.target = torch.cat([batch.target.cpu() for batch in self.batches])
        self.mask = torch.cat([batch.target_mask.cpu() for batch in self.batches])
        self.modalities = [
            name
            for name in sorted(self.batches[0].features)
            if any(bool((batch.present[name] & (batch.lengths[name] > 0)).any()) for batch in self.batches)
        ]
        if not self.modalities:
            raise ConfigurationError("no sample has any modality; there is nothing to infer from")
        self._by_subset: dict[tuple[str, Subset], Tensor] = {}

    def run(
        self,
        protocols: Sequence[str] = PROTOCOLS,
        *,
        subsets: Sequence[Subset] | None = None,
        draws: int = 5,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> list[Row]:
        """Evaluate all methods.

        Args:
            protocols: Names in `PROTOCOLS`.
            subsets: Subsets for the protocol `subsets`; all by default.
            draws: Draws of everything random, >= 1.
            seed: Seed of the draws; each draw shares its random numbers among levels, modalities and methods.
            progress: Called with the name of each protocol before it begins.

        Returns:
            One row an evaluation, in the order of the protocols.

        Raises:
            ConfigurationError: An unknown protocol, no draw, or a subset that no sample has anything of.
        """
        for name in protocols:
            if name not in PROTOCOLS:
                raise ConfigurationError(f"unknown protocol {name!r}: {nearest(name, PROTOCOLS)}")
        if draws < 1:
            raise ConfigurationError(f"the number of draws is {draws}, but must be at least 1")
        for subset in subsets or ():
            if not set(subset) & set(self.modalities):
                raise ConfigurationError(
                    f"subset {subset_name(subset)!r} leaves nothing observed: these samples have "
                    f"{' and '.join(self.modalities)} only"
                )
        rows: list[Row] = []
        for name in protocols:
            if progress is not None:
                progress(name)
            rows += self._subsets(subsets) if name == "subsets" else self._drawn(name, draws, seed)
        return rows

    def predictions(self, method: str, subset: Subset) -> Tensor:
        """(N, output_dim) with only the modalities of a subset observed; computed once."""
        key = (method, subset)
        if key not in self._by_subset:
            how = self.methods[method]
            self._by_subset[key] = self._predict(how, (fill(only(batch, subset), how.fill) for batch in self.batches))
        return self._by_subset[key]

    def score(self, prediction: Tensor) -> dict[str, float]:
        """Every metric of (N, output_dim) predictions; NaN where it is undefined."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # a constant has no correlation, and NaN says so
            return {
                name: float(definition.score(prediction.double(), self.target, self.mask))
                for name, definition in self.definitions.items()
            }

    # -------------------------------------------------------------------------------------------------- protocols
    def _subsets(self, subsets: Sequence[Subset] | None) -> Iterator[Row]:
        total = len(self.modalities)
        for subset in subsets if subsets is not None else all_subsets(self.modalities):
            missing = 1 - len(set(subset) & set(self.modalities)) / total
            for method in self.methods:
                yield Row("subsets", subset, missing, 0, method, self.score(self.predictions(method, subset)))
        if self.constant is not None:
            prediction = self.constant[None].expand(len(self.target), -1)
            yield Row("subsets", (), 1.0, 0, "constant", self.score(prediction))

    def _drawn(self, protocol: str, draws: int, seed: int) -> Iterator[Row]:
        """Each modality alone, then all jointly, over levels, draws and methods."""
        hits: list[Subset] = [(name,) for name in self.modalities]
        if len(self.modalities) > 1:
            hits.append(tuple(self.modalities))
        levels = {"random": RATES, "noise": DECIBELS}.get(protocol, SHARES)
        for hit in hits:
            observed = tuple(name for name in self.modalities if name not in hit)
            for level in levels:
                for draw in range(draws):
                    # a level's damage is the next one's and more: all start from the same state
                    state = seed * 1_000_003 + PROTOCOLS.index(protocol) * 10_007 + draw
                    for method, how in self._distinct(protocol):
                        generator = torch.Generator().manual_seed(state)
                        prediction = self._damaged(protocol, method, how, hit, level, generator)
                        yield Row(protocol, observed, level, draw, method, self.score(prediction))

    def _distinct(self, protocol: str) -> list[tuple[str, Method]]:
        """Methods that differ: where no modality is absent, only a model and what stands in lost steps can."""
        if protocol == "random":
            return list(self.methods.items())
        distinct: dict[tuple[str, str], tuple[str, Method]] = {}
        for name, how in self.methods.items():
            distinct.setdefault((how.model, "" if protocol == "noise" else repr(how.lost)), (name, how))
        return list(distinct.values())

    def _damaged(
        self, protocol: str, method: str, how: Method, hit: Subset, level: float, generator: torch.Generator
    ) -> Tensor:
        if protocol == "random":
            return self._randomly_absent(method, dict.fromkeys(hit, level), generator)
        if not level and protocol != "noise":
            return self.predictions(method, tuple(self.modalities))
        damaged = (self._damage(protocol, batch, how, hit, level, generator) for batch in self.batches)
        return self._predict(how, (fill(batch, how.fill) for batch in damaged))

    def _damage(
        self, protocol: str, batch: AffectBatch, how: Method, hit: Subset, level: float, generator: torch.Generator
    ) -> AffectBatch:
        if protocol == "noise":
            return add_noise(batch, level, self.std, hit, generator)
        drop = drop_span if protocol == "spans" else drop_steps
        return drop(batch, level, hit, generator, value=how.lost)

    def _randomly_absent(self, method: str, rates: Mapping[str, float], generator: torch.Generator) -> Tensor:
        kept = []
        for batch in self.batches:
            here = {name: (batch.present[name] & (batch.lengths[name] > 0)).cpu() for name in self.modalities}
            features = {name: batch.features[name] for name in self.modalities}
            gone = draw_absent(batch._replace(features=features, present=here), rates, generator)
            kept.append(torch.stack([here[name] & ~gone[name] for name in self.modalities], dim=1))
        pattern = torch.cat(kept)
        code = pattern.long() @ (2 ** torch.arange(len(self.modalities)))
        prediction = self.predictions(method, tuple(self.modalities)).clone()
        for one in set(code.tolist()) - {0}:  # 0: a sample that never had anything
            rows = code == one
            there = pattern[rows][0].tolist()
            subset = tuple(name for name, flag in zip(self.modalities, there, strict=True) if flag)
            prediction[rows] = self.predictions(method, subset)[rows]
        return prediction

    @staticmethod
    def _predict(how: Method, batches: Iterable[AffectBatch]) -> Tensor:
        with torch.inference_mode():
            return torch.cat([how.predict(batch).float().cpu() for batch in batches])


def fill(batch: AffectBatch, value: float | None) -> AffectBatch:
    """`corruption.fill_absent`, or the batch as it is where there is no value."""
    return batch if value is None else fill_absent(batch, value)


def summarise(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Curves with intervals: for each protocol, modalities observed, level and method, every metric over draws."""
    groups: dict[tuple[str, Subset, float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.protocol, row.observed, row.level, row.method), []).append(row)
    return [
        {
            "protocol": protocol,
            "observed": list(observed),
            "level": level,
            "method": method,
            "metrics": {name: Summary.of([row.metrics[name] for row in group]) for name in group[0].metrics},
        }
        for (protocol, observed, level, method), group in groups.items()
    ]


def areas(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Area under each curve over levels, divided by the range of levels: the mean height, in the metric's units.

    For `subsets` the curve runs over the share of missing modalities, through the mean of the subsets of each size.
    """
    groups: dict[tuple[str, Subset | None, str], list[Row]] = {}
    for row in rows:
        if row.method != "constant":
            observed = None if row.protocol == "subsets" else row.observed
            groups.setdefault((row.protocol, observed, row.method), []).append(row)
    return [
        {
            "protocol": protocol,
            "observed": None if observed is None else list(observed),
            "method": method,
            "metrics": {
                name: Summary.of([_area(group, draw, name) for draw in sorted({row.draw for row in group})])
                for name in group[0].metrics
            },
        }
        for (protocol, observed, method), group in groups.items()
    ]


def _area(rows: Sequence[Row], draw: int, metric: str) -> float:
    """Trapezoids, divided by the range of levels."""
    heights: dict[float, list[float]] = {}
    for row in rows:
        if row.draw == draw:
            heights.setdefault(row.level, []).append(row.metrics[metric])
    points = sorted((level, sum(values) / len(values)) for level, values in heights.items())
    if len(points) == 1:
        return points[0][1]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    return area / (points[-1][0] - points[0][0])


def write_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Write `protocol, observed, level, draw, method` and the metrics as CSV, whole or not at all."""
    metrics = list(rows[0].metrics) if rows else []
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["protocol", "observed", "level", "draw", "method", *metrics])
        for row in rows:
            values = [f"{row.metrics[name]:.7g}" for name in metrics]
            place = [row.protocol, subset_name(row.observed), f"{row.level:.7g}", row.draw, row.method]
            writer.writerow([*place, *values])
