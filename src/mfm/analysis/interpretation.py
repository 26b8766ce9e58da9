"""Interpret a trained model on a split: which factor feeds what, where, and what each modality is worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mfm.analysis.contribution import Contribution, modality_contributions
from mfm.analysis.gradient_flow import gradient_flow
from mfm.analysis.information import InformationRatio, information_ratio
from mfm.analysis.interpretation_outputs import Collected, Decode, Forward, SummaryOption, collect
from mfm.analysis.results import prediction_columns
from mfm.corpora import Corpus
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, DataFormatError, nearest
from mfm.losses.hsic import MINIMUM_SAMPLES, check_hsic_kernel
from mfm.metrics.conventions import definitions_for
from mfm.models.mfm import Factors


@dataclass(frozen=True)
class Options:
    """How to interpret; each number's range is checked where it is used.

    Attributes:
        kernel: `rbf` or `linear`.
        bandwidth: RBF bandwidth in multiples of the median distance.
        summary: Vector of a reconstruction: `mean` over real steps, `flatten`, or `auto`, which flattens where all
            samples have the same, few steps.
        samples: Most samples for the information ratios, drawn by `seed`; None for all.
        resamples: Bootstrap draws.
        permutations: Permutations behind a p-value.
        confidence: Coverage of intervals.
        flow_samples: Most samples that the mean gradient flow is of, drawn by `seed`.
        segments: Samples whose gradient flow is shown step by step.
        ids: Which samples to show; drawn by `seed` among the longer half where empty.
        metric: Metric to attribute; the one that selected the model by default.
        seed: Seed of all draws.
    """

    kernel: str = "rbf"
    bandwidth: float = 1.0
    summary: SummaryOption = "auto"
    samples: int | None = None
    resamples: int = 500
    permutations: int = 500
    confidence: float = 0.95
    flow_samples: int = 256
    segments: int = 4
    ids: tuple[str, ...] = ()
    metric: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Segment:
    """Gradient flow of one sample.

    Attributes:
        id: Its name.
        words: A word a step, where the file has them.
        flow: Modality -> (steps,) of its real steps.
        outcome: Name -> cell: what the model says and what the file says, as in the table of predictions.
    """

    id: str
    words: tuple[str, ...] | None
    flow: dict[str, list[float]]
    outcome: dict[str, str]


@dataclass(frozen=True)
class Interpretation:
    """Everything `interpret` finds.

    Attributes:
        samples: Samples in the split.
        information: Modality -> information ratio; modalities without enough samples are not among them.
        summary: Modality -> how its reconstructions became vectors.
        spread: Modality -> root of the mean variance of these vectors' entries, in standardised units: HSIC does not
            see how much a reconstruction varies, only with what.
        flow: Modality -> mean gradient flow of each step over the samples that have the step.
        flow_mean: Modality -> its mean over all real steps.
        flow_samples: Samples behind both.
        segments: A few samples, step by step.
        contribution: Shares of the metric; None where there is nothing to predict.
        notes: What was left out, and why.
    """

    samples: int
    information: dict[str, InformationRatio]
    summary: dict[str, str]
    spread: dict[str, float]
    flow: dict[str, list[float]]
    flow_mean: dict[str, float]
    flow_samples: int
    segments: list[Segment]
    contribution: Contribution | None
    notes: tuple[str, ...] = field(default=())


def interpret(
    forward: Forward,
    decode: Decode,
    batches: Iterable[AffectBatch],
    corpus: Corpus,
    *,
    constant: Tensor | None = None,
    texts: Sequence[str] | None = None,
    options: Options | None = None,
) -> Interpretation:
    """Interpret a model on a split.

    Args:
        forward: The model on a batch in the file's units, in evaluation mode.
        decode: Its decoders; reconstructions are decoded from the factors alone.
        batches: The split, once through.
        corpus: Task and metrics.
        constant: (output_dim,) prediction of the empty subset; None leaves contributions out.
        texts: Transcript of every sample.
        options: How.

    Raises:
        DataFormatError: Fewer samples than HSIC needs.
        ConfigurationError: An option that cannot be used, an unknown id, or a model without factors.
    """
    chosen = options or Options()
    if chosen.segments < 0:
        raise ConfigurationError(f"the number of segments is {chosen.segments}; it must be at least 0")
    check_hsic_kernel(chosen.kernel)  # at once, and not after minutes of passes over the data
    metric = _metric(corpus, chosen.metric) if constant is not None else ""
    found = collect(forward, decode, batches, chosen.summary, every_subset=constant is not None)
    information, notes = _information(found, chosen)
    sample = _draw(len(found.ids), chosen.flow_samples, chosen.seed)
    flow = {name: _flow(decode, found, name, sample) for name in found.rebuilt}
    contribution = None
    if constant is None:
        notes.append("Contributions to a metric are left out: there is no prediction or no label to score it with.")
    else:
        contribution = _contribution(found, corpus, constant, metric, chosen)
    return Interpretation(
        samples=len(found.ids),
        information=information,
        summary=found.summary,
        spread={
            name: float(one.double().var(dim=0, correction=0).mean().sqrt()) for name, one in found.rebuilt.items()
        },
        flow={name: _finite(one.nanmean(dim=0)) for name, one in flow.items()},
        flow_mean={name: float(one.nanmean()) for name, one in flow.items()},
        flow_samples=len(sample),
        segments=_segments(decode, found, corpus, texts, chosen),
        contribution=contribution,
        notes=tuple(notes),
    )


def _draw(count: int, most: int | None, seed: int) -> Tensor:
    """Indices of at most so many of `count` samples, sorted."""
    if most is not None and most < 1:
        raise ConfigurationError(f"the number of samples is {most}; it must be at least 1")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: count if most is None else most].sort().values


def _information(found: Collected, options: Options) -> tuple[dict[str, InformationRatio], list[str]]:
    information: dict[str, InformationRatio] = {}
    notes: list[str] = []
    for name, lengths in found.lengths.items():
        there = (lengths > 0).nonzero()[:, 0]
        if len(there) < MINIMUM_SAMPLES:
            notes.append(
                f"No information ratio for {name}: {len(there)} samples have it, and HSIC needs {MINIMUM_SAMPLES}."
            )
            continue
        drawn = _draw(len(there), options.samples, options.seed)
        kept = there[drawn]
        information[name] = information_ratio(
            found.f_y[kept],
            found.f[name][kept],
            found.rebuilt[name][drawn],
            kernel=options.kernel,
            bandwidth=options.bandwidth,
            resamples=options.resamples,
            permutations=options.permutations,
            confidence=options.confidence,
            # a subset that was asked for is permuted as a whole, as long as that takes less than minutes
            dense=max(1000, min(options.samples or 0, 2000)),
            seed=options.seed,
        )
    if not information:
        counts = ", ".join(f"{name} {int((lengths > 0).sum())}" for name, lengths in found.lengths.items())
        raise DataFormatError(
            f"HSIC needs at least {MINIMUM_SAMPLES} samples that have a modality, and there are: {counts}; "
            "take a larger split"
        )
    return information, notes


def _flow(decode: Decode, found: Collected, name: str, index: Tensor) -> Tensor:
    """Gradient flow of some samples, (n, T), NaN where there is no step."""
    lengths = found.lengths[name][index]
    steps = int(lengths.max()) if len(lengths) else 0
    if not steps:
        return torch.full((max(len(index), 1), 1), math.nan)
    return gradient_flow(
        lambda y, i: decode(Factors(y, {name: i}), {name: steps})[name],
        found.f_y[index],
        found.f[name][index],
        lengths,
    )


def _segments(
    decode: Decode, found: Collected, corpus: Corpus, texts: Sequence[str] | None, options: Options
) -> list[Segment]:
    if options.ids:
        for name in options.ids:
            if name not in found.ids:
                raise ConfigurationError(
                    f"no sample is called {name!r} among the {len(found.ids):,} of the split; "
                    f"{nearest(name, found.ids).partition('Known:')[0] or f'the first is {found.ids[0]!r}'}".rstrip()
                )
        chosen = [found.ids.index(name) for name in options.ids]
    else:
        steps = torch.stack(list(found.lengths.values())).amax(dim=0)
        long = (steps >= steps.median()).nonzero()[:, 0]  # one step alone shows nothing
        order = torch.randperm(len(long), generator=torch.Generator().manual_seed(options.seed + 1))
        chosen = long[order[: options.segments]].tolist()
    words = words_of_steps(texts, list(found.lengths.values()))
    flows = {name: _flow(decode, found, name, torch.tensor(chosen)) for name in found.rebuilt} if chosen else {}
    everything = found.predictions[frozenset(found.lengths)]
    outcome = prediction_columns(corpus, everything[chosen], found.target[chosen], found.mask[chosen])
    return [
        Segment(
            id=found.ids[index],
            words=words[index] if words else None,
            flow={
                name: flow[place, : int(found.lengths[name][index])].tolist()
                for name, flow in flows.items()
                if found.lengths[name][index] > 0
            },
            outcome={name: column[place] for name, column in outcome.items()},
        )
        for place, index in enumerate(chosen)
    ]


def words_of_steps(texts: Sequence[str] | None, lengths: Sequence[Tensor]) -> list[tuple[str, ...] | None] | None:
    """The words of each sample where a step is a word.

    A step counts as a word only where at least half of all samples have as many words as steps: in a file whose steps
    are utterances or word pieces, some samples have as many by chance.

    Args:
        texts: Transcript of every sample.
        lengths: (N,) real steps, of each modality.

    Returns:
        For each sample its words, None where their number is another; None where steps are no words.
    """
    if texts is None:
        return None
    steps = torch.stack(list(lengths)).amax(dim=0).tolist()
    words = [tuple(text.split()) for text in texts]
    fitting = [len(one) == count for one, count in zip(words, steps, strict=True)]
    if 2 * sum(fitting) < len(fitting):
        return None
    return [one if fits else None for one, fits in zip(words, fitting, strict=True)]


def _metric(corpus: Corpus, name: str | None) -> str:
    """The metric to attribute: the one asked for, or the one that selects models."""
    definitions = definitions_for(corpus)
    metric = name or corpus.monitor.removeprefix("val/")
    if metric not in definitions:
        raise ConfigurationError(f"corpus {corpus.name!r} has no metric {metric!r}: {nearest(metric, definitions)}")
    return metric


def _contribution(found: Collected, corpus: Corpus, constant: Tensor, metric: str, options: Options) -> Contribution:
    there = {name for name, lengths in found.lengths.items() if bool((lengths > 0).any())}
    nobody = constant.float().expand(len(found.ids), -1)
    predictions = {one: values for one, values in found.predictions.items() if one <= there}
    return modality_contributions(
        {frozenset(): nobody, **predictions},
        found.target,
        found.mask,
        metric,
        definitions_for(corpus)[metric],
        resamples=min(options.resamples, 200),  # 2^M metrics a draw
        confidence=options.confidence,
        seed=options.seed,
    )


def _finite(values: Tensor) -> list[float]:
    return [float(value) for value in values if bool(value.isfinite())]
