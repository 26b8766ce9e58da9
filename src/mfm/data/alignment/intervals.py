"""Which intervals belong together, and reductions over groups of frames.

Intervals are (n, 2) float64, start and end in seconds, end not before start. They may be unsorted, overlap, touch or
have zero length. Cost: O(n log n) and the number of pairs found, never the product of the two lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfm.data.alignment.csd import Frames, Intervals
from mfm.data.records import BoolArray, FloatArray, IntArray

Reduction = Literal["mean", "max", "last", "weighted"]
_BLOCK_BYTES = 8 * 1024 * 1024


class Pairs(NamedTuple):
    """Pairs (outer, inner) of two lists of intervals, by outer, then by the inner one's start, end and position.

    Attributes:
        outer: (P,) indices into the first list.
        inner: (P,) indices into the second.
        shared: (P,) seconds that both cover.
    """

    outer: IntArray
    inner: IntArray
    shared: NDArray[np.float64]


def by_start(intervals: Intervals) -> IntArray:
    """Order of intervals by start, then end, then position in the list."""
    return np.lexsort((intervals[:, 1], intervals[:, 0]))


def overlapping(outer: Intervals, inner: Intervals, minimum: float) -> Pairs:
    """All pairs that share more than `minimum` >= 0 seconds.

    Of two intervals that share anything, either the second starts within the first, or the first starts within the
    second, and later. Each case is one contiguous range of the sorted starts.

    >>> pairs = overlapping(np.array([[0.0, 2.0]]), np.array([[1.5, 9.0], [2.0, 3.0], [0.0, 0.5]]), 1e-5)
    >>> pairs.inner.tolist(), pairs.shared.tolist()
    ([2, 0], [0.5, 0.5])
    """
    outer_order, inner_order = by_start(outer), by_start(inner)
    a, b = outer[outer_order], inner[inner_order]
    i_first, j_first = _expand(np.searchsorted(b[:, 0], a[:, 0], "left"), np.searchsorted(b[:, 0], a[:, 1], "left"))
    j_later, i_later = _expand(np.searchsorted(a[:, 0], b[:, 0], "right"), np.searchsorted(a[:, 0], b[:, 1], "left"))
    i, j = np.concatenate([i_first, i_later]), np.concatenate([j_first, j_later])
    shared = np.minimum(a[i, 1], b[j, 1]) - np.maximum(a[i, 0], b[j, 0])
    enough = shared > minimum
    return _ordered(outer_order[i[enough]], j[enough], inner_order, shared[enough])


def holding_midpoints(outer: Intervals, inner: Intervals) -> Pairs:
    """All pairs in which the inner interval's midpoint lies in [start, end) of the outer one."""
    middle = inner.mean(axis=1)
    order = np.argsort(middle, kind="stable")
    starts, ends = (np.searchsorted(middle[order], outer[:, column], "left") for column in (0, 1))
    i, j = _expand(starts, ends)
    return _with_shared(outer, inner, i, order[j])


def containing(outer: Intervals, inner: Intervals) -> Pairs:
    """All pairs in which the inner interval lies in the outer one, ends included."""
    order = by_start(inner)
    starts = inner[order, 0]
    i, j = _expand(np.searchsorted(starts, outer[:, 0], "left"), np.searchsorted(starts, outer[:, 1], "right"))
    within = inner[order[j], 1] <= outer[i, 1]
    return _with_shared(outer, inner, i[within], order[j[within]])


def nearest(outer: Intervals, inner: Intervals, within: float) -> IntArray:
    """The inner interval whose midpoint is nearest to that of each outer one.

    Args:
        outer: (m, 2).
        inner: (n, 2), n >= 1.
        within: Largest distance of the midpoints, in seconds.

    Returns:
        (m,) indices, -1 where none is that near; of several at one distance the first by start, end and position.

    >>> nearest(np.array([[1.0, 3.0], [9.0, 9.0]]), np.array([[2.5, 3.5], [0.5, 1.5]]), 2.0).tolist()
    [1, -1]
    """
    order = by_start(inner)
    middle = inner[order].mean(axis=1)
    by_middle = np.argsort(middle, kind="stable")
    sorted_middle, wanted = middle[by_middle], outer.mean(axis=1)
    above = np.searchsorted(sorted_middle, wanted, "left")  # the first of equal ones, which is first by start
    below = np.searchsorted(sorted_middle, sorted_middle[np.maximum(above - 1, 0)], "left")
    above = np.minimum(above, len(order) - 1)
    to_above, to_below = (np.abs(sorted_middle[rows] - wanted) for rows in (above, below))
    earlier = (to_below < to_above) | ((to_below == to_above) & (by_middle[below] < by_middle[above]))
    chosen = order[by_middle[np.where(earlier, below, above)]]
    return np.where(np.minimum(to_above, to_below) <= within, chosen, -1).astype(np.int64)


