"""Aligning one video: its labelled segments as sequences of words, the frames of each modality reduced to words."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from mfm.data.alignment.csd import Frames, Intervals, Words
from mfm.data.alignment.intervals import Pairs, by_start
from mfm.data.alignment.offsets import Offset, estimate_offset
from mfm.data.alignment.placing import (
    AlignmentOptions,
    NoSteps,
    Placed,
    Track,
    members,
    place_in_segments,
    place_on_words,
)
from mfm.data.alignment.report import Fate, Fates, SegmentReport, Tally, VideoReport
from mfm.data.alignment.rows import fit_rows, shift_rows
from mfm.data.records import BoolArray, IntArray
from mfm.data.store_stream import WordSample
from mfm.errors import DataFormatError

__all__ = ["AlignmentOptions", "align_video", "check_width"]


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
    invalid = _Invalid(video, options)
    words = Words(shift_rows(words.intervals, options.shift_rows.get("pivot", 0)), words.texts)
    segment_fates = invalid.of("labels", labels.intervals)
    word_fates = _word_fates(words, invalid, options)
    row_fit = fit_rows(words.intervals, words.texts, _placed(word_fates) & (word_fates != Fate.PAUSE))
    spoken = _words_of_segments(labels.intervals, segment_fates, words, word_fates, options)
    _drop_wordless(video, labels, segment_fates, spoken, options)
    placed: dict[str, Placed] = {}
    tallies: dict[str, Tally] = {}
    nonfinite: dict[str, int] = {}
    offsets: dict[str, Offset] = {}
    for name, frames in features.items():
        if frames is None or not len(frames):
            placed[name] = Placed(NoSteps(dims[name]), np.zeros(len(words), dtype=np.bool_))
            tallies[name] = Tally()
            continue
        check_width(video, name, frames, dims[name])
        frames = Frames(shift_rows(frames.intervals, options.shift_rows.get(name, 0)), frames.values)
        track = Track(frames, _frame_fates(frames, invalid.of(name, frames.intervals)), words.intervals, word_fates)
        placed[name], offset = _place(name, track, labels.intervals, segment_fates, options)
        offsets |= {} if offset is None else {name: offset}
        tallies[name] = Tally.of(track.fates)
        nonfinite[name] = int((~frames.storable[track.fates == Fate.USED]).sum())
    samples, reports = _samples(video, words, labels, segment_fates, spoken, placed)
    _settle_words(word_fates, spoken, segment_fates)
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
        offsets=offsets,
        rows=row_fit,
        filled={name: one.filled for name, one in placed.items() if one.filled},
    )


@dataclass(frozen=True)
class _Spoken:
    """The words of each segment: (segment, word) pairs, and which of them are kept."""

    pairs: Pairs
    kept: BoolArray

    def of(self, segment: int) -> IntArray:
        """Words of a segment that are kept."""
        first, after = np.searchsorted(self.pairs.outer, [segment, segment + 1], "left")
        return self.pairs.inner[first:after][self.kept[first:after]]

    def cut(self, segment: int) -> int:
        """How many are not."""
        first, after = np.searchsorted(self.pairs.outer, [segment, segment + 1], "left")
        return int((~self.kept[first:after]).sum())


def _words_of_segments(
    segments: Intervals, segment_fates: Fates, words: Words, word_fates: Fates, options: AlignmentOptions
) -> _Spoken:
    """Find the words of each segment; settles the fates of those that are not dropped yet."""
    rows, columns = np.flatnonzero(segment_fates == Fate.USED), np.flatnonzero(word_fates == Fate.USED)
    found = members(segments[rows], words.intervals[columns], options)
    pairs = Pairs(rows[found.outer], columns[found.inner], found.shared)
    if options.word_order == "file":
        order = np.lexsort((pairs.inner, pairs.outer))
        pairs = Pairs(pairs.outer[order], pairs.inner[order], pairs.shared[order])
    position = np.arange(len(pairs.outer)) - np.searchsorted(pairs.outer, pairs.outer, "left")
    kept = position < (len(words) if options.max_length is None else options.max_length)
    word_fates[columns] = Fate.OUTSIDE_SEGMENTS
    word_fates[pairs.inner] = Fate.TRUNCATED
    word_fates[pairs.inner[kept]] = Fate.USED
    return _Spoken(pairs, kept)


def _drop_wordless(
    video: str, labels: Frames, segment_fates: Fates, spoken: _Spoken, options: AlignmentOptions
) -> None:
    """Settle the fates of segments without words, or refuse them."""
    if options.wordless == "keep":
        return
    for index in np.flatnonzero(segment_fates == Fate.USED).tolist():
        if len(spoken.of(index)):
            continue
        segment_fates[index] = Fate.NO_WORDS
        if options.wordless == "refuse":
            raise DataFormatError(
                f"segment {labels.numbers[index]} of video {video!r} has no word of the pivot; mend the files, or "
                "have such segments dropped and listed with --wordless drop"
            )


def _place(
    name: str, track: Track, segments: Intervals, segment_fates: Fates, options: AlignmentOptions
) -> tuple[Placed, Offset | None]:
    """Place the frames of a modality, and compare its clock with that of the words; settles the frames' fates."""
    frames, fates, words, word_fates = track
    valid = segments[segment_fates != Fate.INVALID_INTERVAL]
    offset = estimate_offset(
        frames.intervals[_placed(fates)], words[_placed(word_fates)], words[word_fates == Fate.USED], valid
    )
    if options.unaligned:
        rows = np.flatnonzero(segment_fates == Fate.USED)
        return place_in_segments(track, segments[rows], rows, options, name), offset
    return place_on_words(track, valid, options), offset


