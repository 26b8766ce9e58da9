"""Aligning a whole corpus: from computational sequences to a store and a report, one video at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mfm
from mfm.data.alignment.align import AlignmentOptions
from mfm.data.alignment.csd import ComputationalSequence
from mfm.data.alignment.folds import read_folds, seeded_folds, unknown_videos
from mfm.data.alignment.parts import FinishedVideos
from mfm.data.alignment.report import Fate, ReportWriter, Tally, Totals, VideoReport
from mfm.data.alignment.sources import Sources
from mfm.data.alignment.workers import Job, Task, WorkerLostError, aligned_videos
from mfm.data.store_content import split_order
from mfm.data.store_stream import stream_store
from mfm.errors import ConfigurationError, DataFormatError, nearest
from mfm.files import whole_file

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What `align_corpus` did.

    Attributes:
        totals: Sums over all videos.
        fingerprint: Of the store's content.
        notes: What a user may want to know.
        resumed: Videos that an earlier run had finished.
    """

    totals: Totals
    fingerprint: str
    notes: tuple[str, ...]
    resumed: int = 0


def align_corpus(
    sources: Sources,
    output: Path,
    report: Path,
    options: AlignmentOptions,
    *,
    overwrite: bool = False,
    resume: bool = False,
    workers: int = 1,
    record: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Write an aligned store and the report of every decision.

    Both appear under their names when they are whole. Memory: the largest video (of each worker), and names,
    transcripts and labels of all samples.

    Args:
        sources: The files.
        output: Store to write.
        report: JSON to write.
        options: How to align.
        overwrite: Replace existing files.
        resume: Go on with the videos that a killed run finished; existing files are replaced.
        workers: Processes that align videos; the result does not depend on their number.
        record: More for the report, such as the command.
        progress: Called with (videos done, total).

    Raises:
        ConfigurationError: An option that cannot be used, an existing file, or a video in two splits.
        CorpusNotFoundError: A file is not there.
        DataFormatError: A file is not a computational sequence, is damaged, or nothing can be aligned.
        MFMError: The disk is full or cannot be written to.
    """
    _check_options(sources, output, report, options, overwrite or resume)
    if workers < 1:
        raise ConfigurationError(f"the number of workers is {workers}; it must be at least 1")
    with ExitStack() as stack:
        corpus = _Corpus(sources, stack, options)
        finished = FinishedVideos(output, report, _settings(sources, options))
        taken = finished.start(resume=resume, overwrite=overwrite)
        try:
            outcome = _write(corpus, finished, output, report, workers, record, progress, taken)
        except WorkerLostError:
            raise  # a kill or Ctrl-C leaves what is finished, for going on
        except Exception:
            finished.discard()
            raise
        finished.discard()
    return outcome


def _settings(sources: Sources, options: AlignmentOptions) -> dict[str, Any]:
    """Everything that an aligned video depends on."""
    drawn = {} if sources.folds else {"folds": [list(sources.fractions), sources.seed]}
    return {"version": mfm.__version__, **sources.states(), **drawn, **asdict(options)}


def _write(
    corpus: _Corpus,
    finished: FinishedVideos,
    output: Path,
    report: Path,
    workers: int,
    record: Mapping[str, Any] | None,
    progress: Progress | None,
    taken: int,
) -> Outcome:
    sources, totals, before = corpus.sources, Totals(), corpus.sources.states()
    jobs = [Job(video, corpus.split(video)) for video, fate in corpus.fates.items() if fate is Fate.USED]
    with (
        whole_file(report) as written,
        written.open("w", encoding="utf-8") as text,
        stream_store(
            output,
            corpus.dims,
            corpus.dtypes,
            label_columns=sources.label_columns,
            aligned=corpus.options.aligned,
            overwrite=True,
        ) as store,
    ):
        writer = ReportWriter(text)
        aligned = aligned_videos(jobs, Task(sources, corpus.dims, corpus.options), finished, workers)
        for done, (video, fate) in enumerate(corpus.fates.items()):
            samples, found = next(aligned) if fate is Fate.USED else ([], corpus.skipped(video, fate))
            writer.add(found)
            totals.add(found)
            for sample in samples:
                store.append(corpus.split(video), sample)
            if progress is not None:
                progress(done + 1, len(corpus.fates))
        if not totals.samples:
            raise DataFormatError(
                f"no segment of {sources.labels} has a word of {sources.pivot} with a frame "
                f"({_counts(totals.segments.dropped)}); check that the files are of one corpus "
                "and their times in seconds"
            )
        notes = corpus.notes(totals)
        hashes = sources.fingerprints()
        changed = [state[0] for part, state in sources.states().items() if state != before[part]]
        if changed:
            raise DataFormatError(f"changed while they were read: {', '.join(changed)}; start again")
        fingerprint = store.finish(notes, _provenance(sources, hashes))
        writer.close({**(record or {}), **corpus.summary(totals, notes, hashes), "fingerprint": fingerprint}.items())
        text.flush()
    return Outcome(totals, fingerprint, notes, taken)


def _provenance(sources: Sources, hashes: Mapping[str, str]) -> dict[str, str]:
    names = " + ".join(path.name for path in sources.files.values())
    together = hashlib.sha256("".join(f"{part} {hashes[part]}\n" for part in sorted(hashes)).encode()).hexdigest()
    return {"source": names, "source_format": "csd", "source_fingerprint": together}


def _row_notes(totals: Totals) -> list[str]:
    """What to say where the texts of most videos belong to the intervals of other rows."""
    videos = totals.row_lags
    lag = max(videos, key=lambda lag: videos[lag], default=0)
    if lag == 0:
        return []
    side = f"{abs(lag)} row(s) {'before' if lag < 0 else 'after'}"
    return [
        f"in {videos[lag]} of {sum(videos.values())} videos the lengths of the words fit the durations {side}, not "
        f"their own: check the pivot; --shift-rows pivot={lag} shifts it, and features made of its rows (text={lag})"
    ]


class _Corpus:
    """The open files, and what becomes of each video."""

    def __init__(self, sources: Sources, stack: ExitStack, options: AlignmentOptions) -> None:
        pivot, labels = (stack.enter_context(ComputationalSequence(path)) for path in (sources.pivot, sources.labels))
        features = {
            name: stack.enter_context(ComputationalSequence(sources.features[name]))
            for name in sorted(sources.features)
        }
        self.sources, self.options = sources, options
        self._pivot, self._labels, self._features = pivot, labels, features
        common = [video for video in pivot.videos if video in labels]
        self._check_common(common)
        self._folds = (
            read_folds(sources.folds) if sources.folds else seeded_folds(common, sources.fractions, sources.seed)
        )
        if not any(video in self._folds for video in common):
            raise DataFormatError(
                f"{sources.folds} names none of the {len(common)} videos in {pivot.path} and {labels.path}; "
                "give the folds of this corpus"
            )
        first = {name: file.frames(file.first()).values for name, file in features.items()}
        self.dims = {name: values.shape[1] for name, values in first.items()}
        self.dtypes = {name: str(values.dtype) for name, values in first.items()}
        self._label_width = labels.frames(labels.first()).values.shape[1]
        self._check_columns(self._label_width)
        everywhere = sorted({video for file in (pivot, labels, *features.values()) for video in file.videos})
        self._unknown = unknown_videos(self._folds, everywhere) if sources.folds else []
        by_split = sorted(everywhere, key=lambda video: (self._place(video), video))
        self.fates = {video: self._fate(video) for video in by_split}

    def _check_common(self, common: Sequence[str]) -> None:
        if not common:
            raise DataFormatError(
                f"{self._pivot.path} and {self._labels.path} have no video in common "
                f"({self._pivot.first()!r} and {self._labels.first()!r} are their first); give files of one corpus"
            )
        for name, file in self._features.items():
            if not any(video in file for video in common):
                raise DataFormatError(
                    f"{file.path} ({name}) has none of the {len(common)} videos that have words and labels; "
                    "give the file of this corpus"
                )

    def _check_columns(self, width: int) -> None:
        for name, columns in (self.sources.label_columns or {}).items():
            if any(column >= width for column in columns):
                raise ConfigurationError(
                    f"the label array {name!r} is to have column {max(columns)}, counted from 0, but "
                    f"{self._labels.path} has {width}; name columns that are there"
                )

    def _place(self, video: str) -> int:
        order = split_order(set(self._folds.values()))
        return order.index(self._folds[video]) if video in self._folds else len(order)

    def _fate(self, video: str) -> Fate:
        if video not in self._labels:
            return Fate.NOT_IN_LABELS
        if video not in self._pivot:
            return Fate.NOT_IN_PIVOT
        if video not in self._folds:
            return Fate.NOT_IN_FOLDS
        if self.options.require_all and not all(video in file for file in self._features.values()):
            return Fate.LACKS_FEATURE
        return Fate.USED

    def split(self, video: str) -> str:
        """Where the samples of a video go."""
        return self._folds[video]

    def skipped(self, video: str, fate: Fate) -> VideoReport:
        """Report a video that is left out, by the numbers of what it has."""
        return VideoReport(
            video=video,
            split=None,
            skipped=fate.label,
            absent=[name for name, file in self._features.items() if video not in file],
            words=Tally.all_of(fate, self._pivot.count(video)),
            features={name: Tally.all_of(fate, file.count(video)) for name, file in self._features.items()},
            segments=Tally.all_of(fate, self._labels.count(video)),
        )

    def notes(self, totals: Totals) -> tuple[str, ...]:
        """What a user should know without reading the report."""
        notes = []
        if self.sources.folds is None:
            notes.append(
                f"no folds were given: train, valid and test were drawn by video, shares "
                f"{', '.join(f'{share:g}' for share in self.sources.fractions)}, seed {self.sources.seed}"
            )
        if self.sources.label_columns is None and self._label_width > 1:
            notes.append(
                f"all {self._label_width} columns of {self._labels.path} are one label array, 'labels'; make others "
                "with --label-columns, for example labels=0"
            )
        if self._unknown:
            notes.append(f"{len(self._unknown)} videos of the folds are in no file: {_some(self._unknown)}")
        for split in split_order(set(self._folds.values()) - set(totals.samples)):
            notes.append(f"the split {split!r} has no sample and is left out of the store")
        if totals.invalid_intervals:
            notes.append(f"{totals.invalid_intervals} intervals are not finite or end before they start; listed")
        if totals.truncated_segments:
            notes.append(f"{totals.truncated_segments} segments were cut to {self.options.max_length} words")
        notes += _row_notes(totals)
        for name, videos in totals.suspicious.items():
            notes.append(
                f"{name} may be at other times than the words in {len(videos)} videos ({_some(videos)}); see offsets "
                "in the report"
            )
        return tuple(notes)

    def summary(self, totals: Totals, notes: Sequence[str], hashes: Mapping[str, str]) -> dict[str, Any]:
        """What the report says of the corpus as a whole."""
        files = {"pivot": self._pivot, "labels": self._labels}
        files |= {f"feature {name}": file for name, file in self._features.items()}
        return {
            "totals": asdict(totals),
            "options": asdict(self.options),
            "files": {
                part: {"path": str(file.path), "root": file.root, "videos": len(file.videos), "sha256": hashes[part]}
                for part, file in files.items()
            },
            "dims": self.dims,
            "label_columns": self.sources.label_columns,
            "folds": {
                "path": str(self.sources.folds) if self.sources.folds else None,
                "sha256": hashes.get("folds"),
                "seed": None if self.sources.folds else self.sources.seed,
                "in_no_file": self._unknown,
            },
            "notes": list(notes),
        }


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in dropped.items())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_options(sources: Sources, output: Path, report: Path, options: AlignmentOptions, overwrite: bool) -> None:
    if not sources.features:
        raise ConfigurationError("no feature was given; name at least one, for example text=glove.csd")
    if not 0 <= options.min_overlap < float("inf"):
        raise ConfigurationError(f"the least overlap is {options.min_overlap} s; it must be 0 or more")
    if options.max_length is not None and options.max_length < 1:
        raise ConfigurationError(f"the maximum length is {options.max_length} words; it must be at least 1")
    _check_unaligned(sources, options)
    for name in options.shift_rows:
        if name != "pivot" and name not in sources.features:
            raise ConfigurationError(
                f"rows of {name!r} cannot be shifted: {nearest(name, ['pivot', *sources.features])}"
            )
    if output.resolve() == report.resolve():
        raise ConfigurationError(f"store and report are both to be {output}; choose another name for one")
    read = [*sources.files.values(), *([sources.folds] if sources.folds else [])]
    for target in (output, report):
        if any(target.resolve() == path.resolve() for path in read):
            raise ConfigurationError(f"{target} is a file that is read; choose another name")
        if target.exists() and (target.is_dir() or not overwrite):
            raise ConfigurationError(f"{target} exists already; choose another name or allow overwriting")


def _check_unaligned(sources: Sources, options: AlignmentOptions) -> None:
    if options.nearest_within is not None:
        if not 0 <= options.nearest_within < float("inf"):
            raise ConfigurationError(f"the nearest frame within {options.nearest_within} s: give 0 s or more")
        if not options.aligned:
            raise ConfigurationError("a nearest frame is for words with one vector each; leave one option out")
    for what, given in (("pool", options.pool), ("max_frames", options.max_frames)):
        if given and not options.unaligned:
            raise ConfigurationError(f"{what} is for unaligned corpora; add --unaligned, or leave it out")
        for name, number in given.items():
            if name not in sources.features:
                raise ConfigurationError(f"{what} names no modality {name!r}: {nearest(name, sources.features)}")
            if number < 1:
                raise ConfigurationError(f"{what} of {name!r} is {number}; it must be at least 1")
    if options.unaligned and options.reduction != AlignmentOptions.reduction:
        raise ConfigurationError(f"unaligned frames are not reduced to words; leave {options.reduction!r} out")
