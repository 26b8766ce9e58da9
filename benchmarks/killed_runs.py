"""Kill training at random moments and resume it, until it is done: the result must be that of a run left alone.

    python benchmarks/killed_runs.py --output /tmp/killed --runs 10

Each run on a small synthetic corpus (dropout, modality dropout, annealed rate) is killed with SIGKILL after a random
number of seconds, again and again, and resumed with `mfm fit --ckpt_path RUN/checkpoints/last.ckpt` alone. Compared are
all metrics, `metrics.csv` and the best weights, bit by bit; the exit status is 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from mfm.data.synthetic import write_corpus

FIT = [sys.executable, "-m", "mfm", "fit"]
SETTINGS = ["--trainer.max_epochs", "12", "--model.dropout", "0.5", "--model.schedule", "cosine"]
SETTINGS += ["--data.missing_rate", "0.2"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def outcome(run: Path) -> tuple[dict[str, float], str, dict[str, torch.Tensor]]:
    """Metrics, logged rows and best weights of a run."""
    metrics = json.loads((run / "metrics_fit.json").read_text())
    kept = {key: value for key, value in metrics.items() if "/" in key or key == "epochs"}
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return kept, (run / "metrics.csv").read_text(), weights


def run_to_the_end(new: list[str], run: Path, draw: random.Random, shortest: float, longest: float) -> int:
    """Start, kill and resume until the run has its final metrics; returns how often it was killed."""
    kills, last = 0, run / "checkpoints" / "last.ckpt"
    while not (run / "metrics_fit.json").exists():
        if not last.exists():
            shutil.rmtree(run, ignore_errors=True)  # killed before its first checkpoint: there is nothing to resume
        process = subprocess.Popen([*FIT, "--ckpt_path", str(last)] if last.exists() else new, **QUIET)
        try:
            process.wait(draw.uniform(shortest, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    return kills


def main() -> None:
    """Compare killed runs with one left alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; must not exist")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(4.0, 8.0), help="shortest and longest life of a process"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    corpus = options.output / "corpus.pkl"
    write_corpus("mosi", corpus, (60, 20, 13), seed=3)
    new = [*FIT, "--config", "demo.yaml", "--data.path", str(corpus), *SETTINGS, "--run_dir"]
    subprocess.run([*new, str(options.output / "whole")], check=True, **QUIET)
    whole, draw, differing = outcome(options.output / "whole"), random.Random(options.seed), 0
    for number in range(options.runs):
        run = options.output / f"run_{number}"
        kills = run_to_the_end([*new, str(run)], run, draw, *options.seconds)
        found = outcome(run)
        same = found[:2] == whole[:2] and all(torch.equal(found[2][key], whole[2][key]) for key in whole[2])
        left = [str(path) for path in run.rglob("*.part")]
        differing += not same
        print(
            f"run {number}: killed {kills} times, {'equal' if same else 'DIFFERENT'}, {len(left)} left over", flush=True
        )
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
