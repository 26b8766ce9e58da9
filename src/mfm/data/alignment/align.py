"""Aligning one video: its labelled segments as sequences of words, the frames of each modality reduced to words."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mfm.data.alignment.csd import Frames, Intervals, Words
from mfm.data.alignment.intervals import (
    Pairs,
    Reduction,
    by_start,
    containing,
    holding_midpoints,
    overlapping,
    reduce_frames,
    storable,
)
from mfm.data.alignment.report import Fate, Fates, SegmentReport, Tally, VideoReport
from mfm.data.records import BoolArray, IntArray
from mfm.data.store_stream import WordSample
from mfm.errors import DataFormatError

Membership = Literal["midpoint", "overlap", "containment"]
InvalidIntervals = Literal["drop", "refuse"]


@dataclass(frozen=True)
class AlignmentOptions:
    """How a video is aligned.

    Attributes:
        reduction: How the frames of a word become one vector; see `reduce_frames`.
        membership: When a word belongs to a segment: `midpoint` in [start, end); `overlap` of more than `min_overlap`;
            `containment` from start to end.
        min_overlap: A frame belongs to a word when they share more than this, in seconds.
        pauses: Words of the pivot that are dropped, compared exactly.
        max_length: Most words of a segment, the first ones are kept; None for all.
        invalid_intervals: Of frames, words and segments that are not finite or end before they start: `drop` (and list)
            or `refuse`.
        require_all: Leave out videos that a feature file lacks, instead of marking the modality as absent.
    """

    reduction: Reduction = "mean"
    membership: Membership = "midpoint"
    min_overlap: float = 1e-5
    pauses: tuple[str, ...] = ("sp",)
    max_length: int | None = None
    invalid_intervals: InvalidIntervals = "drop"
    require_all: bool = False


def align_video(
    video: str,
    split: str,
    words: Words,
    labels: Frames,
    features: Mapping[str, Frames | None],
    dims: Mapping[str, int],
    options: AlignmentOptions,
) -> tuple[list[WordSample], VideoReport]:
    """Align one video.

    Args:
        video: Its name.
        split: Where its samples go; for the report.
        words: The pivot.
        labels: Labelled segments.
        features: Modality -> its frames, None where the file lacks the video.
        dims: Modality -> D.
        options: How.

    Returns:
        Samples in the order of the label file, and what became of every word, frame and segment.

    Raises:
        DataFormatError: An invalid interval that is to be refused, or another D than `dims` says.
    """
    invalid = _Invalid(video, options.invalid_intervals)
    segment_fates = invalid.of("labels", labels.intervals)
    word_fates = _word_fates(words, invalid, options)
    taken = _members(labels.intervals, segment_fates, words.intervals, word_fates, options)
    position = np.arange(len(taken.outer)) - np.searchsorted(taken.outer, taken.outer, "left")
    kept = position < (len(words) if options.max_length is None else options.max_length)
    eligible = word_fates == Fate.USED
    word_fates[eligible] = Fate.OUTSIDE_SEGMENTS
    word_fates[taken.inner] = Fate.TRUNCATED
    word_fates[taken.inner[kept]] = Fate.USED

    valid_segments = labels.intervals[segment_fates == Fate.USED]
    reduced: dict[str, tuple[NDArray[np.float32], BoolArray]] = {}
    tallies: dict[str, Tally] = {}
    nonfinite: dict[str, int] = {}
    for name, frames in features.items():
        if frames is None or not len(frames):
            reduced[name] = np.zeros((len(words), dims[name]), np.float32), np.zeros(len(words), np.bool_)
            tallies[name] = Tally()
            continue
        _check_width(video, name, frames, dims[name])
        fates = _frame_fates(frames, invalid.of(name, frames.intervals))
        pairs = _frames_of_words(frames, fates, words.intervals, word_fates, valid_segments, options)
        reduced[name] = reduce_frames(frames.values, pairs, len(words), options.reduction)
        tallies[name] = Tally.of(fates)
        nonfinite[name] = int((~storable(frames.values[fates == Fate.USED])).sum())

    samples, reports = [], []
    for index in np.flatnonzero(segment_fates == Fate.USED).tolist():
        first, after = np.searchsorted(taken.outer, [index, index + 1], "left")
        chosen = taken.inner[first:after][kept[first:after]]
        if not len(chosen):
            segment_fates[index] = Fate.NO_WORDS
            continue
        sample = _sample(f"{video}$_${labels.numbers[index]}", words, labels.values[index], chosen, reduced)
        if not any(len(steps) for steps in sample.steps.values()):
            segment_fates[index] = Fate.NO_FRAMES
            continue
        samples.append(sample)
        coverage = {name: float(seen.mean()) if len(seen) else 0.0 for name, seen in sample.observed.items()}
        reports.append(SegmentReport(sample.id, len(chosen), int(after - first) - len(chosen), coverage))
    return samples, VideoReport(
        video=video,
        split=split,
        skipped=None,
        absent=[name for name, frames in features.items() if frames is None],
        words=Tally.of(word_fates),
        features=tallies,
        segments=Tally.of(segment_fates),
        samples=reports,
        dropped_segments={
            f"{video}$_${labels.numbers[index]}": Fate(segment_fates[index]).label
            for index in np.flatnonzero(segment_fates).tolist()
        },
        invalid_intervals=invalid.listed,
        nonfinite_values=nonfinite,
    )


class _Invalid:
    """Finds and lists the invalid intervals of a video, or refuses them."""

    def __init__(self, video: str, treatment: InvalidIntervals) -> None:
        self._video, self._treatment = video, treatment
        self.listed: list[tuple[str, int, float, float]] = []

    def of(self, source: str, intervals: Intervals) -> Fates:
        """Fates of n intervals: used, or invalid."""
        valid = np.isfinite(intervals).all(axis=1) & (intervals[:, 1] >= intervals[:, 0])
        bad = np.flatnonzero(~valid).tolist()
        found = [(source, row, float(intervals[row, 0]), float(intervals[row, 1])) for row in bad]
        if found and self._treatment == "refuse":
            _, row, start, end = found[0]
            raise DataFormatError(
                f"{source} of video {self._video!r}, row {row}: the interval from {start:g} to {end:g} s is not one; "
                "mend the file, or have such rows dropped and listed with --invalid-intervals drop"
            )
        self.listed += found
        return np.where(valid, Fate.USED, Fate.INVALID_INTERVAL).astype(np.int8)


def _word_fates(words: Words, invalid: _Invalid, options: AlignmentOptions) -> Fates:
    fates = invalid.of("pivot", words.intervals)
    pause = np.array([text in options.pauses for text in words.texts], dtype=np.bool_)
    fates[(fates == Fate.USED) & _repeated(words.intervals, words.texts.__getitem__)] = Fate.DUPLICATE
    fates[(fates == Fate.USED) & pause] = Fate.PAUSE
    return fates


def _frame_fates(frames: Frames, fates: Fates) -> Fates:
    repeated = _repeated(frames.intervals, lambda row: frames.values[row].tobytes())
    fates[(fates == Fate.USED) & repeated] = Fate.DUPLICATE
    fates[(fates == Fate.USED) & ~storable(frames.values).any(axis=1)] = Fate.NONFINITE
    return fates


def _equal_intervals(intervals: Intervals) -> IntArray:
    """Rows whose interval another row has too, in the order of the file."""
    order = by_start(intervals)
    same = (intervals[order][1:] == intervals[order][:-1]).all(axis=1)
    return np.unique(np.concatenate([order[1:][same], order[:-1][same]]))


def _repeated(intervals: Intervals, content: Callable[[int], Hashable]) -> BoolArray:
    """Rows with the interval and content of an earlier one."""
    repeated = np.zeros(len(intervals), dtype=np.bool_)
    seen = set()
    for row in _equal_intervals(intervals).tolist():
        key = (*intervals[row].tolist(), content(row))
        repeated[row] = key in seen
        seen.add(key)
    return repeated


def _members(
    segments: Intervals, segment_fates: Fates, words: Intervals, word_fates: Fates, options: AlignmentOptions
) -> Pairs:
    """(segment, word) pairs by row in the files; the words of a segment by start."""
    rows, columns = np.flatnonzero(segment_fates == Fate.USED), np.flatnonzero(word_fates == Fate.USED)
    outer, inner = segments[rows], words[columns]
    if options.membership == "midpoint":
        found = holding_midpoints(outer, inner)
    elif options.membership == "containment":
        found = containing(outer, inner)
    else:
        found = overlapping(outer, inner, options.min_overlap)
    return Pairs(rows[found.outer], columns[found.inner], found.shared)


def _frames_of_words(
    frames: Frames,
    fates: Fates,
    words: Intervals,
    word_fates: Fates,
    segments: Intervals,
    options: AlignmentOptions,
) -> Pairs:
    """(word, frame) pairs of used words; settles the fates of the frames."""
    columns = np.flatnonzero(fates == Fate.USED)
    inner = frames.intervals[columns]
    rows = np.flatnonzero((word_fates == Fate.USED) | (word_fates == Fate.TRUNCATED))
    found = overlapping(words[rows], inner, options.min_overlap)
    used = word_fates[rows[found.outer]] == Fate.USED
    fates[columns] = Fate.OUTSIDE_SEGMENTS
    fates[columns[overlapping(segments, inner, options.min_overlap).inner]] = Fate.NO_OVERLAP
    fates[columns[found.inner]] = Fate.TRUNCATED
    fates[columns[found.inner[used]]] = Fate.USED
    return Pairs(rows[found.outer[used]], columns[found.inner[used]], found.shared[used])


def _check_width(video: str, name: str, frames: Frames, dim: int) -> None:
    if frames.values.shape[1] != dim:
        raise DataFormatError(
            f"{name} of video {video!r} has {frames.values.shape[1]} features, earlier videos have {dim}; mend the file"
        )


def _sample(
    name: str,
    words: Words,
    labels: NDArray[Any],
    chosen: IntArray,
    reduced: Mapping[str, tuple[NDArray[np.float32], BoolArray]],
) -> WordSample:
    steps, observed = {}, {}
    for modality, (values, seen) in reduced.items():
        rows = chosen if seen[chosen].any() else chosen[:0]
        steps[modality], observed[modality] = values[rows], seen[rows]
    texts = tuple(words.texts[row] for row in chosen.tolist())
    return WordSample(name, texts, words.intervals[chosen], labels.astype(np.float64), steps, observed)
