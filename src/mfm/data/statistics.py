"""Mean and deviation of every feature over real steps, for normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mfm.data.records import FloatArray, Sequences, SplitData
from mfm.errors import DataFormatError

_BLOCK_BYTES = 1024 * 1024  # of float32: what is worked on at once stays in the processor's cache


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Statistics of one modality.

    Attributes:
        mean: (D,) float64.
        std: (D,) float64, population deviation; 1 for a feature that is constant.
        count: (D,) int64, finite values seen.
        nonfinite: NaN and infinite values left out, all features together.
        constant: (D,) bool, features that never vary.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    count: NDArray[np.int64]
    nonfinite: int
    constant: NDArray[np.bool_]

    def with_one_deviation(self) -> FeatureStatistics:
        """The same with one deviation for all features, the root of their mean variance.

        For features that share a unit, such as pixels: each scaled by its own deviation, a pixel at the border that
        is hardly ever inked would count as much as those that make the picture.
        """
        variance = float(np.mean(np.where(self.constant, 0.0, self.std**2)))
        return replace(self, std=np.full_like(self.std, np.sqrt(variance) if variance > 0 else 1.0))


def feature_statistics(
    split: SplitData,
    modalities: Sequence[str] | None = None,
    *,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    max_lengths: Mapping[str, int] | None = None,
) -> dict[str, FeatureStatistics]:
    """Statistics over the real steps of a split; padding and absent modalities never count.

    Args:
        split: The training split.
        modalities: Modalities to look at; all by default.
        indices: Samples to look at; all by default.
        max_lengths: Steps of each sample to look at, by modality.

    Returns:
        Modality -> statistics.

    Raises:
        DataFormatError: A feature without any finite value.
    """
    chosen = range(len(split)) if indices is None else indices
    limits = max_lengths or {}
    return {
        name: block_statistics(
            _blocks(split.sequences[name], chosen, limits.get(name)), split.sequences[name].dim, name
        )
        for name in (sorted(split.sequences) if modalities is None else modalities)
    }


def _blocks(sequences: Sequences, indices: Iterable[int], limit: int | None) -> Iterator[FloatArray]:
    rows = max(1, _BLOCK_BYTES // (4 * max(sequences.dim, 1)))
    waiting: list[FloatArray] = []
    size = 0
    for index in indices:
        if not sequences.lengths[index]:
            continue
        steps = sequences.steps(int(index))[:limit]
        waiting.append(steps)
        size += len(steps)
        if size >= rows:
            yield np.concatenate(waiting)
            waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting)


def block_statistics(blocks: Iterable[FloatArray], dim: int, name: str) -> FeatureStatistics:
    """Statistics of a stream of (rows, D) blocks in one pass.

    Blocks are summed in float64 about their own mean and merged as in Chan, Golub, LeVeque, "Updating
    formulae and a pairwise algorithm for computing sample variances", 1979: large offsets lose no digits.

    Args:
        blocks: Real steps.
        dim: Features D.
        name: Modality, for messages.

    Raises:
        DataFormatError: A feature without any finite value.
    """
    count = np.zeros(dim, dtype=np.int64)
    mean = np.zeros(dim)
    squares = np.zeros(dim)  # sum of squared distances from the mean
    low, high = np.full(dim, np.inf), np.full(dim, -np.inf)
    nonfinite = 0
    for whole in blocks:
        for block in np.array_split(whole, max(1, whole.nbytes // (2 * _BLOCK_BYTES)), axis=0):
            values = block.astype(np.float64)
            finite = np.isfinite(block)
            here = np.count_nonzero(finite, axis=0)
            bad = finite.size - int(here.sum())
            if bad:
                nonfinite += bad
                values[~finite] = 0.0
            fraction = np.where(here > 0, here, 1)
            block_mean = values.sum(axis=0) / fraction
            values -= block_mean
            if bad:
                values[~finite] = 0.0
            total = np.where(count + here > 0, count + here, 1)
            shift = np.where(here > 0, block_mean - mean, 0.0)
            squares += np.einsum("td,td->d", values, values) + shift**2 * count * here / total
            mean += shift * here / total
            count += here
            low = np.minimum(low, np.where(finite, block, np.inf).min(axis=0, initial=np.inf))
            high = np.maximum(high, np.where(finite, block, -np.inf).max(axis=0, initial=-np.inf))
    _check_counts(count, name)
    # equality of extremes, not a zero variance, tells a constant: rounding leaves a tiny variance
    constant = low == high
    std = np.where(constant, 1.0, np.sqrt(squares / count))
    return FeatureStatistics(mean, np.where(std > 0, std, 1.0), count, nonfinite, constant)


def _check_counts(count: NDArray[np.int64], name: str) -> None:
    empty = np.flatnonzero(count == 0)
    if not len(count) or len(empty) == len(count):
        raise DataFormatError(
            f"modality {name!r} has no finite value in the training split; leave it out with --data.modalities"
        )
    if len(empty):
        raise DataFormatError(
            f"feature {empty[0]} of modality {name!r} has no finite value in the training split "
            f"({len(empty)} of {len(count)} features are like that); leave the modality out with --data.modalities, "
            "mend the file, or switch normalisation off with --data.normalize none"
        )
