"""Arrays, names and labels out of whatever a file stores them as: arrays, lists, object arrays, bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfm.data.readers.padded import PaddedRows, PaddedSequences
from mfm.data.records import SPLITS, IntArray, SplitData
from mfm.data.spans import Given, SplitSpans
from mfm.errors import DataFormatError, nearest

SPLIT_ALIASES = {"val": "valid", "dev": "valid", "validation": "valid"}
_NUMERIC = "fiub"
CUSTOMARY = ("text", "audio", "vision", "video")


def describe(value: Any) -> str:
    """Type and shape of a value, for messages."""
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape} and type {value.dtype}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__


def _leaf(value: Any) -> Any:
    """First number or text of nested lists and arrays; None when there is none."""
    while isinstance(value, list | tuple | np.ndarray):
        if isinstance(value, np.ndarray) and (value.dtype != object or value.ndim == 0):
            return value.flat[0] if value.size else value.dtype.type()
        value = next((item for item in value if not (hasattr(item, "__len__") and len(item) == 0)), None)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_) and not isinstance(value, np.complexfloating)


def padded_rows(value: Any, where: str, path: Path) -> PaddedRows | None:
    """N padded samples (T, D) out of an array, an object array or nested lists.

    Args:
        value: Anything that a file holds under some name.
        where: Split and name, for messages.
        path: File that arrays are views of.

    Returns:
        The rows, or None when the value is not a 3-dimensional block of numbers.

    Raises:
        DataFormatError: It is one in which samples differ in T or D.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        return PaddedRows(value, path) if value.ndim == 3 and value.dtype.kind in _NUMERIC else None
    if not isinstance(value, list | tuple | np.ndarray) or len(value) == 0 or not _is_number(_leaf(value)):
        return None
    rows = list(value) if all(_is_plain(item) for item in value) else [_numbers(item, where) for item in value]
    if rows[0].ndim != 2:
        return None
    for index, row in enumerate(rows):
        if row.shape != rows[0].shape:
            raise DataFormatError(
                f"{where}: sample {index} has shape {row.shape} and sample 0 {rows[0].shape}; "
                "pad all samples of a modality to one T"
            )
    kind = np.result_type(*{row.dtype for row in rows})
    if any(not _is_plain(item) for item in value):
        return PaddedRows(np.stack(rows))
    return PaddedRows([row if row.dtype == kind else row.astype(kind) for row in rows], path)


def find_modalities(
    split: Mapping[str, Any],
    where: str,
    path: Path,
    other: Callable[[str], bool],
    needed: Iterable[str],
    notes: list[str],
) -> dict[str, PaddedRows]:
    """Every (N, T, D) block of numbers of a split, whatever its name.

    Args:
        split: Name -> value.
        where: File and split, for messages.
        path: The file.
        other: Says which names hold something else (labels, ids, ...).
        needed: Names under which a modality has to be found if they are there.
        notes: Gets a line for each value that is almost one.

    Raises:
        DataFormatError: A needed one is misshapen, or modalities differ in N.
    """
    found = {}
    for key, value in split.items():
        if other(key):
            continue
        try:
            rows = padded_rows(value, f"{where}/{key}", path)
        except DataFormatError as error:
            if key in needed:
                raise
            notes.append(f"ignored: {error}")
            continue
        if rows is not None:
            found[key] = rows
        elif key in needed:
            raise DataFormatError(f"{where}/{key} is {describe(value)}, expected (N, T, D) numbers")
    if found:
        same_count(found, where)
    return found


