"""Any corpus as other people's code reads it: MMSA and MulT pickles; `mfm.data.export_csd` has computational sequences.

What a format cannot hold is said in a sentence for each loss. Both pickles carry `<modality>_lengths` and
`<modality>_starts`, which published loaders do not look at: a real step that is all zero could not be told from
padding without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfm.data.records import CorpusData, FloatArray, Sequences, SplitData
from mfm.data.store_content import split_order
from mfm.data.streamed_pickle import StreamedArray, StreamingPickler
from mfm.errors import ConfigurationError, DataFormatError, nearest
from mfm.files import whole_file

Progress = Callable[[int, int], None]
_BLOCK_BYTES = 8 * 1024 * 1024
_MMSA = ("text", "audio", "vision")
_RATINGS = ("regression_labels", "labels")
_SIGNS = {-1: "Negative", 0: "Neutral", 1: "Positive"}


def export_mmsa(
    data: CorpusData,
    path: str | Path,
    *,
    target: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write MMSA's dictionary: `{split: {raw_text, text, audio, vision, id, annotations, regression_labels, ...}}`.

    Every label array of the corpus keeps its name. `regression_labels` (N,), `classification_labels` (N,) 0/1/2 and
    `annotations` are made from the first column of one of them. There is no `text_bert`: tokens cannot be made from
    features, and a made-up mask would be believed.

    Args:
        data: What a reader or a store hands over; written sample by sample.
        path: File to write, a protocol-4 pickle.
        target: Label array that `regression_labels` is made from; that of this name or `labels` by default.
        overwrite: Replace an existing file.
        progress: Called with (numbers written, total).

    Returns:
        A sentence for everything that the format cannot hold or that was made up.

    Raises:
        ConfigurationError: `path` exists, or no label array has the name `target`.
        DataFormatError: Nothing to export.
        MFMError: The disk is full or cannot be written to.
    """
    layout = _Layout(data, pre_padded=False, progress=progress)
    notes = [*layout.notes, *_lost_words(data)]
    lacking = [name for name in _MMSA if name not in layout.steps]
    if lacking:
        notes.append(f"there is no {' and no '.join(lacking)}, which MMSA's own loader asks for")
    content = {}
    for name in split_order(data.splits):
        split = data.splits[name]
        if split.raw_text is None:
            notes.append(f"{name} has no transcripts: raw_text is empty text")
        content[name] = {
            "raw_text": np.array(split.raw_text if split.raw_text is not None else [""] * len(split), dtype=object),
            **layout.arrays(name),
            "id": list(split.ids),
            **{label: _flat(values) for label, values in split.labels.items() if _is_mmsa_label(label)},
            **_ratings(split, target, f"{data.path}: {name}", notes),
            **layout.spans(name),
        }
        left = [label for label in split.labels if not _is_mmsa_label(label)]
        if left:
            notes.append(f"{name}: label array(s) {', '.join(left)} have no place in MMSA's files and are left out")
    _dump(content, path, overwrite)
    return list(dict.fromkeys(notes))


