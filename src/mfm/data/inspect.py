"""What a file is, what is in it, and what may be wrong with it: `mfm data inspect`.

One pass over the numbers finds contents, lengths, NaN and infinities together.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfm.corpora import CORPORA, KnownFile
from mfm.data.readers import fingerprint, read_corpus
from mfm.data.readers.padded import PaddedSequences
from mfm.data.records import CorpusData, Sequences, SplitData
from mfm.data.spans import Spans, content_of, padding_side

HASH_LIMIT = 512 * 1024 * 1024
"""Files up to this size are hashed without being asked."""

MAX_CLASSES = 10
_BINS = 12
_STORE_BLOCK = 16 * 1024 * 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Distribution:
    """Lengths of the samples that have a modality; zeros when none has."""

    minimum: int
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: int
    mean: float


@dataclass(frozen=True)
class ModalityReport:
    """One modality of one split.

    Attributes:
        shape: (N, T, D) as stored; T is 0 where the source was ragged.
        dtype: Type of the numbers in the file.
        lengths: Real steps of the samples that have it.
        padding: `pre`, `post`, `mixed` or `none`.
        nan: Numbers that are NaN.
        infinite: Numbers that are infinite.
        absent: Samples in which it is all zero.
        zero_steps: All-zero steps between the first and the last real one.
        outside: Steps with content that the file's own lengths leave out.
    """

    shape: tuple[int, int, int]
    dtype: str
    lengths: Distribution
    padding: str
    nan: int
    infinite: int
    absent: int
    zero_steps: int
    outside: int


@dataclass(frozen=True)
class ColumnReport:
    """One column of a label array; counts by class when it holds few whole numbers, by bin otherwise."""

    missing: int
    minimum: float | None
    mean: float | None
    maximum: float | None
    classes: dict[str, int] | None
    histogram: list[int] | None


@dataclass(frozen=True)
class SplitReport:
    """One split.

    Attributes:
        samples: N.
        has_ids: Whether the file names its samples.
        duplicated_ids: Names that occur more than once -> how often; the first ten.
        duplicates: How many names occur more than once.
        transcripts: Whether the file has the text.
        modalities: Modality -> report.
        labels: Label array -> its columns.
    """

    samples: int
    has_ids: bool
    duplicated_ids: dict[str, int]
    duplicates: int
    transcripts: bool
    modalities: dict[str, ModalityReport]
    labels: dict[str, list[ColumnReport]]


@dataclass(frozen=True)
class Match:
    """A published file that this one resembles.

    Attributes:
        corpus: Name of the corpus.
        file: Name of the published file.
        agrees: What agrees, in words.
        same_features: Whether the dimensions agree too.
        sha256: `identical`, `differs`, `unknown` (no published hash) or `not computed`.
    """

    corpus: str
    file: str
    agrees: str
    same_features: bool
    sha256: str


@dataclass(frozen=True)
class CorpusReport:
    """A whole file.

    Attributes:
        path: What was read.
        format: `mmsa`, `mult`, `mfn` or `store`.
        aligned: Whether step t of all modalities is the same moment.
        bytes: Size on disk.
        fingerprint: SHA-256 (see `mfm.data.readers.fingerprint`), None where it was not computed.
        matches: Published files that it resembles, closest first.
        splits: Split -> report.
        shared_ids: `train/valid` -> how many names both have.
        shared_videos: The same for the videos that the names belong to.
        notes: What the reader decided.
    """

    path: str
    format: str
    aligned: bool
    bytes: int
    fingerprint: str | None
    matches: list[Match]
    splits: dict[str, SplitReport]
    shared_ids: dict[str, int]
    shared_videos: dict[str, int]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dictionaries, text and numbers, without NaN."""
        return dataclasses.asdict(self)


