"""Where the frames of one modality go: to the words they share time with, or to the segments as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np

from mfm.data.alignment.csd import Frames, Intervals
from mfm.data.alignment.intervals import (
    Pairs,
    containing,
    holding_midpoints,
    nearest,
    overlapping,
    reduce_frames,
)
from mfm.data.alignment.report import Fate, Fates
from mfm.data.records import BoolArray, FloatArray, IntArray

Membership = Literal["midpoint", "overlap", "containment"]
InvalidIntervals = Literal["drop", "refuse"]
Wordless = Literal["drop", "keep", "refuse"]
WordOrder = Literal["start", "file"]
HowFrames = Literal["mean", "max", "last", "weighted", "all"]


@dataclass(frozen=True)
class AlignmentOptions:
    """How a video is aligned.

    Attributes:
        reduction: How the frames of a word become one vector, see `reduce_frames`; `all`: they stay as they are, one
            after the other, and the corpus is not aligned.
        membership: When a word (unaligned: a frame, too) belongs to a segment: `midpoint` in [start, end); `overlap` of
            more than `min_overlap`; `containment` from start to end.
        min_overlap: A frame belongs to a word when they share more than this, in seconds.
        pauses: Words of the pivot that are dropped, compared exactly.
        max_length: Most words of a segment, the first ones are kept; None for all.
        invalid_intervals: Of frames, words and segments that are not finite or end before they start: `drop` (and list)
            or `refuse`.
        require_all: Leave out videos that a feature file lacks, instead of marking the modality as absent.
        nearest_within: A word without a frame gets the nearest one, by midpoints, at most so many seconds away; None:
            a zero vector that is marked as unobserved.
        word_order: Words of a segment by `start`, or as in the `file`.
        wordless: Segments without words: `drop` (and list), `keep` (where they have frames) or `refuse`.
        unaligned: Keep each modality's own frames of a segment instead of bringing them to words.
        pool: Unaligned: modality -> frames that are averaged to one step.
        max_frames: Unaligned: modality -> most steps of a segment, the first ones are kept.
        shift_rows: `pivot` or modality -> k, where the content of row r belongs to the interval of row r + k.
    """

    reduction: HowFrames = "mean"
    membership: Membership = "midpoint"
    min_overlap: float = 1e-5
    pauses: tuple[str, ...] = ("sp",)
    max_length: int | None = None
    invalid_intervals: InvalidIntervals = "drop"
    require_all: bool = False
    nearest_within: float | None = None
    word_order: WordOrder = "start"
    wordless: Wordless = "drop"
    unaligned: bool = False
    pool: Mapping[str, int] = field(default_factory=dict)
    max_frames: Mapping[str, int] = field(default_factory=dict)
    shift_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def aligned(self) -> bool:
        """Whether step t of every modality is word t."""
        return not self.unaligned and self.reduction != "all"


class Steps(Protocol):
    """The steps of one modality."""

    def of(self, segment: int, chosen: IntArray) -> tuple[FloatArray, BoolArray]:
        """Steps (L, D) of a segment whose words are `chosen`, and at which of them something was observed (L,)."""


class NoSteps:
    """A modality that is absent.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def of(self, segment: int, chosen: IntArray) -> tuple[FloatArray, BoolArray]:
        """See `Steps`."""
        return np.zeros((0, self._dim), dtype=np.float32), np.zeros(0, dtype=np.bool_)


class WordVectors(NoSteps):
    """One vector for each word.

    Args:
        values: (W, D).
        seen: (W,) whether a word has any.
    """

    def __init__(self, values: FloatArray, seen: BoolArray) -> None:
        super().__init__(values.shape[1])
        self._values, self._seen = values, seen

    def of(self, segment: int, chosen: IntArray) -> tuple[FloatArray, BoolArray]:
        """See `Steps`."""
        rows = chosen if self._seen[chosen].any() else chosen[:0]
        return self._values[rows], self._seen[rows]


class FramesOfWords(NoSteps):
    """All frames of each word, word by word.

    Args:
        values: (n, D) frames.
        pairs: (word, frame), by word.
    """

    def __init__(self, values: FloatArray, pairs: Pairs) -> None:
        super().__init__(values.shape[1])
        self._values, self._pairs = values, pairs

    def of(self, segment: int, chosen: IntArray) -> tuple[FloatArray, BoolArray]:
        """See `Steps`."""
        first, after = (np.searchsorted(self._pairs.outer, chosen, side) for side in ("left", "right"))
        parts = [self._pairs.inner[i:j] for i, j in zip(first.tolist(), after.tolist(), strict=True)]
        rows = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return self._values[rows], np.ones(len(rows), dtype=np.bool_)


class FramesOfSegments(NoSteps):
    """The frames of each segment as they are, or the means of a few at a time.

    Args:
        values: (n, D) steps.
        offsets: Segment -> where its steps begin and end.
    """

    def __init__(self, values: FloatArray, offsets: Mapping[int, tuple[int, int]]) -> None:
        super().__init__(values.shape[1])
        self._values, self._offsets = values, offsets

    def of(self, segment: int, chosen: IntArray) -> tuple[FloatArray, BoolArray]:
        """See `Steps`."""
        start, stop = self._offsets.get(segment, (0, 0))
        return self._values[start:stop], np.ones(stop - start, dtype=np.bool_)