def export_mult(
    data: CorpusData,
    path: str | Path,
    *,
    target: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write MulT's dictionary: `{split: {text, audio, vision, labels, id}}`, pre-padded.

    `labels` is (N, K, 1), or (N, K, 2) pairs "absent, present" where there are several columns of 0 and 1 (IEMOCAP).
    `id` is (N, 3): the name and two empty texts, where published files have video, start and end.

    Args:
        data: What a reader or a store hands over; written sample by sample.
        path: File to write, a protocol-4 pickle.
        target: Label array that becomes `labels`; `regression_labels`, `labels` or the only one by default.
        overwrite: Replace an existing file.
        progress: Called with (numbers written, total).

    Returns:
        A sentence for everything that the format cannot hold.

    Raises:
        ConfigurationError: `path` exists, or which label array is meant is unclear.
        DataFormatError: Nothing to export.
        MFMError: The disk is full or cannot be written to.
    """
    layout = _Layout(data, pre_padded=True, progress=progress)
    notes = [*layout.notes, *_lost_words(data)]
    content: dict[str, dict[str, Any]] = {}
    for name in split_order(data.splits):
        split = data.splits[name]
        content[name] = layout.arrays(name)
        label = _label_name(split, target, f"{data.path}: {name}", None)
        if label is not None:
            content[name]["labels"] = _pairs_or_column(np.asarray(split.labels[label], dtype=np.float64))
        if split.has_ids:
            content[name]["id"] = np.array([[one, "", ""] for one in split.ids]).reshape(len(split), 3)
        content[name] |= layout.spans(name)
        left = [other for other in split.labels if other != label]
        if left:
            notes.append(f"{name}: MulT's files hold one label array, {label}; left out: {', '.join(left)}")
        if split.raw_text is not None:
            notes.append(f"{name}: transcripts have no place in MulT's files and are left out")
    _dump(content, path, overwrite)
    return list(dict.fromkeys(notes))


class _Place(NamedTuple):
    """Where the steps of a modality of one split go: (N,) first step each, of T."""

    sequences: Sequences
    starts: NDArray[np.int64]
    steps: int


class _Layout:
    """Padded arrays of every split and modality, filled while they are written.

    A corpus whose source padded on one side keeps that source's layout; a ragged one is padded on the format's side.
    """

    def __init__(self, data: CorpusData, *, pre_padded: bool, progress: Progress | None) -> None:
        if not data.splits or not any(split.sequences for split in data.splits.values()):
            raise DataFormatError(f"{data.path} has no features; there is nothing to export")
        self._data, self._pre, self._progress = data, pre_padded, progress
        self.notes: list[str] = []
        self.steps = self._find_steps()
        self._counts = {name: self._sample_lengths(split) for name, split in data.splits.items()}
        self._done, self._total = 0, 0
        self._places = {name: self._find_places(name) for name in data.splits}
        self._total = sum(
            len(place.starts) * place.steps * place.sequences.dim
            for places in self._places.values()
            for place in places.values()
        )

    def arrays(self, split: str) -> dict[str, Any]:
        """Modality -> (N, T, D) float32."""
        return {
            name: StreamedArray(
                (len(place.starts), place.steps, place.sequences.dim), np.float32, partial(self._fill, place)
            )
            for name, place in self._places[split].items()
        }

    def spans(self, split: str) -> dict[str, list[int]]:
        """`<modality>_lengths` and `_starts`; in an aligned corpus the sample's, also where a modality is absent."""
        lengths = {f"{name}_lengths": self._counts[split][name].tolist() for name in self._places[split]}
        return lengths | {f"{name}_starts": place.starts.tolist() for name, place in self._places[split].items()}

    def _find_steps(self) -> dict[str, int]:
        """T of each modality: the source's, or the longest; one for all where the corpus is aligned."""
        longest: dict[str, int] = {}
        for split in self._data.splits.values():
            for name, sequences in split.sequences.items():
                needed = sequences.file_steps or int(np.max(sequences.lengths, initial=1))
                longest[name] = max(longest.get(name, 1), needed)
        return dict.fromkeys(longest, max(longest.values())) if self._data.aligned else longest

    def _sample_lengths(self, split: SplitData) -> dict[str, NDArray[np.int64]]:
        lengths = {name: np.asarray(sequences.lengths) for name, sequences in split.sequences.items()}
        if not self._data.aligned:
            return lengths
        return dict.fromkeys(lengths, np.max(list(lengths.values()), axis=0, initial=0).astype(np.int64))

    def _find_places(self, split: str) -> dict[str, _Place]:
        places = {}
        for name, sequences in self._data.splits[split].sequences.items():
            lengths = self._counts[split][name]
            places[name] = _Place(sequences, self._starts(sequences, lengths, self.steps[name], name), self.steps[name])
            self._count_zero(split, name, sequences)
        return places

    def _starts(self, sequences: Sequences, lengths: NDArray[np.int64], steps: int, name: str) -> NDArray[np.int64]:
        post, pre = np.zeros_like(lengths), steps - lengths
        if sequences.file_steps:
            there, given = np.asarray(sequences.lengths) > 0, np.asarray(sequences.starts)
            for side in (pre, post) if self._pre else (post, pre):
                if sequences.file_steps == steps and (given == side)[there].all():
                    return side
            self.notes.append(f"{name}: the source's padding, of no one side, becomes that of the format")
        return pre if self._pre else post

    def _count_zero(self, split: str, name: str, sequences: Sequences) -> None:
        zero = sum(1 for index in np.flatnonzero(sequences.lengths) if not sequences.steps(int(index)).any())
        if zero:
            self.notes.append(f"{split}: {name} is all zero in {zero} sample(s), which reads as absent")

    def _fill(self, place: _Place) -> Iterator[FloatArray]:
        sequences, steps = place.sequences, place.steps
        at_once = max(1, _BLOCK_BYTES // (4 * steps * max(sequences.dim, 1)))
        for start in range(0, len(sequences), at_once):
            stop = min(start + at_once, len(sequences))
            block = np.zeros((stop - start, steps, sequences.dim), dtype=np.float32)
            for index in range(start, stop):
                first = int(place.starts[index])
                block[index - start, first : first + int(sequences.lengths[index])] = sequences.steps(index)
            yield block
            self._done += block.size
            if self._progress is not None:
                self._progress(self._done, self._total)


def _dump(content: Mapping[str, Any], path: str | Path, overwrite: bool) -> None:
    target = Path(path)
    if target.exists() and (target.is_dir() or not overwrite):
        raise ConfigurationError(f"{target} exists already; choose another name or allow overwriting")
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {target.parent} does not exist; create it first")
    with whole_file(target) as temporary, temporary.open("wb") as file:
        StreamingPickler(file).dump(dict(content))


def _is_mmsa_label(name: str) -> bool:
    return name == "labels" or name.startswith(("regression_labels", "classification_labels"))


def _label_name(split: SplitData, target: str | None, where: str, otherwise: str | None) -> str | None:
    """The label array that a format with one of them gets; `otherwise` names the remedy's option."""
    if target is not None:
        if target not in split.labels:
            raise ConfigurationError(f"{where} has no label array {target!r}: {nearest(target, split.labels)}")
        return target
    for name in _RATINGS:
        if name in split.labels:
            return name
    if len(split.labels) > 1 and otherwise is None:
        raise ConfigurationError(f"{where} has the label arrays {', '.join(sorted(split.labels))}; name one as target")
    return next(iter(split.labels), None) if otherwise is None else None


def _ratings(split: SplitData, target: str | None, where: str, notes: list[str]) -> dict[str, Any]:
    """MMSA's three arrays of one rating, unless the corpus has them."""
    label = _label_name(split, target, where, "none")
    if label is None:
        notes.append(f"{where} has no ratings: regression_labels, classification_labels and annotations are left out")
        return {}
    columns = np.asarray(split.labels[label], dtype=np.float64)
    if columns.shape[1] > 1:
        notes.append(f"{where}: regression_labels is the first of the {columns.shape[1]} columns of {label}")
    ratings = columns[:, 0]
    made: dict[str, Any] = {} if label == "regression_labels" else {"regression_labels": ratings}
    if "classification_labels" not in split.labels:
        made["classification_labels"] = np.sign(ratings) + 1
    signs = [_SIGNS.get(int(sign), "") if np.isfinite(sign) else "" for sign in np.sign(ratings)]
    return {**made, "annotations": signs}


def _flat(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 1) as the (N,) that published files have."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _pairs_or_column(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    known = labels[~np.isnan(labels)]
    if labels.shape[1] > 1 and len(known) and np.isin(known, (0.0, 1.0)).all():
        return np.stack([1 - labels, labels], axis=-1)
    return labels[:, :, None]


def _lost_words(data: CorpusData) -> list[str]:
    notes = []
    if any(split.words is not None for split in data.splits.values()):
        notes.append("times of words have no place in this format and are left out")
    marked = {name for split in data.splits.values() for name, one in split.sequences.items() if one.marks_observed}
    if marked:
        notes.append(f"marks of unobserved steps ({', '.join(sorted(marked))}) are left out; the steps are zero")
    return notes