def inspect_corpus(
    path: str | Path,
    modalities: Sequence[str] | None = None,
    *,
    sha256: bool | None = None,
    progress: Progress | None = None,
) -> CorpusReport:
    """Look a file over.

    Args:
        path: What `read_corpus` reads.
        modalities: Modalities to look at; all by default.
        sha256: Compute the fingerprint; by default for stores, folders and files of at most 512 MB.
        progress: Called with (bytes looked at, total).

    Returns:
        The report.

    Raises:
        CorpusNotFoundError: Nothing is there.
        DataFormatError: It cannot be read.
    """
    path = Path(path)
    data = read_corpus(path, modalities)
    size = (
        sum(file.stat().st_size for file in path.iterdir() if file.is_file()) if path.is_dir() else path.stat().st_size
    )
    counted = _Counted(data, progress)
    splits = {name: _inspect_split(split, counted) for name, split in data.splits.items()}
    wanted = sha256 if sha256 is not None else (size <= HASH_LIMIT or data.format == "store")
    found = fingerprint(path) if wanted else None
    names = {name: set(split.ids) for name, split in data.splits.items() if split.has_ids}
    return CorpusReport(
        path=str(path),
        format=data.format,
        aligned=data.aligned,
        bytes=size,
        fingerprint=found,
        matches=match_corpora(data, _source_hash(path, data, found)),
        splits=splits,
        shared_ids=_shared(names),
        shared_videos=_shared({name: {video_of(sample) for sample in ids} for name, ids in names.items()}),
        notes=list(data.notes),
    )


class _Counted:
    """Adds up what was looked at."""

    def __init__(self, data: CorpusData, progress: Progress | None) -> None:
        self._total = sum(_size(sequences) for split in data.splits.values() for sequences in split.sequences.values())
        self._done, self._progress = 0, progress

    def add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)


def _size(sequences: Sequences) -> int:
    if isinstance(sequences, PaddedSequences):
        return sequences.rows.nbytes
    return int(sequences.lengths.sum()) * sequences.dim * 4


def _inspect_split(split: SplitData, counted: _Counted) -> SplitReport:
    repeated = {name: count for name, count in Counter(split.ids).items() if count > 1}
    scans = {name: _scan(sequences, counted) for name, sequences in split.sequences.items()}
    return SplitReport(
        samples=len(split),
        has_ids=split.has_ids,
        duplicated_ids=dict(itertools.islice(repeated.items(), 10)),
        duplicates=len(repeated),
        transcripts=split.raw_text is not None,
        modalities={name: _modality(sequences, *scans[name]) for name, sequences in split.sequences.items()},
        labels={name: [_column(column) for column in array.T] for name, array in split.labels.items()},
    )


def _scan(sequences: Sequences, counted: _Counted) -> tuple[int, int, int]:
    """One pass over the numbers: NaN, infinities, and steps with content between first and last real step.

    In padded files the content found on the way is handed to the spans, and counted there later (-1 here).
    """
    nan = infinite = content = 0
    if not isinstance(sequences, PaddedSequences):
        for block in _real_steps(sequences):
            bad = _nonfinite(block)
            nan, infinite = nan + bad[0], infinite + bad[1]
            content += int(content_of(block[None]).sum())
            counted.add(block.nbytes)
        return nan, infinite, content
    mask = np.zeros(sequences.rows.shape[:2], dtype=np.bool_)
    for start, stop, block in sequences.rows.blocks():
        mask[start:stop] = content_of(block)
        bad = _nonfinite(block)
        nan, infinite = nan + bad[0], infinite + bad[1]
        counted.add(block.nbytes)
    if sequences.split_spans is not None:
        sequences.split_spans.learn(sequences.name, mask)
    return nan, infinite, -1


