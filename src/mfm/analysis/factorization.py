"""Do the factors separate? Scores of what each block of codes or factors tells.

A block is `y` (shared, discriminative: Z_y or F_y) or a modality (its own, generative: Z_ai or F_ai). Where the true
factors are known (`mfm.data.factor_world`), each should be read from its own block and from no other. On real corpora,
where nobody knows them, `leakage` asks for what is known: the label, which no modality's block should tell, and the
video, which the shared block should not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mfm.analysis.probes import PROBES, Array, choose_probe, fold_numbers, held_out, r2
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, DataFormatError
from mfm.models.mfm import MFMOutput

SHARED = "y"
"""Name of the shared block, and of the label factor that belongs into it."""

FEWEST = 20
"""Below this number of samples, a probe's R^2 says nothing."""

Mask = NDArray[np.bool_]
_NEIGHBOUR_ROWS = 512  # distances held at once


@dataclass(frozen=True, eq=False)
class Blocks:
    """What a model makes of N samples.

    Attributes:
        ids: N names.
        codes: Block -> (N, z) codes Z.
        factors: Block -> (N, f) factors F.
        present: Modality -> (N,) whether it was observed.
        target: (N, K) or, for classes, (N,) labels.
        mask: Same shape, False where the label is missing.
    """

    ids: tuple[str, ...]
    codes: dict[str, Array]
    factors: dict[str, Array]
    present: dict[str, Mask]
    target: Array
    mask: Mask


@torch.no_grad()
def collect_blocks(forward: Callable[[AffectBatch], MFMOutput], batches: Iterable[AffectBatch]) -> Blocks:
    """Run a model over a split.

    Args:
        forward: The model on a batch in the file's units, in evaluation mode.
        batches: The split, once through.

    Raises:
        DataFormatError: No batch.
    """
    seen = [(batch, forward(batch)) for batch in batches]
    if not seen:
        raise DataFormatError("there is no sample to look at; choose a split that has some")
    names = sorted(seen[0][1].codes.z)

    def joined(parts: list[torch.Tensor]) -> Array:
        return torch.cat(parts).double().cpu().numpy()

    return Blocks(
        ids=tuple(name for batch, _ in seen for name in batch.ids),
        codes={SHARED: joined([out.codes.z_y for _, out in seen])}
        | {name: joined([out.codes.z[name] for _, out in seen]) for name in names},
        factors={SHARED: joined([out.factors.f_y for _, out in seen])}
        | {name: joined([out.factors.f[name] for _, out in seen]) for name in names},
        present={name: torch.cat([_present(batch, name) for batch, _ in seen]).cpu().numpy() for name in names},
        target=joined([batch.target for batch, _ in seen]),
        mask=torch.cat([batch.target_mask for batch, _ in seen]).cpu().numpy(),
    )


def _present(batch: AffectBatch, name: str) -> torch.Tensor:
    if name in batch.present:
        return batch.present[name] & (batch.lengths[name] > 0)
    return torch.zeros(len(batch.ids), dtype=torch.bool)


# -------------------------------------------------------------------------------------------------- known factors
@dataclass(frozen=True)
class Separation:
    """R^2 of every true factor from every block, by one probe.

    Attributes:
        probe: Name of the probe.
        r2: Block -> factor -> R^2, the mean over the factor's dimensions; NaN where too few samples have both.
    """

    probe: str
    r2: Mapping[str, Mapping[str, float]]

    @property
    def modalities(self) -> list[str]:
        """Modalities, sorted."""
        return sorted(name for name in self.r2 if name != SHARED)

    def summary(self) -> dict[str, float]:
        """The table in five numbers, each at its worst modality.

        Returns:
            `label` from the shared block; `label_leak`, the label factor from the modality's block that tells most;
            `private`, private factors from their own block; `private_leak`, from the shared block; and `separation`.
        """
        own = [self.r2[name][name] for name in self.modalities]
        return {
            "label": self.r2[SHARED][SHARED],
            "label_leak": _worst(max, [self.r2[name][SHARED] for name in self.modalities]),
            "private": _worst(min, own),
            "private_leak": _worst(max, [self.r2[SHARED][name] for name in self.modalities]),
            "separation": self.separation(),
        }

    def separation(self) -> float:
        """Mean over factors of R^2 from the own block less the best from any other; 1 is perfect, below 0 is wrong.

        The SAP score (Kumar, Sattigeri, Balakrishnan, ICLR 2018) for blocks instead of single dimensions, with the
        block that a factor should be in, not the best one, in the first place. R^2 below 0 count as 0.
        """
        gaps = []
        for factor in self.r2[SHARED]:
            others = [max(scores[factor], 0.0) for block, scores in self.r2.items() if block != factor]
            gaps.append(max(self.r2[factor][factor], 0.0) - _worst(max, others))
        return float(np.mean(gaps))


