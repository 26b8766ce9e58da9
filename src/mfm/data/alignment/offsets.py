"""Whether two files of a video keep the same time: estimated shift and clock drift.

Frames are seldom everywhere: they begin and end with words, or with the labelled segments. Where such edges fit the
words or segments much better when they are moved and stretched, the clocks differ. Frames without gaps have no edges;
of them only their first and last moments can be compared with what was said.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from mfm.data.alignment.csd import Intervals

_TOLERANCE = 0.05  # seconds within which two edges are the same
_WINDOW = 5.0  # largest shift looked for
_DRIFTS = np.arange(-20, 21) * 5e-4  # up to 1 %
_MOST_EDGES = 48
_LEAST_EDGES = 6
_LEAST_MATCHED = 0.5  # share of edges that must fit
_BETTER = 0.25  # by how much a shift must fit better than none
_LEVEL = 0.001  # of that fit arising by chance
_GAP = 0.02  # seconds without a frame that make an edge
_SUSPICIOUS = 0.1  # seconds, anywhere in the video
_UNCOVERED = 1.0

Edges = NDArray[np.float64]


@dataclass(frozen=True)
class Offset:
    """How the clock of a feature file differs from that of the words in one video.

    Attributes:
        shift: Seconds by which frames are late, in the middle of their edges; None where it cannot be told.
        drift: By how much its clock runs faster, 0.001 being a millisecond a second; None where it cannot be told.
        matched: Share of the edges of its frames that fit, after moving them.
        reference: Which edges they fit: `words` or `segments`; empty where there are none.
        begins_late: Seconds from the first word of a segment to the first frame.
        ends_early: Seconds from the last frame to the last word of a segment.
        suspicious: Whether a user should look: a difference of 0.1 s somewhere, or a second without frames at an end.
    """

    shift: float | None
    drift: float | None
    matched: float
    reference: str
    begins_late: float
    ends_early: float
    suspicious: bool

    def in_words(self) -> str:
        """What differs, for a person.

        >>> Offset(0.5, 0.001, 1.0, "words", 0.0, 12.0, True).in_words()
        '0.50 s late, clock 0.10 % faster, ends 12.0 s early'
        """
        parts = []
        if self.shift is not None and abs(self.shift) > _TOLERANCE:
            parts.append(f"{abs(self.shift):.2f} s {'late' if self.shift > 0 else 'early'}")
        if self.drift is not None and abs(self.drift) > 1e-5:
            parts.append(f"clock {abs(self.drift):.2%} {'faster' if self.drift > 0 else 'slower'}".replace("%", " %"))
        if self.begins_late > _UNCOVERED:
            parts.append(f"begins {self.begins_late:.1f} s late")
        if self.ends_early > _UNCOVERED:
            parts.append(f"ends {self.ends_early:.1f} s early")
        return ", ".join(parts) or "in time"


def estimate_offset(frames: Intervals, words: Intervals, spoken: Intervals, segments: Intervals) -> Offset | None:
    """Compare the times of frames with those of words and segments.

    Args:
        frames: (n, 2) valid intervals.
        words: (W, 2) valid words, pauses included.
        spoken: (V, 2) words of segments.
        segments: (S, 2) valid segments.

    Returns:
        The estimate; None without frames or without words.
    """
    if not len(frames) or not len(spoken) or not len(segments):
        return None
    said_from = max(float(spoken[:, 0].min()), float(segments[:, 0].min()))
    said_to = min(float(spoken[:, 1].max()), float(segments[:, 1].max()))
    begins_late = max(0.0, float(frames[:, 0].min()) - said_from)
    ends_early = max(0.0, said_to - float(frames[:, 1].max()))
    uncovered = max(begins_late, ends_early) > _UNCOVERED
    found = _best_fit(frames, words, segments)
    if found is None:
        return Offset(None, None, 0.0, "", begins_late, ends_early, uncovered)
    shift, drift, matched, reference = found
    reach = float(frames[:, 1].max() - frames[:, 0].min()) / 2
    moved = abs(shift) + abs(drift) * reach > _SUSPICIOUS
    return Offset(shift, drift, matched, reference, begins_late, ends_early, moved or uncovered)


def _best_fit(frames: Intervals, words: Intervals, segments: Intervals) -> tuple[float, float, float, str] | None:
    candidates = {"words": np.unique(words[:, 0]), "segments": np.unique(segments)}
    rows_like_words = len(frames) <= 2 * len(words)
    edges = np.unique(frames[:, 0]) if rows_like_words else _gap_edges(frames)
    if len(edges) < _LEAST_EDGES:
        return None
    edges = edges[np.linspace(0, len(edges) - 1, min(len(edges), _MOST_EDGES)).astype(int)]
    fits = [(*_fit(edges, reference), name) for name, reference in candidates.items() if len(reference)]
    best = max(fits, key=lambda fit: fit[2], default=None)
    return best if best is not None and best[2] >= _LEAST_MATCHED else None


def _gap_edges(frames: Intervals) -> Edges:
    """Where frames begin after a gap, or end before one."""
    ordered = frames[np.argsort(frames[:, 0], kind="stable")]
    ends = np.maximum.accumulate(ordered[:, 1])
    gaps = np.flatnonzero(ordered[1:, 0] - ends[:-1] > _GAP)
    return np.unique(np.concatenate([ordered[:1, 0], ends[gaps], ordered[gaps + 1, 0], ends[-1:]]))


def _fit(edges: Edges, reference: Edges) -> tuple[float, float, float]:
    """Shift and drift under which most edges fall on the reference, and their share; 0, 0 unless others are better."""
    middle = float(edges.mean())
    still = _matched(edges, reference)
    first = np.searchsorted(reference, edges - _WINDOW, "left")
    counts = np.searchsorted(reference, edges + _WINDOW, "right") - first
    which = np.repeat(np.arange(len(edges)), counts)
    other = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which]
    if not len(which):
        return 0.0, 0.0, still
    late = (edges[which] - reference[other])[None, :] - _DRIFTS[:, None] * (edges[which] - middle)[None, :]
    bins = np.floor((late + 2 * _WINDOW) / _TOLERANCE).astype(np.int64)
    width = int(4 * _WINDOW / _TOLERANCE) + 1
    inside = (bins >= 0) & (bins < width)
    flat = (np.arange(len(_DRIFTS))[:, None] * width + bins)[inside]
    votes = np.bincount(flat, minlength=len(_DRIFTS) * width).reshape(len(_DRIFTS), width)
    votes[:, :-1] += votes[:, 1:]  # two bins, lest a cluster fall between
    row, column = np.unravel_index(int(votes.argmax()), votes.shape)
    drift, shift = float(_DRIFTS[row]), (int(column) + 1) * _TOLERANCE - 2 * _WINDOW
    shift, drift = _refined(edges, reference, middle, shift, drift)
    moved = edges - shift - drift * (edges - middle)
    share = _matched(moved, reference)
    better = share >= still + _BETTER and _by_chance(share, len(edges), edges, reference) < _LEVEL
    return (shift, drift, share) if better else (0.0, 0.0, still)


def _by_chance(share: float, count: int, edges: Edges, reference: Edges) -> float:
    """A bound on the probability that so many edges at random times fit under some shift and drift.

    Bonferroni over the grid that was searched, of the binomial tail with the share of time near a reference.
    """
    near = np.concatenate([[2 * _TOLERANCE], np.minimum(np.diff(reference), 2 * _TOLERANCE)]).sum()
    chance = min(1.0, float(near) / max(float(edges[-1] - edges[0]), _TOLERANCE))
    hits = round(share * count)
    tail = sum(comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(hits, count + 1))
    return tail * len(_DRIFTS) * 2 * _WINDOW / _TOLERANCE


def _refined(edges: Edges, reference: Edges, middle: float, shift: float, drift: float) -> tuple[float, float]:
    """A line through the edges that fit."""
    for _ in range(2):
        distance, nearest = _nearest(edges - shift - drift * (edges - middle), reference)
        close = distance <= 2 * _TOLERANCE
        if np.count_nonzero(close) < 3:
            break
        late, at = (edges - nearest)[close], (edges - middle)[close]
        slope, offset = np.polyfit(at, late, 1)
        shift, drift = float(offset), float(slope)
    return shift, drift


def _nearest(edges: Edges, reference: Edges) -> tuple[Edges, Edges]:
    right = np.clip(np.searchsorted(reference, edges), 1, len(reference) - 1) if len(reference) > 1 else 0
    left = np.maximum(np.asarray(right) - 1, 0)
    nearest = np.where(
        np.abs(reference[left] - edges) <= np.abs(reference[right] - edges), reference[left], reference[right]
    )
    return np.abs(nearest - edges), nearest


def _matched(edges: Edges, reference: Edges) -> float:
    return float((_nearest(edges, reference)[0] <= _TOLERANCE).mean())