def _is_plain(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.dtype.kind in _NUMERIC


def _numbers(item: Any, where: str) -> NDArray[Any]:
    """One sample out of lists."""
    try:
        return np.asarray(item.tolist() if isinstance(item, np.ndarray) else item, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise DataFormatError(f"{where}: a sample is not a (T, D) block of numbers; its steps differ in D") from None


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode("utf-8").strip("\x00 ")
        except UnicodeDecodeError:
            return bytes(value).decode("latin-1").strip("\x00 ")
    if isinstance(value, list | tuple | np.ndarray):
        parts = [_text(part) for part in (value.ravel() if isinstance(value, np.ndarray) else value)]
        return "_".join(part for part in parts if part)
    if isinstance(value, np.generic):
        value = value.item()
        return _text(value) if isinstance(value, bytes) else str(value).strip("\x00 ")
    return "" if value is None else str(value).strip()


def texts(value: Any, samples: int, where: str) -> tuple[str, ...]:
    """N strings out of text, bytes, numbers, or rows of parts, which are joined by `_` where not empty.

    Raises:
        DataFormatError: There are not N.
    """
    if not isinstance(value, list | tuple | np.ndarray) or (isinstance(value, np.ndarray) and value.ndim == 0):
        raise DataFormatError(f"{where} is {describe(value)}, expected {samples} texts")
    if len(value) != samples:
        raise DataFormatError(f"{where} has {len(value)} entries for {samples} samples")
    return tuple(_text(item) for item in value)


def sample_ids(split: str, value: Any, samples: int, where: str) -> tuple[tuple[str, ...], bool]:
    """Names of samples, made up as `<split>_<index>` where the file has none; and whether it has."""
    if value is not None:
        names = texts(value, samples, where)
        if samples and all(names):
            return names, True
    return tuple(f"{split}_{index}" for index in range(samples)), False


def number_repeats(ids: Iterable[str], seen: Counter[str]) -> tuple[str, ...]:
    """Make `video#0`, `video#1`, ... of names that stand for a video and not for a sample.

    >>> number_repeats(["a", "a", "b"], Counter())
    ('a#0', 'a#1', 'b#0')
    """
    names = []
    for name in ids:
        names.append(f"{name}#{seen[name]}")
        seen[name] += 1
    return tuple(names)


def numeric(value: Any, where: str) -> NDArray[np.float64]:
    """Numbers of any shape as float64; None and empty text become NaN.

    Raises:
        DataFormatError: It holds something else.
    """
    try:
        array = np.asarray(value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value)
        if array.dtype == object:
            array = np.array([np.nan if item is None else item for item in array.ravel()]).reshape(array.shape)
        if array.dtype.kind not in _NUMERIC:
            array = np.array([float(item) if item else np.nan for item in array.ravel().tolist()]).reshape(array.shape)
        return array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        raise DataFormatError(f"{where} is {describe(value)}, expected numbers") from None


def label_array(value: Any, samples: int, where: str) -> NDArray[np.float64]:
    """Labels as (N, K) float64.

    (N,), (N, 1) and (N, 1, 1) become (N, 1); (N, K, 2) are pairs "absent, present", one-hot: the class is the
    argmax, NaN where a part of the pair is.

    Raises:
        DataFormatError: Another shape, or not N.
    """
    labels = numeric(value, where)
    if labels.ndim == 0 or len(labels) != samples:
        raise DataFormatError(f"{where} is {describe(value)} for {samples} samples")
    if labels.ndim == 3 and labels.shape[2] == 2:
        return np.where(np.isnan(labels).any(axis=2), np.nan, labels.argmax(axis=2))
    if labels.ndim == 3 and 1 in labels.shape[1:]:
        labels = labels.reshape(samples, max(labels.shape[1:]))
    if labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] == 0):
        raise DataFormatError(f"{where} has shape {labels.shape}, expected (N,), (N, K) or (N, K, 2)")
    return labels.reshape(samples, -1) if samples else np.zeros((0, labels.shape[1] if labels.ndim == 2 else 1))


def given_lengths(value: Any, samples: int, steps: int, where: str) -> IntArray:
    """Lengths that a file gives, (N,) int64.

    Raises:
        DataFormatError: Not N whole numbers between 0 and T.
    """
    lengths = numeric(value, where)
    if lengths.size != samples:
        raise DataFormatError(f"{where} has {lengths.size} entries for {samples} samples")
    lengths = lengths.reshape(-1)
    wrong = np.flatnonzero(~((lengths >= 0) & (lengths <= steps) & (lengths == np.round(lengths))))
    if len(wrong):
        raise DataFormatError(
            f"{where} says {lengths[wrong[0]]:g} steps for sample {wrong[0]}, but the array has room for {steps}"
        )
    return lengths.astype(np.int64)


