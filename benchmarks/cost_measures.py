"""What the sections of `costs.py` share: what a section is, spreads, exponents, peaks of resident memory."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent


class Section(NamedTuple):
    """One part of the cost suite.

    Attributes:
        title: Heading.
        about: What was measured, and how; Markdown.
        columns: Headings of the table.
        rows: Its cells, as they are shown.
        values: The numbers behind it, for JSON.
    """

    title: str
    about: str
    columns: list[str]
    rows: list[list[str]]
    values: Any


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median and third quartile."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, statistics.median(values), high


def shown(values: Sequence[float], form: str = ".1f") -> str:
    """Median, with quartiles in brackets."""
    low, middle, high = quartiles(values)
    return f"{middle:{form}} ({low:{form}}, {high:{form}})"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio in each round, of which medians and quartiles are taken: both had the machine's same moment."""
    return [one / other for one, other in zip(above, below, strict=True)]


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The p of costs = c * sizes^p, by least squares between logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


# ------------------------------------------------------------------------------------------------------------- memory


def _status(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(field)


def peak_growth(work: Callable[[], object]) -> float:
    """MB by which resident memory rose, at its highest, above what it was when `work` began (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak (VmHWM) begins anew
    before = _status("VmRSS")
    kept = work()
    found = _status("VmHWM") - before
    del kept
    return found


def in_child(script: str, *arguments: str, whole_pages: bool = False) -> Any:
    """Run a file of this folder in a process of its own, and read the JSON that it prints.

    Args:
        script: Its name.
        arguments: Of its command line.
        whole_pages: Give memory of tensors back at once, so that several measurements in one process do not
            find each other's.
    """
    own = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"} if whole_pages else {}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **own},
    )
    if done.returncode:
        sys.exit(f"{script} {' '.join(arguments)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
