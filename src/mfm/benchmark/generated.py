"""Generated corpora of a suite, and the best that any model can do on them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mfm.benchmark.predictions import write_predicted
from mfm.benchmark.suite import CorpusEntry
from mfm.data.factor_files import truth_path, write_factor_corpus
from mfm.data.factor_world import FactorSplit, FactorWorld
from mfm.errors import ConfigurationError, nearest

BOUND = "bound"
_SAMPLES = (1000, 200, 500)


def generate(entry: CorpusEntry, folder: Path) -> str:
    """Write a suite's generated corpus, unless it is there, and the predictions of who knows the label factor.

    Args:
        entry: The corpus; `generate` has options of `FactorWorld`, and `samples` of train, valid and test.
        folder: The suite's folder.

    Returns:
        Path of the corpus.

    Raises:
        ConfigurationError: An option that is unknown or cannot be used.
    """
    options = dict(entry.generate or {})
    where = f"corpora.{entry.label}.generate"
    known = {one.name for one in fields(FactorWorld)} | {"samples"}
    for name in options:
        if name not in known:
            raise ConfigurationError(f"{where} has an unknown key {name!r}: {nearest(str(name), known)}")
    digest = hashlib.sha256(json.dumps([entry.corpus, options], sort_keys=True).encode()).hexdigest()[:12]
    path = folder / "data" / f"{entry.label}_{digest}.h5"
    if truth_path(path).is_file() and (folder / "predictions" / entry.label / f"{BOUND}.npz").is_file():
        return str(path)
    corpus = _world(options, entry.corpus, where).draw(_samples(options.get("samples", _SAMPLES), where))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_factor_corpus(corpus, path, overwrite=True)
    test = corpus.splits["test"]
    best = conditional_median(corpus.world, test)
    write_predicted(
        folder / "predictions", entry.label, BOUND, best,
        test.labels.astype(np.float32), np.ones(test.labels.shape, dtype=np.bool_), test.ids,
    )  # fmt: skip
    return str(path)


def conditional_median(world: FactorWorld, split: FactorSplit) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The label's median given the label factor s, (N, 1): no prediction from features has a smaller expected MAE.

    Features depend on the label only through s, and of all predictions from s the conditional median has the smallest
    absolute error. With s standard normal and annotators' noise of deviation e, the label is the clipped
    c + (h - l)/6 (s + e n)/sqrt(1 + e^2), whose median given s is the clipped c + (h - l)/6 s/sqrt(1 + e^2).
    """
    low, high = world.record.label_range or (-3.0, 3.0)
    score = split.label_factor / math.sqrt(1.0 + world.label_noise**2)
    return np.clip((low + high) / 2 + (high - low) / 6 * score, low, high)


def _world(options: Mapping[str, Any], corpus: str, where: str) -> FactorWorld:
    given = {name: value for name, value in options.items() if name != "samples"}
    try:
        world = FactorWorld(**{"corpus": corpus, **given})
    except (TypeError, AttributeError) as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if world.record.task != "regression":
        raise ConfigurationError(
            f"{where}: corpus {world.corpus!r} has classes, for which no bound is known; choose one with ratings"
        )
    return world


def _samples(value: Any, where: str) -> tuple[int, int, int]:
    if not (isinstance(value, (list, tuple)) and len(value) == 3 and all(type(n) is int and n > 0 for n in value)):
        raise ConfigurationError(f"{where}.samples is {value!r}; give three whole numbers: train, valid, test")
    return value[0], value[1], value[2]
