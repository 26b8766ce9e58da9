"""What happened to every frame, word and segment: used, or dropped and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from mfm.data.alignment.offsets import Offset
from mfm.data.alignment.rows import RowFit


class Fate(IntEnum):
    """What became of a frame, word or segment. Each has one: where several apply, the first of this list."""

    USED = 0
    NOT_IN_LABELS = 1  # the video is not in the label file
    NOT_IN_PIVOT = 2  # ... not in the file of words
    NOT_IN_FOLDS = 3  # ... in no split
    LACKS_FEATURE = 4  # ... not in every feature file, and all were required
    NO_INTERVAL = 5  # rows were shifted, and none is left for it
    INVALID_INTERVAL = 6  # not finite, or the end before the start
    DUPLICATE = 7  # same interval and content as an earlier one
    NONFINITE = 8  # no finite value
    PAUSE = 9  # a pause token
    TRUNCATED = 10  # only in words beyond the maximum length of a segment
    NO_OVERLAP = 11  # inside a segment, in no word of it
    OUTSIDE_SEGMENTS = 12
    NO_WORDS = 13  # a segment without words
    NO_FRAMES = 14  # a segment in which no modality has a frame, and its words

    @property
    def label(self) -> str:
        """Name in the report."""
        return self.name.lower()


Fates = NDArray[np.int8]


@dataclass
class Tally:
    """How many there were, were used, and were dropped for each reason; adds up by construction.

    >>> tally = Tally.of(np.array([0, 0, 9], dtype=np.int8)) + Tally.all_of(Fate.NOT_IN_FOLDS, 4)
    >>> tally.seen, tally.used, tally.dropped
    (7, 2, {'pause': 1, 'not_in_folds': 4})
    """

    seen: int = 0
    used: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, fates: Fates) -> Tally:
        """Count fates, one of each item."""
        counts = np.bincount(fates, minlength=len(Fate))
        dropped = {fate.label: int(counts[fate]) for fate in Fate if fate is not Fate.USED and counts[fate]}
        return cls(len(fates), int(counts[Fate.USED]), dropped)

    @classmethod
    def all_of(cls, fate: Fate, count: int) -> Tally:
        """The same fate for `count` items."""
        return cls.of(np.full(count, fate, dtype=np.int8))

    def __add__(self, other: Tally) -> Tally:
        dropped = dict(self.dropped)
        for reason, count in other.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        return Tally(self.seen + other.seen, self.used + other.used, dropped)


@dataclass(frozen=True)
class SegmentReport:
    """A segment that became a sample.

    Attributes:
        id: `video$_$k`, k counted from 0 in the order of the label file, or that of its key `video[k]`.
        steps: Its words, after truncation.
        truncated: Words beyond the maximum length.
        coverage: Modality -> share of the words that have a frame, in [0, 1].
        lengths: Modality -> its steps; 0 where it is absent.
    """

    id: str
    steps: int
    truncated: int
    coverage: Mapping[str, float]
    lengths: Mapping[str, int]


@dataclass(frozen=True)
class VideoReport:
    """One video.

    Attributes:
        video: Its name.
        split: Where its segments went; None when it was skipped.
        skipped: Why the whole video was left out; None when it was not.
        absent: Modalities whose file lacks it.
        words: Words of the pivot.
        features: Modality -> its frames.
        segments: Labelled segments.
        samples: Segments that became samples.
        dropped_segments: Id -> why it did not.
        invalid_intervals: (source, row, start, end) of intervals that are not finite or end before they start; the
            source is `pivot`, `labels` or a modality.
        nonfinite_values: Modality -> values in used frames that were left out of the reductions.
        filled: Modality -> words without a frame that got the nearest one.
        offsets: Modality -> how its clock differs from that of the words.
        rows: Whether the words' texts are in other rows than their intervals; None where it cannot be told.
    """

    video: str
    split: str | None
    skipped: str | None
    absent: Sequence[str]
    words: Tally
    features: Mapping[str, Tally]
    segments: Tally
    samples: Sequence[SegmentReport] = ()
    dropped_segments: Mapping[str, str] = field(default_factory=dict)
    invalid_intervals: Sequence[tuple[str, int, float, float]] = ()
    nonfinite_values: Mapping[str, int] = field(default_factory=dict)
    filled: Mapping[str, int] = field(default_factory=dict)
    offsets: Mapping[str, Offset] = field(default_factory=dict)
    rows: RowFit | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries; `dataclasses.asdict` copies every number, and takes as long as aligning."""
        return {
            **vars(self),
            "words": vars(self.words),
            "segments": vars(self.segments),
            "features": {name: vars(tally) for name, tally in self.features.items()},
            "samples": [vars(sample) for sample in self.samples],
            "offsets": {name: vars(offset) for name, offset in self.offsets.items()},
            "rows": None if self.rows is None else vars(self.rows),
        }


