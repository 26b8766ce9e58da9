"""What benchmarks of trained runs share: commands that go on where they stopped, and what a table says of itself."""

from __future__ import annotations

import datetime
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def run(*arguments: str) -> float:
    """Run `mfm` and return its seconds; a failure ends the suite with the command's own message."""
    started = time.perf_counter()
    finished = subprocess.run([sys.executable, "-m", "mfm", *arguments], capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{shlex.join(['mfm', *arguments])}\n{finished.stderr[-2000:]}")
    return time.perf_counter() - started


def fit(folder: Path, *arguments: str) -> str:
    """Train a run unless it is finished, going on with a stopped one; returns the path of its best checkpoint."""
    if not (folder / "metrics_fit.json").is_file():
        last = folder / "checkpoints" / "last.ckpt"
        new = [*arguments, "--run_dir", str(folder)]
        run("fit", *(["--ckpt_path", str(last)] if last.is_file() else new))
    return str(folder / "checkpoints" / "best.ckpt")


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample deviation; NaN of a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def shown(mean: float, deviation: float) -> str:
    """A mean with its deviation, if it has one, as in the tables."""
    return f"{mean:.3f}" if math.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"


def head(command: str, seeds: int, first: Mapping[str, Any]) -> dict[str, Any]:
    """What a table says of itself; `first` is any result of the command line, for versions and data."""
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "seeds": f"1 to {seeds}",
        "versions": ", ".join(f"{key} {value}" for key, value in dict(first["versions"]).items()),
        "data_fingerprint": first["data_fingerprint"],
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, no GPU",
    }


def heading(name: str, about: Mapping[str, Any]) -> list[str]:
    """First lines of a suite's Markdown."""
    parameters = f" {about['parameters']} parameters;" if "parameters" in about else ""
    return [
        f"# {name}",
        "",
        f"`{about['command']}`",
        "",
        f"{about['date']}; seeds {about['seeds']}; {about['versions']}; data {about['data_fingerprint'][:12]};"
        f"{parameters} {about['machine']}.",
        "Mean and standard deviation over the seeds. Each seed's epoch was chosen on validation.",
    ]