def _worst(choose: Callable[[list[float]], float], values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return choose(known) if known else float("nan")


def separation(
    blocks: Mapping[str, Array],
    factors: Mapping[str, Array],
    *,
    probe: str,
    present: Mapping[str, Mask] | None = None,
    train: Mask | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Separation:
    """Read every true factor from every block, on held-out samples.

    A modality's factors and block count on the samples that have the modality.

    Args:
        blocks: Block -> (N, d), `y` and each modality.
        factors: Block that it belongs into -> (N, k) true factor.
        probe: Name in `mfm.analysis.probes.PROBES`.
        present: Modality -> (N,) whether it was observed; always by default.
        train: (N,) samples that probes are fitted on; the others are read. Without, all are cross-validated.
        folds: Parts of the cross-validation.
        seed: Seed of probes and parts.

    Raises:
        ConfigurationError: Unknown probe, or blocks and factors of different names.
    """
    if set(blocks) != set(factors) or SHARED not in blocks:
        raise ConfigurationError(
            f"blocks are {', '.join(sorted(blocks))} and true factors {', '.join(sorted(factors))}; both need "
            f"{SHARED!r} and the same modalities"
        )
    choose_probe(probe)
    everywhere = np.ones(len(blocks[SHARED]), dtype=np.bool_)
    there = {name: (present or {}).get(name, everywhere) for name in blocks}
    table: dict[str, dict[str, float]] = {}
    for block in _ordered(blocks):
        table[block] = {}
        for factor in _ordered(factors):
            rows = there[block] & there[factor]
            fitted = None if train is None else train[rows]
            scores = _read(blocks[block][rows], factors[factor][rows], probe, fitted, folds, seed)
            table[block][factor] = float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
    return Separation(probe, table)


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != SHARED, name))


def _read(
    x: Array, y: Array, probe: str, train: Mask | None, folds: int, seed: int, groups: Sequence[object] | None = None
) -> Array:
    """R^2 of each output, NaN where there are too few samples."""
    count = len(x) if train is None else int(min(train.sum(), (~train).sum()))
    if count < FEWEST or not y.shape[1]:
        return np.full(max(y.shape[1], 1), np.nan)
    if train is None:
        return r2(y, held_out(x, y, probe, folds=folds, groups=groups, seed=seed))
    return r2(y[~train], choose_probe(probe)(x[train], y[train], x[~train], seed))


# -------------------------------------------------------------------------------------------------- swapped factors
def choose_swaps(label_factor: Array, *, gap: float = 0.5, seed: int = 0) -> NDArray[np.int64]:
    """Pair every sample with another whose label factor differs by at least `gap`, where one is found.

    Args:
        label_factor: (N,) or (N, 1).
        gap: Least difference.
        seed: Seed of the pairs.

    Returns:
        (P, 2) indices: content, style; P <= N.
    """
    s = np.reshape(label_factor, -1)
    generator = np.random.default_rng(seed)
    pairs = np.stack([np.arange(len(s)), generator.permutation(len(s))], axis=1)
    chosen: NDArray[np.int64] = pairs[np.abs(s[pairs[:, 0]] - s[pairs[:, 1]]) >= gap]
    return chosen


def swaps_right(generated: Array, intended: Array, others: Sequence[Array]) -> Mask:
    """Which exchanges of factors did what they should, by an oracle that knows the generator.

    Decoded from the shared block of one sample (content) and the own block of another (style), a sequence is right
    where, of what the generator makes of all four combinations of content and style, it is nearest to the intended one.
    Combinations that look alike, as in a modality without evidence, are no mistake.

    Args:
        generated: (P, T, D) what the model decodes, in the generator's units.
        intended: (P, T, D) what the generator makes of the intended combination.
        others: The same for the other combinations.

    Returns:
        (P,) bool.
    """
    distance = _apart(generated, intended)
    right: Mask = np.ones(len(generated), dtype=np.bool_)
    for other in others:
        right &= distance <= _apart(generated, other)
    return right


def _apart(a: Array, b: Array) -> Array:
    squared: Array = ((a - b) ** 2).reshape(len(a), -1).sum(axis=1)
    return squared


# ---------------------------------------------------------------------------------------------------- real corpora
@dataclass(frozen=True)
class Leakage:
    """What blocks tell on a corpus whose factors nobody knows.

    Attributes:
        label: Probe -> block -> R^2 of the label (of the one-hot classes), mean over targets; high from `y`, low from
            each modality where factors separate.
        video: Block -> share of samples whose nearest neighbour in the block is from the same video. The shared block
            should be near chance; labels that are alike within a video raise it without any leak.
        video_chance: The same share for a neighbour drawn at random; NaN where no video has two samples.
    """

    label: dict[str, dict[str, float]]
    video: dict[str, float]
    video_chance: float


