"""One cell of a suite: `mfm fit`, then `mfm test` of its best checkpoint, and what its record says."""

from __future__ import annotations

import csv
import json
import math
import platform
import resource
import shutil
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Timer

from mfm.benchmark.isolation import Task
from mfm.benchmark.predictions import write_predicted
from mfm.callbacks.run_logger import RunLogger
from mfm.cli.training import MFMCLI, main
from mfm.errors import MFMError
from mfm.metrics import describe


def train_and_test(task: Task) -> dict[str, Any]:
    """Train, select the epoch on validation, and test.

    Args:
        task: The cell.

    Returns:
        What its record says of it. `seconds_fit` is all of `mfm fit` but the start of the process: reading the data
        and its statistics, every epoch's training and validation, saving; `seconds_test` all of `mfm test`.

    Raises:
        MFMError: The options or the data are wrong, or no epoch ended within the budget.
    """
    torch.set_num_threads(task.threads)
    folder = Path(task.folder)
    kept: dict[str, Any] = {}
    command = _keeping(kept, task)
    begin = time.perf_counter()
    _run(["fit", *task.arguments, "--run_dir", str(folder)], command)
    trained = time.perf_counter()
    checkpoint = folder / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise MFMError("no epoch ended within the budget; allow more seconds")
    _run(["test", "--ckpt_path", str(checkpoint)], command)
    done = time.perf_counter()
    fit, test = (json.loads((folder / f"metrics_{stage}.json").read_text()) for stage in ("fit", "test"))
    monitor = next(name for name in fit if name.startswith("best/")).removeprefix("best/")
    selected = _selected_epoch(folder / RunLogger.FILE, monitor, fit[f"best/{monitor}"])
    stages = {"val": _stage(selected, "val"), "test": _stage(test, "test")}
    names = kept.pop("names")
    _remove_checkpoints(folder / "checkpoints", task.keep)
    return {
        "monitor": monitor,
        "epochs": fit["epochs"],
        "best_epoch": int(selected["epoch"]),
        "metrics": {stage: _split(values, names)[0] for stage, values in stages.items()},
        "losses": {stage: _split(values, names)[1] for stage, values in stages.items()},
        "samples": test["samples"],
        "seconds": round(done - begin, 3),
        "seconds_fit": round(trained - begin, 3),
        "seconds_test": round(done - trained, 3),
        "peak_memory_mb": _peak_memory(),
        **{key: test[key] for key in ("data_fingerprint", "parameters", "versions")},
        "corpus_name": test["corpus"],
        "module": test["model"],
        "machine": platform.machine(),
        **kept,
    }


def _run(arguments: list[str], command: type[MFMCLI]) -> None:
    status = main(arguments, command)
    if status:
        raise MFMError(f"mfm {arguments[0]} ended with status {status}")


def _keeping(kept: dict[str, Any], task: Task) -> type[MFMCLI]:
    """The command line that also keeps what its files do not tell."""

    class Keeping(MFMCLI):
        def after_fit(self) -> None:
            super().after_fit()
            timers = [one for one in self.trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
            out_of_time = any((timer.time_remaining() or 1.0) <= 0.0 for timer in timers)
            kept["stopped_by"] = "max_seconds" if out_of_time else "configuration"
            kept["device"] = _device(self)
            kept["names"] = describe(self.model.corpus).keys()
            kept["mode"] = getattr(self.trainer.checkpoint_callback, "mode", None)

        def after_test(self) -> None:
            super().after_test()
            collected = self.collector.collected
            if collected is None:
                return
            about = task.about
            kept["predictions"] = write_predicted(
                Path(task.predictions),
                about["corpus"],
                f"{about['model']}_{about['seed']}",
                collected.prediction.numpy(),
                collected.target.numpy(),
                collected.target_mask.numpy(),
                collected.ids,
            )

    return Keeping


def _device(cli: MFMCLI) -> str:
    device = cli.trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _selected_epoch(path: Path, monitor: str, best: float) -> dict[str, float]:
    """What was logged at the epoch that was selected."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    # checkpoints hold the best value in 32 bits
    known = [row for row in rows if math.isfinite(row.get(monitor, math.nan))]
    return min(known, key=lambda row: abs(row[monitor] - best))


def _stage(values: dict[str, Any], stage: str) -> dict[str, float]:
    prefix = f"{stage}/"
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _split(values: dict[str, float], names: Collection[str]) -> tuple[dict[str, float], dict[str, float]]:
    """The corpus' metrics, and the parts of the loss."""
    parts = {name: value for name, value in values.items() if name not in names}
    return {name: value for name, value in values.items() if name in names}, parts


def _remove_checkpoints(folder: Path, keep: str) -> None:
    if keep == "none":
        shutil.rmtree(folder)
    elif keep == "best":
        for path in folder.glob("*.ckpt"):
            if path.name != "best.ckpt":
                path.unlink()


def _peak_memory() -> dict[str, float]:
    """Peak of this process' memory, and of the device's where one was used, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)}
    if torch.cuda.is_available():
        peak["device"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return peak
