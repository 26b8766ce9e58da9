"""Files of corpora with known factors: the corpus in a published format, the true factors beside it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mfm.data.factor_networks import Values
from mfm.data.factor_world import FactorCorpus, FactorSplit
from mfm.data.records import FloatArray
from mfm.data.store import write_store
from mfm.data.store_read import open_h5
from mfm.errors import ConfigurationError, DataFormatError
from mfm.files import whole_file

FORMAT = "mfm-true-factors"


@dataclass(frozen=True, eq=False)
class TrueFactors:
    """The truth of one split.

    Attributes:
        ids: N names, in the file's order.
        factors: Block (`y` or a modality) -> (N, k) true factors.
        views: Modality -> (N,) what it saw of the label factor.
    """

    ids: tuple[str, ...]
    factors: Mapping[str, Values]
    views: Mapping[str, Values]


def truth_path(path: str | Path) -> Path:
    """Where the true factors of a corpus lie: `corpus.h5` -> `corpus.factors.h5`."""
    return Path(path).with_suffix(".factors.h5")


def write_factor_corpus(corpus: FactorCorpus, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a corpus, and its true factors beside it (`truth_path`).

    Args:
        corpus: The corpus.
        path: `*.h5` for a store, `*.pkl` for a pickle as MMSA's, of a regression corpus.
        overwrite: Replace existing files.

    Returns:
        `path`.

    Raises:
        ConfigurationError: Another ending, a file exists, or MMSA's format cannot hold these labels.
        MFMError: The system refuses to write.
    """
    target = Path(path)
    if target.suffix not in (".h5", ".pkl"):
        raise ConfigurationError(f"{target} has no known ending; choose .h5 (store) or .pkl (as MMSA's)")
    for file in (target, truth_path(target)):
        if file.exists() and not overwrite:
            raise ConfigurationError(f"{file} exists already; choose another name or allow overwriting")
    if target.suffix == ".h5":
        write_store(corpus.records(), target, overwrite=overwrite)
    else:
        _write_mmsa(corpus, target)
    _write_truth(corpus, truth_path(target))
    return target


def _write_mmsa(corpus: FactorCorpus, target: Path) -> None:
    if corpus.world.record.task != "regression":
        raise ConfigurationError(
            f"MMSA's files hold ratings, and corpus {corpus.world.corpus!r} has classes; write a store (.h5)"
        )
    content = {name: _mmsa_split(corpus, split) for name, split in corpus.splits.items()}
    with whole_file(target) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file, protocol=4)


def _mmsa_split(corpus: FactorCorpus, split: FactorSplit) -> dict[str, Any]:
    ratings = split.labels[:, 0].astype(np.float32)
    content: dict[str, Any] = {
        name: _padded(rows, corpus.world.total_steps[name], corpus.world.dims[name], pre=corpus.world.aligned)
        for name, rows in split.features.items()
    }
    content |= {"id": np.array(split.ids), "raw_text": np.array([""] * len(split), dtype=object)}
    content |= {"regression_labels": ratings, "classification_labels": np.sign(ratings) + 1}
    if not corpus.world.aligned:
        content |= {f"{name}_lengths": lengths.tolist() for name, lengths in split.lengths.items()}
    return content


def _padded(rows: list[FloatArray], total: int, dim: int, *, pre: bool) -> FloatArray:
    padded = np.zeros((len(rows), total, dim), dtype=np.float32)
    for out, row in zip(padded, rows, strict=True):
        start = total - len(row) if pre else 0
        out[start : start + len(row)] = row
    return padded


def _write_truth(corpus: FactorCorpus, target: Path) -> None:
    text = h5py.string_dtype("utf-8")
    with whole_file(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        options = {one.name: getattr(corpus.world, one.name) for one in fields(corpus.world)}
        file.attrs["world"] = json.dumps({k: dict(v) if isinstance(v, Mapping) else v for k, v in options.items()})
        for name, split in corpus.splits.items():
            group = file.create_group(name)
            group.create_dataset("ids", data=np.asarray(split.ids, dtype=object), dtype=text)
            for block, values in split.factors.items():
                group.create_dataset(f"factors/{block}", data=values)
            for modality, values in split.views.items():
                group.create_dataset(f"views/{modality}", data=values)


def read_true_factors(path: str | Path) -> dict[str, TrueFactors]:
    """Read the true factors of a corpus.

    Args:
        path: The corpus' file or that of its factors.

    Returns:
        Split -> truth.

    Raises:
        DataFormatError: No such file, or it holds something else.
    """
    source = Path(path) if Path(path).name.endswith(".factors.h5") else truth_path(path)
    if not source.is_file():
        raise DataFormatError(f"{source} does not exist; only generated corpora have true factors beside them")
    with open_h5(source) as file:
        if file.attrs.get("format") != FORMAT:
            raise DataFormatError(f"{source} is HDF5 but holds no true factors; give the file written beside a corpus")
        return {
            name: TrueFactors(
                tuple(group["ids"].asstr()[:]),
                {block: values[:] for block, values in group["factors"].items()},
                {block: values[:] for block, values in group["views"].items()},
            )
            for name, group in file.items()
        }