def leakage(
    blocks: Mapping[str, Array],
    target: Array,
    mask: Mask,
    videos: Sequence[str],
    *,
    present: Mapping[str, Mask] | None = None,
    probes: Sequence[str] = tuple(PROBES),
    folds: int = 5,
    seed: int = 0,
) -> Leakage:
    """Score leaks on held-out samples of a real corpus; probes never see a video that they are asked about.

    Args:
        blocks: Block -> (N, d).
        target: (N, K) labels, or (N,) classes.
        mask: Same shape, False where the label is missing.
        videos: N names of the videos, see `mfm.data.inspect.video_of`.
        present: Modality -> (N,) whether it was observed; always by default.
        probes: Names in `mfm.analysis.probes.PROBES`.
        folds: Parts of the cross-validation.
        seed: Seed of probes and parts.

    Raises:
        ConfigurationError: Unknown probe, or fewer videos than parts.
    """
    classes = target.ndim == 1
    numbers = np.where(mask, target, 0.0)
    values = np.eye(int(numbers.max(initial=0)) + 1)[numbers.astype(np.int64)] if classes else target
    known = np.repeat(mask[:, None], values.shape[1], axis=1) if classes else mask
    names = np.asarray(videos, dtype=object)
    everywhere = np.ones(len(names), dtype=np.bool_)
    label: dict[str, dict[str, float]] = {probe: {} for probe in probes}
    video: dict[str, float] = {}
    for block in _ordered(blocks):
        there = (present or {}).get(block, everywhere)
        video[block] = same_group(blocks[block][there], list(names[there]))
        for probe in probes:
            scores = []
            for column in range(values.shape[1]):
                rows = there & known[:, column]
                outputs = values[rows, column : column + 1]
                scores.append(_read(blocks[block][rows], outputs, probe, None, folds, seed, list(names[rows]))[0])
            finite = [one for one in scores if np.isfinite(one)]
            label[probe][block] = float(np.mean(finite)) if finite else float("nan")
    counts = {name: list(names).count(name) for name in dict.fromkeys(names)}
    asked = [counts[name] for name in names if counts[name] > 1]
    chance = float(np.mean([(count - 1) / (len(names) - 1) for count in asked])) if asked else float("nan")
    return Leakage(label, video, chance)


def same_group(x: Array, groups: Sequence[str]) -> float:
    """Share of samples whose nearest neighbour (dimensions standardised) is of their own group.

    Args:
        x: (N, d).
        groups: N names; samples alone in theirs are not asked, but may be found.

    Returns:
        [0, 1]; NaN where no group has two samples. Of neighbours equally near, the share of the own group counts.
    """
    index = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    label = np.array([index[group] for group in groups], dtype=np.int64)
    asked = np.flatnonzero(np.bincount(label, minlength=1)[label] > 1) if len(label) else label
    if not len(asked):
        return float("nan")
    scale = x.std(axis=0)
    scaled = (x - x.mean(axis=0)) / np.where(scale > 1e-12, scale, np.inf)
    norms = (scaled**2).sum(axis=1)
    shares = []
    for start in range(0, len(asked), _NEIGHBOUR_ROWS):
        rows = asked[start : start + _NEIGHBOUR_ROWS]
        squared = np.maximum(norms[rows, None] + norms - 2.0 * scaled[rows] @ scaled.T, 0.0)
        squared[np.arange(len(rows)), rows] = np.inf
        near = squared <= squared.min(axis=1, keepdims=True) + 1e-9
        shares.append((near & (label == label[rows, None])).sum(axis=1) / near.sum(axis=1))
    return float(np.concatenate(shares).mean())


def modality_identity(
    shared: Mapping[str, Array], *, probe: str = "ridge", folds: int = 5, seed: int = 0
) -> tuple[float, float]:
    """Does the shared block tell which modality it was inferred from?

    Args:
        shared: Modality -> (N, d) the shared block of the same N samples, inferred from this modality alone.
        probe: Name in `mfm.analysis.probes.PROBES`, read as a classifier: the largest of one output a modality.
        folds: Parts of the cross-validation; a sample is in one part with all its modalities.
        seed: Seed of probe and parts.

    Returns:
        Accuracy on held-out samples, and that of guessing, 1 / M.

    Raises:
        ConfigurationError: Unknown probe, fewer than two modalities, or fewer samples than parts.
    """
    names = sorted(shared)
    if len(names) < 2:
        raise ConfigurationError("which modality a code came from is a question for at least two modalities")
    samples = len(shared[names[0]])
    fold_numbers(samples, folds)  # too few samples are refused, however many modalities repeat them
    truth = np.repeat(np.arange(len(names)), samples)
    read = held_out(
        np.concatenate([shared[name] for name in names]),
        np.eye(len(names))[truth],
        probe,
        folds=folds,
        groups=list(range(samples)) * len(names),
        seed=seed,
    )
    return float((read.argmax(axis=1) == truth).mean()), 1.0 / len(names)