def _with_shared(outer: Intervals, inner: Intervals, i: IntArray, j: IntArray) -> Pairs:
    order = by_start(inner)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    shared = np.minimum(outer[i, 1], inner[j, 1]) - np.maximum(outer[i, 0], inner[j, 0])
    return _ordered(i, rank[j], order, shared)


def _ordered(i: IntArray, rank: IntArray, inner_order: IntArray, shared: NDArray[np.float64]) -> Pairs:
    order = np.lexsort((rank, i))
    return Pairs(i[order], inner_order[rank[order]], shared[order])


def _expand(first: IntArray, after: IntArray) -> tuple[IntArray, IntArray]:
    """Ranges [first[k], after[k]) as pairs (k, position).

    >>> [part.tolist() for part in _expand(np.array([0, 3, 2]), np.array([2, 3, 1]))]
    [[0, 0], [0, 1]]
    """
    counts = np.maximum(after - first, 0)
    which = np.repeat(np.arange(len(counts)), counts)
    offset = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return which, first[which] + offset


def reduce_frames(frames: Frames, pairs: Pairs, count: int, how: Reduction) -> tuple[FloatArray, BoolArray]:
    """Reduce the frames of each word to one vector, per dimension over the finite values only.

    Args:
        frames: n frames of D values.
        pairs: (word, frame) pairs, sorted by word.
        count: Number of words, W.
        how: `mean`; `max`; `last`, of the frame that starts last; `weighted`, the mean weighted by shared seconds.

    Returns:
        (W, D) float32, 0 where a word has no finite value, and (W,) whether it has any.
    """
    dim = frames.values.shape[1]
    result = np.zeros((count, dim), dtype=np.float32)
    observed = np.zeros(count, dtype=np.bool_)
    whole = np.asarray(frames.storable.all(axis=1))
    for group in _similarly_many(pairs, whole, dim):
        taken = frames.values[group.frames].astype(np.float64)
        finite = None if group.whole else frames.storable[group.frames]
        result[group.words] = _reduce(taken, finite, group, how)
        observed[group.words] = True if finite is None else finite.any(axis=(1, 2))
    return result, observed


class _Group(NamedTuple):
    """Words with similarly many frames, each filled up to k frames with its first one, in front.

    Attributes:
        words: (g,).
        frames: (g, k), by start.
        shared: (g, k) seconds that the frame shares with the word.
        real: (g, k) False where a frame fills up.
        whole: Whether all values of these frames count.
    """

    words: IntArray
    frames: IntArray
    shared: NDArray[np.float64]
    real: BoolArray
    whole: bool


def _similarly_many(pairs: Pairs, whole: BoolArray, dim: int) -> Iterator[_Group]:
    """All words with frames, in groups of bounded size that are reduced at once.

    One reduction over an axis of k frames does for g words, and is many times as fast as `reduceat`, which goes word by
    word. Numbers of frames are rounded up by at most a quarter, lest nearly every word be a group of its own.
    """
    if not len(pairs.outer):
        return
    words, first, counts = np.unique(pairs.outer, return_index=True, return_counts=True)
    clean = np.logical_and.reduceat(whole[pairs.inner], first)
    rounding = 2 ** np.maximum(np.floor(np.log2(counts)).astype(np.int64) - 2, 0)
    filled = -(-counts // rounding) * rounding
    kind = 2 * filled + clean
    order = np.argsort(kind, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        many = int(filled[group[0]])
        at_once = max(1, _BLOCK_BYTES // (8 * many * max(dim, 1)))
        for start in range(0, len(group), at_once):
            part = group[start : start + at_once]
            position = np.arange(many) - (many - counts[part])[:, None]
            rows = first[part][:, None] + np.maximum(position, 0)
            yield _Group(words[part], pairs.inner[rows], pairs.shared[rows], position >= 0, bool(clean[part[0]]))


def _reduce(taken: NDArray[np.float64], finite: BoolArray | None, group: _Group, how: Reduction) -> NDArray[np.float64]:
    """(g, k, D) frames to (g, D), over the finite values; `finite` is None where all are."""
    if how == "max":
        highest = taken.max(axis=1) if finite is None else np.where(finite, taken, -np.inf).max(axis=1)
        return np.asarray(highest if finite is None else np.where(finite.any(axis=1), highest, 0.0))
    if how == "last":
        if finite is None:
            return taken[:, -1]
        last = finite.shape[1] - 1 - finite[:, ::-1].argmax(axis=1)
        return np.where(finite.any(axis=1), np.take_along_axis(taken, last[:, None], axis=1)[:, 0], 0.0)
    weights = np.where(group.real, group.shared if how == "weighted" else 1.0, 0.0)[:, None]
    if finite is None:
        return np.asarray((weights @ taken)[:, 0] / weights.sum(axis=2))
    total = (weights @ finite)[:, 0]
    return np.asarray((weights @ np.where(finite, taken, 0.0))[:, 0] / np.where(total > 0, total, 1.0))
