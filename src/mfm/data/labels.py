"""From the label arrays of a file to the targets of a corpus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfm.corpora import Corpus
from mfm.data.records import SplitData
from mfm.errors import DataFormatError, nearest

_SLACK = 10.0  # POM holds ratings a little outside its range; ten times the range is another scale or array


class Targets(NamedTuple):
    """Labels of N samples, ready for a loss.

    Attributes:
        values: Regression, binary and multi-label: (N, K) float32. Multi-class: (N,) int64. 0 where masked.
        mask: Same shape, bool, False where the label is missing.
    """

    values: NDArray[np.float32] | NDArray[np.int64]
    mask: NDArray[np.bool_]


def empty_targets(samples: int, corpus: Corpus) -> Targets:
    """Targets of unlabelled samples: all masked."""
    if corpus.task == "multiclass":
        return Targets(np.zeros(samples, np.int64), np.zeros(samples, np.bool_))
    shape = (samples, corpus.output_dim)
    return Targets(np.zeros(shape, np.float32), np.zeros(shape, np.bool_))


def decode_labels(
    split: SplitData, corpus: Corpus, target: str | None = None, *, required: bool = True, where: str = "the file"
) -> Targets:
    """Take the labels of a corpus from a split.

    Args:
        split: The split.
        corpus: What is known of the corpus: task, label names, columns, classes, range.
        target: Name of the label array; by default the first of the corpus' `label_keys` that is there.
        required: Refuse a split without any label. When False, missing labels are masked.
        where: File and split, for messages.

    Returns:
        Targets, NaN labels masked. One-hot rows (multi-class, binary) become classes; binary labels may be 0/1 or -1/1.

    Raises:
        DataFormatError: No such array, no label at all, wrong width, a class that is none, or a value
            more than ten times outside the corpus' range.
    """
    name = _array_name(split, corpus, target, required, where)
    if name is None:
        return empty_targets(len(split), corpus)
    labels = np.asarray(split.labels[name], dtype=np.float64)
    labels = labels[:, None] if labels.ndim == 1 else labels
    said = f"{where}: label array {name!r}"
    if labels.ndim != 2 or len(labels) != len(split):
        raise DataFormatError(f"{said} has shape {labels.shape} for {len(split)} samples; one row a sample is needed")
    if np.isinf(labels).any():
        raise DataFormatError(f"{said} holds infinite values; mark missing labels with NaN")
    if required and len(labels) and np.isnan(labels).all():
        raise DataFormatError(
            f"{said} holds no label at all (all NaN); choose another with --data.target or train without labels "
            "with --data.labels false"
        )
    if corpus.task == "regression":
        return _regression(labels, corpus, said)
    if corpus.task == "multilabel":
        labels = _columns(labels, corpus, said)
        return _masked(_check_classes(labels, 2, said))
    count = len(corpus.classes) if corpus.task == "multiclass" else 2
    classes = _classes(labels, count, said)
    if corpus.task == "binary":
        return _masked(classes[:, None])
    mask = ~np.isnan(classes)
    return Targets(np.where(mask, classes, 0).astype(np.int64), mask)


def _array_name(split: SplitData, corpus: Corpus, target: str | None, required: bool, where: str) -> str | None:
    there = split.labels
    if target is not None:
        if target in there:
            return target
        if required:
            raise DataFormatError(f"{where} has no label array {target!r} (--data.target): {nearest(target, there)}")
        return None
    for name in corpus.label_keys:
        if name in there:
            return name
    if required:
        raise DataFormatError(
            f"{where} has no labels for {corpus.title} (looked for {', '.join(corpus.label_keys)}; there are: "
            f"{', '.join(sorted(there)) or 'none'}); name the array with --data.target or train without labels with "
            "--data.labels false"
        )
    return None


def _regression(labels: NDArray[np.float64], corpus: Corpus, said: str) -> Targets:
    labels = _columns(labels, corpus, said)
    if corpus.label_range is not None:
        bound = _SLACK * max(abs(edge) for edge in corpus.label_range)
        if (np.abs(labels) > bound).any():  # NaN compares False
            worst = float(labels[np.abs(labels) > bound][0])
            low, high = corpus.label_range
            raise DataFormatError(
                f"{said} holds {worst:g}, far outside [{low:g}, {high:g}] of {corpus.title}; "
                "another array or another corpus is meant (--data.target, --data.corpus)"
            )
    return _masked(labels)


def _columns(labels: NDArray[np.float64], corpus: Corpus, said: str) -> NDArray[np.float64]:
    """Keep the corpus' columns of (N, W) labels."""
    width, wanted = labels.shape[1], corpus.output_dim
    if width == wanted:
        return labels
    if corpus.columns is not None and width > max(corpus.columns):
        return labels[:, list(corpus.columns)]
    raise DataFormatError(
        f"{said} has {width} column(s), {corpus.title} has {wanted} ({', '.join(corpus.targets[:4])}"
        f"{', ...' if wanted > 4 else ''}); another array or another corpus is meant (--data.target, --data.corpus)"
    )


def _classes(labels: NDArray[np.float64], count: int, said: str) -> NDArray[np.float64]:
    """Classes (N,) from (N, 1) numbers or (N, count) one-hot rows; NaN where missing."""
    if labels.shape[1] == count:
        missing = np.isnan(labels).any(axis=1)
        rows = labels[~missing]
        if not (np.isin(rows, (0.0, 1.0)).all() and (rows.sum(axis=1) == 1).all()):
            raise DataFormatError(f"{said} has {count} columns that are not one-hot; one 1 a row, else 0, is needed")
        classes = np.full(len(labels), np.nan)
        classes[~missing] = rows.argmax(axis=1)
        return classes
    if labels.shape[1] != 1:
        raise DataFormatError(f"{said} has {labels.shape[1]} columns; 1 (classes) or {count} (one-hot) are needed")
    column = labels[:, 0]
    known = column[~np.isnan(column)]
    if count == 2 and (known == -1).any() and np.isin(known, (-1.0, 1.0)).all():
        return (column + 1) / 2
    return _check_classes(column, count, said)


def _check_classes(labels: NDArray[np.float64], count: int, said: str) -> NDArray[np.float64]:
    known = labels[~np.isnan(labels)]
    wrong = known[(known != np.round(known)) | (known < 0) | (known >= count)]
    if len(wrong):
        raise DataFormatError(
            f"{said} holds {wrong[0]:g}, which is no class: 0 to {count - 1} are; another array or another corpus is "
            "meant (--data.target, --data.corpus)"
        )
    return labels


def _masked(labels: NDArray[np.float64]) -> Targets:
    mask = ~np.isnan(labels)
    return Targets(np.where(mask, labels, 0.0).astype(np.float32), mask)