def _real_steps(sequences: Sequences) -> Iterator[NDArray[Any]]:
    from mfm.data.store_read import StoredSequences

    if isinstance(sequences, StoredSequences):
        size = max(1, _STORE_BLOCK // (4 * max(1, sequences.dim)))
        for start in range(0, sequences.total, size):
            yield sequences.rows(start, min(start + size, sequences.total))
    else:
        for index in range(len(sequences)):
            yield sequences.steps(index)


def _nonfinite(block: NDArray[Any]) -> tuple[int, int]:
    if block.dtype.kind != "f" or np.isfinite(block).all():
        return 0, 0
    return int(np.isnan(block).sum()), int(np.isinf(block).sum())


def _modality(sequences: Sequences, nan: int, infinite: int, content: int) -> ModalityReport:
    spans = Spans(sequences.starts, sequences.lengths)
    outside = 0
    if isinstance(sequences, PaddedSequences) and sequences.split_spans is not None:
        outside = sequences.split_spans.outside(sequences.name)
        content = int(sequences.split_spans.content(sequences.name).sum()) - outside
    return ModalityReport(
        shape=(len(sequences), sequences.file_steps, sequences.dim),
        dtype=str(sequences.dtype),
        lengths=_distribution(spans.lengths[spans.lengths > 0]),
        padding=padding_side(spans, sequences.file_steps) if sequences.file_steps else "none",
        nan=nan,
        infinite=infinite,
        absent=int((spans.lengths == 0).sum()),
        zero_steps=int(spans.lengths.sum()) - content,
        outside=outside,
    )


def _distribution(lengths: NDArray[np.int64]) -> Distribution:
    if len(lengths) == 0:
        return Distribution(0, 0.0, 0.0, 0.0, 0, 0.0)
    low, median, high = (float(value) for value in np.percentile(lengths, [25, 50, 75]))
    return Distribution(int(lengths.min()), low, median, high, int(lengths.max()), float(lengths.mean()))


def _column(values: NDArray[np.float64]) -> ColumnReport:
    real = values[np.isfinite(values)]
    missing = len(values) - len(real)
    if len(real) == 0:
        return ColumnReport(missing, None, None, None, None, None)
    kinds = np.unique(real)
    classes = histogram = None
    if len(kinds) <= MAX_CLASSES and (kinds == np.round(kinds)).all():
        classes = {f"{kind:g}": int((real == kind).sum()) for kind in kinds}
    else:
        histogram = [int(count) for count in np.histogram(real, bins=_BINS)[0]]
    return ColumnReport(missing, float(real.min()), float(real.mean()), float(real.max()), classes, histogram)


def video_of(name: str) -> str:
    """The video that a sample was cut from, as far as its name tells.

    >>> [video_of(name) for name in ("a_b$_$3", "a_b#0", "a_b[12]", "a_b_1.5_20.25", "a_b")]
    ['a_b', 'a_b', 'a_b', 'a_b', 'a_b']
    """
    for pattern in (r"(.+)\$_\$.*", r"(.+)#\d+", r"(.+)\[\d+\]", r"(.+)_[\d.]+_[\d.]+"):
        match = re.fullmatch(pattern, name)
        if match is not None:
            return match[1]
    return name


def _shared(names: Mapping[str, set[str]]) -> dict[str, int]:
    return {f"{one}/{other}": len(names[one] & names[other]) for one, other in itertools.combinations(names, 2)}


def _source_hash(path: Path, data: CorpusData, found: str | None) -> str | None:
    if data.format != "store":
        return found
    from mfm.data.store import store_provenance

    return store_provenance(path).get("source_fingerprint")


def match_corpora(data: CorpusData, sha256: str | None) -> list[Match]:
    """Published files with the same numbers of samples; those with the same dimensions only, if there are any.

    Args:
        data: What was read.
        sha256: Hash of the file (of a store: of its source), None where unknown.
    """
    sizes = {name: len(split) for name, split in data.splits.items()}
    dims = {name: found.dim for split in data.splits.values() for name, found in split.sequences.items()}
    found: list[Match] = []
    for corpus in CORPORA.values():
        for file in corpus.files:
            if file.sha256 is not None and file.sha256 == sha256:
                return [Match(corpus.name, file.name, "the whole file", True, "identical")]
            if sizes != dict(zip(("train", "valid", "test"), file.sizes, strict=True)) or _other_kind(file, data):
                continue
            common = {name: dim for name, dim in dims.items() if name in file.dims}
            same = bool(common) and all(file.dims[name] == dim for name, dim in common.items())
            agrees = "numbers of samples" + (f" and dimensions of {', '.join(common)}" if same else "; other features")
            status = "unknown" if file.sha256 is None else "not computed" if sha256 is None else "differs"
            found.append(Match(corpus.name, file.name, agrees, same, status))
    if any(match.same_features for match in found):
        return [match for match in found if match.same_features]
    # the features are others, so which of a corpus' published files it resembles means nothing
    return list({match.corpus: match for match in reversed(found)}.values())


def _other_kind(file: KnownFile, data: CorpusData) -> bool:
    """An aligned file is not the unaligned one of the same sizes."""
    return file.format == "mmsa" and data.format in ("mmsa", "store") and ("unaligned" in file.name) == data.aligned
