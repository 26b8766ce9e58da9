"""What each modality contributes to a metric: Shapley values over all subsets of modalities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mfm.corpora import Corpus
from mfm.errors import ConfigurationError
from mfm.metrics.conventions import Definition

MOST_PLAYERS = 12
"""More modalities than this would need more than 4,096 passes over the data."""

Subset = frozenset[str]


def subsets(players: Sequence[str]) -> list[Subset]:
    """All subsets, the empty one first, by size and then by name.

    Raises:
        ConfigurationError: More than `MOST_PLAYERS` players.
    """
    if len(players) > MOST_PLAYERS:
        raise ConfigurationError(
            f"exact Shapley values of {len(players)} modalities need 2^{len(players)} passes over the data; "
            f"at most {MOST_PLAYERS} modalities are supported"
        )
    names = sorted(players)
    return [frozenset(one) for size in range(len(names) + 1) for one in itertools.combinations(names, size)]


def shapley_values(players: Sequence[str], value: Callable[[Subset], float]) -> dict[str, float]:
    """Exact Shapley values (Shapley 1953): a player's mean marginal value over all orders of joining.

        phi_i = sum_{S without i} |S|! (M - |S| - 1)! / M! (v(S + i) - v(S))

    They add up to v(all) - v(nobody).

    Args:
        players: M names.
        value: Worth of a subset; called once for each of the 2^M.

    Returns:
        Player -> value, sorted by name.

    Raises:
        ConfigurationError: More than `MOST_PLAYERS` players.

    >>> shapley_values(["a", "b"], lambda s: 3.0 * ("a" in s) + 1.0 * ("b" in s) + 2.0 * (len(s) == 2))
    {'a': 4.0, 'b': 2.0}
    """
    worth = {one: value(one) for one in subsets(players)}
    count = len(set(players))
    result = {}
    for name in sorted(set(players)):
        terms = [
            (worth[one | {name}] - worth[one]) / (count * math.comb(count - 1, len(one)))
            for one in worth
            if name not in one
        ]
        result[name] = math.fsum(terms)
    return result


@dataclass(frozen=True)
class Contribution:
    """Shapley values of modalities on a metric.

    Attributes:
        metric: Name of the metric.
        higher_is_better: Its direction.
        samples: Number of samples.
        scores: Subset -> the metric with only these modalities; of the empty one: with a constant prediction.
        shapley: Modality -> its share of the improvement from the constant prediction to all modalities, in the
            metric's units; positive is better, whatever the metric's direction.
        low: Modality -> lower end of the bootstrap interval over samples.
        high: Modality -> upper end.
        confidence: Coverage that the intervals aim at.
        resamples: Bootstrap draws.
    """

    metric: str
    higher_is_better: bool
    samples: int
    scores: dict[Subset, float]
    shapley: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    confidence: float
    resamples: int


def constant_prediction(corpus: Corpus, target: Tensor, mask: Tensor) -> Tensor:
    """The best prediction without any modality: the median, or the most frequent class, of known labels.

    Args:
        corpus: Task and classes.
        target: (N, K) or, for `multiclass`, (N,) labels, of the training split.
        mask: Same shape, False where the label is missing.

    Returns:
        (output_dim,) in the head's units: values, or logits that choose the class.

    Raises:
        ConfigurationError: A target without any label.
    """
    if not bool(mask.any(dim=0).all()):
        raise ConfigurationError(
            "a target has no label at all, so that there is no constant prediction to compare with"
        )
    if corpus.task == "multiclass":
        counts = torch.bincount(target[mask].long(), minlength=corpus.output_dim)
        return torch.nn.functional.one_hot(counts.argmax(), corpus.output_dim).double()
    known = target.double().masked_fill(~mask, torch.nan)
    if corpus.task == "regression":
        return known.nanquantile(0.5, dim=0)  # the median that minimises the absolute error, middle of an even number
    return torch.where(known.nanmean(dim=0) > 0.5, 1.0, -1.0).double()


def modality_contributions(
    predictions: Mapping[Subset, Tensor],
    target: Tensor,
    mask: Tensor,
    metric: str,
    definition: Definition,
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Contribution:
    """Share the improvement of a metric among modalities.

    Args:
        predictions: Subset -> (N, output_dim) predictions with only these modalities, for all subsets of the
            modalities, the empty one included.
        target: See `mfm.metrics`.
        mask: Same shape as `target`, False where the label is missing.
        metric: Name of the metric.
        definition: Its definition.
        resamples: Bootstrap draws of the samples, for intervals; the model is not trained anew, so they say
            nothing of other seeds.
        confidence: Coverage that the intervals aim at, in (0, 1).
        seed: Seed of the draws.

    Raises:
        ConfigurationError: The metric is not defined for one of the subsets, such as a correlation for a constant.
    """
    players = sorted(frozenset().union(*predictions))
    sign = 1.0 if definition.higher_is_better else -1.0
    known = {one: prediction.double() for one, prediction in predictions.items()}

    def score(one: Subset, index: Tensor | None = None) -> float:
        chosen = (known[one], target, mask)
        return float(definition.score(*(chosen if index is None else (part[index] for part in chosen))))

    scores = {one: score(one) for one in subsets(players)}
    for one, value in scores.items():
        if not math.isfinite(value):
            what = "+".join(sorted(one)) or "the constant prediction of no modality"
            raise ConfigurationError(
                f"metric {metric!r} is not defined for {what} on these {len(target)} samples; choose another metric, "
                "such as an error or an accuracy"
            )
    shapley = shapley_values(players, lambda one: sign * scores[one])
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(resamples):
        index = torch.randint(len(target), (len(target),), generator=generator)
        # a draw in which the metric is undefined says nothing of any modality
        values = shapley_values(players, lambda one, index=index: sign * score(one, index))  # type: ignore[misc]
        draws.append([values[name] for name in players])
    tail = (1.0 - confidence) / 2.0
    table = torch.tensor(draws, dtype=torch.float64).reshape(-1, len(players))
    ends = table.nanquantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64), dim=0) if resamples else None
    low, high = (
        {name: math.nan if ends is None else float(ends[end, column]) for column, name in enumerate(players)}
        for end in (0, 1)
    )
    return Contribution(
        metric, definition.higher_is_better, len(target), scores, shapley, low, high, confidence, resamples
    )