def given_span(split: Mapping[str, Any], name: str, rows: PaddedRows, where: str) -> Given | None:
    """What `<modality>_lengths`, and `<modality>_starts` beside them, say of a modality; None where they are absent.

    Raises:
        DataFormatError: Not N whole numbers that fit into T.
    """
    value, starts = split.get(f"{name}_lengths"), split.get(f"{name}_starts")
    if value is None:
        return None
    lengths = given_lengths(value, len(rows), rows.shape[1], f"{where}/{name}_lengths")
    if starts is None:
        return Given(lengths)
    return Given(lengths, given_lengths(starts, len(rows), rows.shape[1], f"{where}/{name}_starts"))


def named_splits(tree: Any, where: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The splits of a pickled dictionary under their usual names, and notes on renamed ones.

    Raises:
        DataFormatError: It is no dictionary of splits.
    """
    if not isinstance(tree, dict):
        raise DataFormatError(f"{where} holds {describe(tree)}, expected a dictionary of splits train, valid, test")
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for key, value in tree.items():
        name = SPLIT_ALIASES.get(str(key).lower(), str(key).lower())
        if name not in SPLITS:
            continue
        if name in found:
            raise DataFormatError(f"{where} has split {name!r} twice, under {key!r} and another name")
        if not isinstance(value, dict):
            raise DataFormatError(f"{where}: split {key!r} is {describe(value)}, expected a dictionary of arrays")
        if name != key:
            notes.append(f"split {key!r} is read as {name!r}")
        found[name] = {str(inner): part for inner, part in value.items()}
    if not found:
        keys = ", ".join(repr(str(key)[:40]) for key in list(tree)[:8]) or "nothing"
        raise DataFormatError(f"{where} has no split named train, valid or test; it holds {keys}")
    return {name: found[name] for name in SPLITS if name in found}, notes


def complete_modalities(
    rows: Mapping[str, Mapping[str, PaddedRows]], asked: Sequence[str] | None, where: str
) -> tuple[list[str], list[str]]:
    """Check the modalities of all splits against each other and against what was asked for.

    Args:
        rows: Split -> modality -> samples.
        asked: Modalities to use; None for all that every split has.
        where: File, for messages.

    Returns:
        Modalities that every split has, and notes on those left out.

    Raises:
        DataFormatError: A modality asked for is missing in a split, D differs between splits, or there is none.
    """
    every = sorted({name for split in rows.values() for name in split})
    complete = [name for name in every if all(name in split for split in rows.values())]
    for name in asked or ():
        if name not in every:
            raise DataFormatError(f"{where} has no modality {name!r}: {nearest(name, every)}")
        if name not in complete:
            lacking = ", ".join(split for split, found in rows.items() if name not in found)
            raise DataFormatError(f"{where} has no {name!r} in split {lacking}; use modalities {complete}")
    if not complete:
        raise DataFormatError(f"{where} has no modality: no (N, T, D) array of numbers that every split has")
    for name in complete:
        dims = {split: found[name].shape[2] for split, found in rows.items()}
        if len(set(dims.values())) > 1:
            raise DataFormatError(f"{where}: {name} has another dimension in each split: {dims}")
    left_out = [name for name in every if name not in complete]
    return complete, [f"{name} is left out: not every split has it" for name in left_out]


def same_count(rows: Mapping[str, PaddedRows], where: str) -> int:
    """N of a split.

    Raises:
        DataFormatError: Modalities differ in N.
    """
    counts = {name: len(found) for name, found in rows.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataFormatError(f"{where}: modalities differ in their number of samples ({said})")
    return next(iter(counts.values()))


def build_split(
    rows: Mapping[str, PaddedRows],
    used: Sequence[str],
    spans: SplitSpans,
    ids: tuple[tuple[str, ...], bool],
    labels: Mapping[str, NDArray[np.float64]],
    raw_text: tuple[str, ...] | None = None,
) -> SplitData:
    """Put a split together from its parts; `spans` may cover more modalities than are used."""
    sequences = {name: PaddedSequences(rows[name], spans, name) for name in used}
    return SplitData(ids=ids[0], sequences=sequences, labels=labels, raw_text=raw_text, has_ids=ids[1])


def same_steps(rows: Mapping[str, PaddedRows], given: Mapping[str, Given]) -> bool:
    """Whether step t of all modalities can be the same moment: one T, and no lengths of their own."""
    lengths = [entry.lengths for entry in given.values()]
    agree = all(np.array_equal(lengths[0], other) for other in lengths[1:])
    return agree and len({found.shape[1] for found in rows.values()}) == 1