@dataclass(frozen=True)
class Placed:
    """What became of the frames of a modality.

    Attributes:
        steps: Its steps.
        covered: (W,) words that share time with a used frame, or got the nearest one.
        filled: Words that got the nearest frame.
    """

    steps: Steps
    covered: BoolArray
    filled: int = 0


def members(segments: Intervals, items: Intervals, options: AlignmentOptions) -> Pairs:
    """(segment, item) pairs; items by start."""
    if options.membership == "midpoint":
        return holding_midpoints(segments, items)
    if options.membership == "containment":
        return containing(segments, items)
    return overlapping(segments, items, options.min_overlap)


class Track(NamedTuple):
    """The frames of a modality beside the words.

    Attributes:
        frames: n frames.
        fates: (n,) of them; placing settles those that are not dropped yet.
        words: (W, 2).
        word_fates: (W,).
    """

    frames: Frames
    fates: Fates
    words: Intervals
    word_fates: Fates


def place_on_words(track: Track, segments: Intervals, options: AlignmentOptions) -> Placed:
    """Bring frames to words.

    Args:
        track: Frames and words; the frames' fates are changed.
        segments: Valid segments.
        options: How.
    """
    frames, fates, words, word_fates = track
    usable = np.flatnonzero(fates == Fate.USED)
    inner = frames.intervals[usable]
    rows = np.flatnonzero((word_fates == Fate.USED) | (word_fates == Fate.TRUNCATED))
    found = overlapping(words[rows], inner, options.min_overlap)
    used = word_fates[rows[found.outer]] == Fate.USED
    fates[usable] = Fate.OUTSIDE_SEGMENTS
    fates[usable[overlapping(segments, inner, options.min_overlap).inner]] = Fate.NO_OVERLAP
    fates[usable[found.inner]] = Fate.TRUNCATED
    fates[usable[found.inner[used]]] = Fate.USED
    pairs = Pairs(rows[found.outer[used]], usable[found.inner[used]], found.shared[used])
    covered = np.zeros(len(words), dtype=np.bool_)
    covered[pairs.outer] = True
    if options.reduction == "all":
        with np.errstate(over="ignore"):  # beyond a float32 is infinite
            return Placed(FramesOfWords(frames.values.astype(np.float32), pairs), covered)
    values, seen = reduce_frames(frames, pairs, len(words), options.reduction)
    filled = _fill(values, seen, track, usable, options.nearest_within)
    return Placed(WordVectors(values, seen), covered | seen, filled)


def _fill(values: FloatArray, seen: BoolArray, track: Track, usable: IntArray, within: float | None) -> int:
    """Give words without a frame the nearest one; returns how many got one."""
    frames, fates, words, word_fates = track
    empty = np.flatnonzero((word_fates == Fate.USED) & ~seen)
    if within is None or not len(usable) or not len(empty):
        return 0
    found = nearest(words[empty], frames.intervals[usable], within)
    empty, rows = empty[found >= 0], usable[found[found >= 0]]
    values[empty] = np.where(frames.storable[rows], frames.values[rows], 0.0)
    seen[empty] = True
    fates[rows] = Fate.USED
    return len(empty)


def place_in_segments(
    track: Track, segments: Intervals, segment_rows: IntArray, options: AlignmentOptions, name: str
) -> Placed:
    """Keep the frames of each segment.

    Args:
        track: Frames and words; the frames' fates are changed.
        segments: Those that become samples.
        segment_rows: Their numbers.
        options: How.
        name: Modality.
    """
    frames, fates, words, word_fates = track
    usable = np.flatnonzero(fates == Fate.USED)
    found = members(segments, frames.intervals[usable], options)
    pool, most = options.pool.get(name, 1), options.max_frames.get(name)
    position = np.arange(len(found.outer)) - np.searchsorted(found.outer, found.outer, "left")
    kept = np.ones(len(position), dtype=np.bool_) if most is None else position < most * pool
    fates[usable] = Fate.OUTSIDE_SEGMENTS
    fates[usable[found.inner]] = Fate.TRUNCATED
    fates[usable[found.inner[kept]]] = Fate.USED
    rows, outer, position = usable[found.inner[kept]], found.outer[kept], position[kept]
    step, first = np.unique(np.stack([outer, position // pool], axis=1), axis=0, return_index=True)
    with np.errstate(over="ignore"):  # beyond a float32 is infinite
        values = frames.values[rows].astype(np.float32)
    if pool > 1:
        of_step = np.repeat(np.arange(len(step)), np.diff(first, append=len(rows)))
        values, _ = reduce_frames(frames, Pairs(of_step, rows, np.ones(len(rows), dtype=np.float64)), len(step), "mean")
    begin, end = (np.searchsorted(step[:, 0], np.arange(len(segments)), side) for side in ("left", "right"))
    offsets = dict(zip(segment_rows.tolist(), zip(begin.tolist(), end.tolist(), strict=True), strict=True))
    covered = np.zeros(len(words), dtype=np.bool_)
    spoken = np.flatnonzero(word_fates == Fate.USED)
    covered[spoken[overlapping(words[spoken], frames.intervals[np.unique(rows)], options.min_overlap).outer]] = True
    return Placed(FramesOfSegments(values, offsets), covered)
