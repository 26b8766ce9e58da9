"""Files of results: predictions as CSV, latent codes and factors as HDF5."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from mfm.corpora import Corpus
from mfm.files import whole_file


def prediction_columns(corpus: Corpus, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, list[str]]:
    """Turn a head's raw output into named columns.

    Args:
        corpus: Task, targets and classes.
        prediction: (N, output_dim), raw output of the head.
        target: (N, K) or, for `multiclass`, (N,) labels.
        mask: Same shape as `target`, False where the label is missing; such a cell is left empty.

    Returns:
        Column name -> N cells. One target: `target`, `prediction`; several: `target_<name>`, `prediction_<name>`.
        Classes add `p_<class>` (multi-class) or `p` / `p_<name>` (binary, multi-label), the probability of "present".
    """
    prediction = prediction.double()
    columns: dict[str, list[str]] = {}
    if prediction.shape[1] == 0:
        return columns
    if corpus.task == "multiclass":
        columns["target"] = _cells(target, mask, corpus.classes)
        columns["prediction"] = [corpus.classes[index] for index in prediction.argmax(1).tolist()]
        probabilities = prediction.softmax(1)
        for index, name in enumerate(corpus.classes):
            columns[f"p_{name}"] = _numbers(probabilities[:, index])
        return columns
    for index, name in enumerate(corpus.targets):
        suffix = f"_{name}" if len(corpus.targets) > 1 else ""
        columns[f"target{suffix}"] = _cells(target[:, index], mask[:, index])
        if corpus.task == "regression":
            columns[f"prediction{suffix}"] = _numbers(prediction[:, index])
        else:
            columns[f"prediction{suffix}"] = [str(int(value > 0)) for value in prediction[:, index].tolist()]
            columns[f"p{suffix}"] = _numbers(prediction[:, index].sigmoid())
    return columns


def _numbers(values: Tensor) -> list[str]:
    return [f"{value:.7g}" for value in values.tolist()]


def _cells(values: Tensor, mask: Tensor, names: Sequence[str] = ()) -> list[str]:
    return [
        "" if not known else names[int(value)] if names else f"{value:.7g}"
        for value, known in zip(values.tolist(), mask.tolist(), strict=True)
    ]


def write_predictions(
    path: str | Path, ids: Sequence[str], splits: Sequence[str], columns: Mapping[str, Sequence[str]]
) -> None:
    """Write `id, split` and the given columns as CSV, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "split", *columns])
        writer.writerows(zip(ids, splits, *columns.values(), strict=True))


def write_factors(
    path: str | Path,
    ids: Sequence[str],
    splits: Sequence[str],
    codes: Mapping[str, Tensor],
    factors: Mapping[str, Tensor],
    provenance: Mapping[str, str],
) -> None:
    """Write latent codes and factors of every sample.

    The file holds `ids` (N,), `splits` (N,), `z/<block>` (N, z) and `f/<block>` (N, f), where a block is `y` (shared,
    discriminative) or a modality (generative); `provenance` becomes attributes of the root.
    """
    text = h5py.string_dtype("utf-8")
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        for key, value in {"format": "mfm-factors", **provenance}.items():
            file.attrs[key] = value
        file.create_dataset("ids", data=np.asarray(ids, dtype=object), dtype=text)
        file.create_dataset("splits", data=np.asarray(splits, dtype=object), dtype=text)
        for group, blocks in (("z", codes), ("f", factors)):
            for name, block in blocks.items():
                file.create_dataset(f"{group}/{name}", data=block.to(torch.float32).numpy())
