"""Cells that train nothing, and folders of results that look as if they had."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mfm.benchmark.predictions import write_predicted
from mfm.benchmark.records import ResultsFile
from mfm.benchmark.suite_file import parse_suite
from mfm.errors import DataFormatError
from mfm.files import write_json

SUITE = {
    "name": "fake",
    "corpora": {"mosi": "mosi.pkl"},
    "models": {"one": "one.yaml", "two": "two.yaml"},
    "seeds": [1, 2],
}


def suite(**changes):
    return parse_suite({**SUITE, **changes}, "s.yaml")


def cell(task):
    """A cell whose numbers follow from its seed; its model's name may ask for trouble."""
    seed, model = task.about["seed"], task.about["model"]
    print("working on", model)
    if model == "wrong":
        raise DataFormatError("the file is wrong")
    if model == "bug":
        raise ZeroDivisionError("division by zero")
    if model == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if model == "slow":
        time.sleep(60)
    if model == "exits":
        sys.exit(3)
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    number = np.random.default_rng(seed).random()
    return {"monitor": "val/mae", "epochs": 1, "metrics": {"test": {"mae": number}}, "pid": os.getpid()}


def finished(folder: Path, predictions: dict[str, np.ndarray], target: np.ndarray, **changes) -> Path:
    """A suite's folder with finished runs: model -> (seeds, N) predictions of a corpus as CMU-MOSI."""
    results = ResultsFile(folder)
    label = changes.pop("corpus", "mosi")
    ids = [f"v$_${index}" for index in range(len(target))]
    for model, several in predictions.items():
        for seed, prediction in enumerate(several, start=1):
            values = prediction.astype(np.float32)
            path = write_predicted(
                folder / "predictions", label, f"{model}_{seed}", values[:, None], target[:, None],
                np.ones((len(target), 1), dtype=bool), ids,
            )  # fmt: skip
            metrics = {
                "mae": float(np.abs(values - target).mean()),
                "corr": float(np.corrcoef(values, target)[0, 1]),
                "acc2_has0": float(((values < 0) == (target < 0)).mean()),
            }
            record = {
                "suite": "fake", "corpus": label, "model": model, "seed": seed, "status": "ok", "monitor": "val/mae",
                "mode": "min", "corpus_name": "mosi", "config_hash": model * 12, "data_fingerprint": "f" * 64,
                "metrics": {"test": metrics, "val": metrics}, "epochs": 3, "parameters": 1000, "seconds_fit": 2.0,
                "peak_memory_mb": {"host": 300.0}, "started": "2026-11-24T10:00:00Z", "predictions": path,
                "versions": {"torch": "2.13.0"}, "budget": {"max_epochs": 3, "max_seconds": None},
                "stopped_by": "configuration", "device": "cpu",
            }  # fmt: skip
            results.append({**record, **changes})
    models = {model: model.upper() for model in predictions}
    write_json(folder / "suite.json", {"corpora": {label: "A corpus"}, "models": models, "reference": "one"})
    return folder