@dataclass
class Totals:
    """Sums over videos, and what concerns more than one of them.

    Attributes:
        videos: Split or reason of skipping -> videos.
        samples: Split -> samples.
        steps: Split -> steps of its samples.
        observed: Modality -> words with a frame, over all samples.
        absent: Modality -> samples without any frame of it.
        words, segments, features: See `VideoReport`.
        filled: Modality -> words without a frame that got the nearest one.
        suspicious: Modality -> videos whose frames seem to be at other times than the words, and how far off.
        row_lags: Rows by which words seem to be away from their intervals -> videos.
        truncated_segments: Samples beyond the maximum length.
        invalid_intervals: Intervals that are not finite or end before they start.
    """

    videos: dict[str, int] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    observed: dict[str, int] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    words: Tally = field(default_factory=Tally)
    segments: Tally = field(default_factory=Tally)
    features: dict[str, Tally] = field(default_factory=dict)
    filled: dict[str, int] = field(default_factory=dict)
    suspicious: dict[str, list[str]] = field(default_factory=dict)
    row_lags: dict[int, int] = field(default_factory=dict)
    truncated_segments: int = 0
    invalid_intervals: int = 0

    def add(self, report: VideoReport) -> None:
        """Add a video."""
        place = report.split or report.skipped or "skipped"
        _count(self.videos, place, 1)
        self.words += report.words
        self.segments += report.segments
        for name, tally in report.features.items():
            self.features[name] = self.features.get(name, Tally()) + tally
        self.invalid_intervals += len(report.invalid_intervals)
        for name, number in report.filled.items():
            _count(self.filled, name, number)
        for name, offset in report.offsets.items():
            if offset.suspicious:
                self.suspicious.setdefault(name, []).append(f"{report.video}: {offset.in_words()}")
        if report.rows is not None:
            self.row_lags[report.rows.lag] = self.row_lags.get(report.rows.lag, 0) + 1
        for sample in report.samples:
            _count(self.samples, place, 1)
            _count(self.steps, place, sample.steps)
            self.truncated_segments += sample.truncated > 0
            for name, share in sample.coverage.items():
                _count(self.observed, name, round(share * sample.steps))
            for name, length in sample.lengths.items():
                _count(self.absent, name, int(length == 0))


def _count(counts: dict[str, int], key: str, number: int) -> None:
    counts[key] = counts.get(key, 0) + number


class ReportWriter:
    """Writes `report.json` video by video, so that no more than one is held; one line for each.

    Args:
        file: Opened for writing text.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._file.write('{\n"videos": {')
        self._separator = "\n"

    def add(self, report: VideoReport) -> None:
        """Write a video."""
        self._file.write(f"{self._separator}{json.dumps(report.video)}: {_json(report.to_json())}")
        self._separator = ",\n"

    def close(self, parts: Iterable[tuple[str, Any]]) -> None:
        """Write the named parts that concern all videos, and finish."""
        self._file.write("\n}")
        for name, part in parts:
            self._file.write(f",\n{json.dumps(name)}: {_json(part)}")
        self._file.write("\n}\n")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    """Spell out what JSON lacks: NaN and infinities, as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
