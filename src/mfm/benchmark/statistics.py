"""How sure a difference is: the bootstrap over test samples and seeds, Holm's correction, ranks.

A run's score depends on which samples are in the test split and on its seed. Both are resampled (Efron and Tibshirani,
"An Introduction to the Bootstrap", 1993): a draw takes N test samples with replacement, the same for all models, and
for every model as many of its seeds as it has, with replacement, each model for itself, since seed 1 of two models has
nothing in common. A model's value is its mean over the drawn seeds. Intervals are percentiles.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfm.benchmark.predictions import Predicted
from mfm.corpora import Corpus

Floats = NDArray[np.float64]
Score = Callable[[Predicted, NDArray[np.int64]], float]
"""Value of a metric on the samples with these indices."""


class Interval(NamedTuple):
    """Bounds of a central share of the bootstrap's values."""

    low: float
    high: float


def score_of(corpus: Corpus, metric: str) -> Score:
    """A metric of a corpus as a function of predictions and drawn samples; loads torch."""
    import torch

    from mfm.metrics.conventions import definitions_for

    score = definitions_for(corpus)[metric].score

    def value(predicted: Predicted, samples: NDArray[np.int64]) -> float:
        parts = (predicted.prediction, predicted.target, predicted.mask)
        return float(score(*(torch.from_numpy(part[samples]) for part in parts)))

    return value


def bootstrap(
    score: Score, models: Mapping[str, Sequence[Predicted]], *, resamples: int, seed: int
) -> dict[str, Floats]:
    """Draw values of a metric for every model.

    Args:
        score: The metric.
        models: Model -> predictions of its runs, one a seed, all of the same samples.
        resamples: Number of draws B.
        seed: Seed of the draws. A model's draws depend on its name and not on which others there are.

    Returns:
        Model -> (B,) values; draw b is of the same samples for all models.
    """
    count = len(next(iter(models.values()))[0].prediction)
    samples = np.random.default_rng(seed).integers(count, size=(resamples, count))
    values = {}
    for model, runs in models.items():
        generator = np.random.default_rng([seed, zlib.crc32(model.encode())])
        seeds = generator.integers(len(runs), size=(resamples, len(runs)))
        scores = np.array([[score(run, drawn) for run in runs] for drawn in samples])
        values[model] = np.take_along_axis(scores, seeds, axis=1).mean(axis=1)
    return values


def interval(values: Floats, level: float = 0.95) -> Interval:
    """Percentile interval; draws in which a metric is undefined are left out."""
    tail = (1.0 - level) / 2.0
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def two_sided(differences: Floats) -> float:
    """p-value of "no difference" from bootstrapped differences: twice the smaller tail beyond zero, at least 2/(B + 1).

    The tail counts the observation itself, so that no p-value is zero (Davison and Hinkley, "Bootstrap Methods and
    their Application", 1997, section 4.2).
    """
    known = differences[np.isfinite(differences)]
    tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2.0 * (tail + 1) / (len(known) + 1))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm, Scandinavian Journal of Statistics 6, 1979): family-wise error under any dependence.

    The i-th smallest of m is multiplied by m - i + 1, and none is smaller than its predecessor.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted, largest = {}, 0.0
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def losses_of(values: Mapping[str, float], *, higher_is_better: bool) -> dict[str, float]:
    """Values as losses, small is good; an undefined one is infinitely bad."""
    sign = -1.0 if higher_is_better else 1.0
    return {name: math.inf if math.isnan(value) else sign * value for name, value in values.items()}


def ranks(values: Mapping[str, float], *, higher_is_better: bool) -> dict[str, float]:
    """Rank of each model, 1 for the best; equal values share the mean of their ranks, undefined ones the last.

    >>> ranks({"a": 0.9, "b": 0.8, "c": 0.9}, higher_is_better=True)
    {'a': 1.5, 'b': 3.0, 'c': 1.5}
    """
    losses = losses_of(values, higher_is_better=higher_is_better)
    found = {}
    for name, loss in losses.items():
        better = sum(other < loss for other in losses.values())
        equal = sum(other == loss for other in losses.values())
        found[name] = better + (equal + 1) / 2
    return found