def _samples(
    video: str, words: Words, labels: Frames, segment_fates: Fates, spoken: _Spoken, placed: Mapping[str, Placed]
) -> tuple[list[WordSample], list[SegmentReport]]:
    """Samples of the segments that have a step of any modality; settles the fates of the others."""
    samples, reports = [], []
    for index in np.flatnonzero(segment_fates == Fate.USED).tolist():
        chosen = spoken.of(index)
        found = {name: one.steps.of(index, chosen) for name, one in placed.items()}
        if not any(len(steps) for steps, _ in found.values()):
            segment_fates[index] = Fate.NO_FRAMES
            continue
        name = f"{video}$_${labels.numbers[index]}"
        texts = tuple(words.texts[row] for row in chosen.tolist())
        samples.append(
            WordSample(
                name,
                texts,
                words.intervals[chosen],
                labels.values[index].astype(np.float64),
                {modality: steps for modality, (steps, _) in found.items()},
                {modality: seen for modality, (_, seen) in found.items()},
            )
        )
        coverage = {
            modality: float(one.covered[chosen].mean()) if len(chosen) else 0.0 for modality, one in placed.items()
        }
        lengths = {modality: len(steps) for modality, (steps, _) in found.items()}
        reports.append(SegmentReport(name, len(chosen), spoken.cut(index), coverage, lengths))
    return samples, reports


def _settle_words(word_fates: Fates, spoken: _Spoken, segment_fates: Fates) -> None:
    """Words that only segments without any frame have are not used."""
    stays = spoken.kept & (segment_fates[spoken.pairs.outer] == Fate.USED)
    lost = word_fates == Fate.USED
    lost[spoken.pairs.inner[stays]] = False
    word_fates[lost] = Fate.NO_FRAMES


class _Invalid:
    """Finds and lists the invalid intervals of a video, or refuses them."""

    def __init__(self, video: str, options: AlignmentOptions) -> None:
        self._video, self._options = video, options
        self.listed: list[tuple[str, int, float, float]] = []

    def of(self, source: str, intervals: Intervals) -> Fates:
        """Fates of n intervals: used, invalid, or none after a shift of rows."""
        valid = np.isfinite(intervals).all(axis=1) & (intervals[:, 1] >= intervals[:, 0])
        fates = np.where(valid, Fate.USED, Fate.INVALID_INTERVAL).astype(np.int8)
        shift = self._options.shift_rows.get(source, 0)
        there = np.arange(len(fates)) + shift
        fates[(there < 0) | (there >= len(fates))] = Fate.NO_INTERVAL
        bad = np.flatnonzero(fates == Fate.INVALID_INTERVAL).tolist()
        found = [(source, row, float(intervals[row, 0]), float(intervals[row, 1])) for row in bad]
        if found and self._options.invalid_intervals == "refuse":
            _, row, start, end = found[0]
            raise DataFormatError(
                f"{source} of video {self._video!r}, row {row}: the interval from {start:g} to {end:g} s is not one; "
                "mend the file, or have such rows dropped and listed with --invalid-intervals drop"
            )
        self.listed += found
        return fates


def _placed(fates: Fates) -> BoolArray:
    """Which have a valid interval."""
    return np.asarray((fates != Fate.INVALID_INTERVAL) & (fates != Fate.NO_INTERVAL))


def _word_fates(words: Words, invalid: _Invalid, options: AlignmentOptions) -> Fates:
    fates = invalid.of("pivot", words.intervals)
    pause = np.array([text in options.pauses for text in words.texts], dtype=np.bool_)
    fates[(fates == Fate.USED) & _repeated(words.intervals, words.texts.__getitem__)] = Fate.DUPLICATE
    fates[(fates == Fate.USED) & pause] = Fate.PAUSE
    return fates


def _frame_fates(frames: Frames, fates: Fates) -> Fates:
    repeated = _repeated(frames.intervals, lambda row: frames.values[row].tobytes())
    fates[(fates == Fate.USED) & repeated] = Fate.DUPLICATE
    fates[(fates == Fate.USED) & ~frames.storable.any(axis=1)] = Fate.NONFINITE
    return fates


def _equal_intervals(intervals: Intervals) -> IntArray:
    """Rows whose interval another row has too, in the order of the file."""
    order = by_start(intervals)
    same = (intervals[order][1:] == intervals[order][:-1]).all(axis=1)
    shared = np.zeros(len(order), dtype=np.bool_)
    shared[order[1:][same]] = shared[order[:-1][same]] = True
    return np.flatnonzero(shared)


def _repeated(intervals: Intervals, content: Callable[[int], Hashable]) -> BoolArray:
    """Rows with the interval and content of an earlier one."""
    repeated = np.zeros(len(intervals), dtype=np.bool_)
    seen = set()
    for row in _equal_intervals(intervals).tolist():
        key = (*intervals[row].tolist(), content(row))
        repeated[row] = key in seen
        seen.add(key)
    return repeated


def check_width(video: str, name: str, frames: Frames, dim: int) -> None:
    """Refuse frames or labels of another width than that of earlier videos.

    Raises:
        DataFormatError: They have.
    """
    width = frames.values.shape[1]
    if width != dim:
        raise DataFormatError(
            f"{name} of video {video!r} have {width} columns, those of earlier videos {dim}; mend the file"
        )
