"""Runs of the training commands, in this process and in one of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mfm.cli import main

FAST = ("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu")


def run_mfm(*arguments, cwd, check=True, **environment):
    """`mfm` in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "mfm", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if check:
        assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def fit(path, *options, config="demo.yaml", run_dir="run"):
    """Fit in this process; returns the run directory."""
    place = ("--data.path", str(path), "--run_dir", str(run_dir))
    assert main(["fit", "--config", config, *place, *FAST, *options]) == 0
    return Path(run_dir)


def metrics(path):
    """Read a metrics file."""
    return json.loads(Path(path).read_text())
