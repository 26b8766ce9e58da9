"""Seconds and peak memory of `mfm interpret` on a corpus of CMU-MOSEI's size.

    OMP_NUM_THREADS=1 python benchmarks/interpret_size.py --folder /tmp/interpret_size

The public generator writes 22,856 x 50 steps of text 300, audio 74, vision 35 (a pickle of 2 GB, converted to a store
and deleted; 5 GB of disk are needed), on which MOSEI's configuration is trained for a few batches: what interpreting
costs does not depend on what was learned. `mfm interpret` then runs with its defaults, on the test split and on all
samples, in processes of their own, of which wall seconds and peak resident memory are taken. What is there already is
used again. Results go to `benchmarks/results/interpret_size.md`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import sys
from pathlib import Path

from mosei_size import measured

HERE = Path(__file__).resolve().parent
SIZES = (16326, 1871, 4659)
DIMS = ("text=300", "audio=74", "vision=35")
BATCHES = 20


def made(folder: Path, sizes: list[int], steps: int) -> Path:
    """The store and a checkpoint on it, made where they are missing; returns the checkpoint."""
    mfm = [sys.executable, "-m", "mfm"]
    store, run = folder / "mosei.h5", folder / "run"
    checkpoint = run / "checkpoints" / "last.ckpt"
    if not store.exists():
        pickle = folder / "mosei.pkl"
        generate = ["--corpus", "mosei", "--samples", *map(str, sizes), "--steps", str(steps), "--dims", *DIMS]
        measured("generate", [*mfm, "data", "generate", *generate, "--output", str(pickle), "--overwrite"], folder)
        measured("convert", [*mfm, "data", "convert", str(pickle), "--output", str(store)], folder)
        pickle.unlink()
    if not checkpoint.exists():
        few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", str(BATCHES)]
        few += ["--trainer.limit_val_batches", "2"]
        fit = ["--config", "mosei.yaml", "--data.path", str(store), "--run_dir", str(run), *few]
        measured("fit", [*mfm, "fit", *fit], folder)
    return checkpoint


def main() -> None:
    """Make what is needed, interpret, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder for the big files; they are left there")
    parser.add_argument("--samples", type=int, nargs=3, default=list(SIZES), help="of each split; MOSEI's by default")
    parser.add_argument("--steps", type=int, default=50, help="steps of each sample (50)")
    parser.add_argument("--splits", nargs="+", choices=("test", "all"), default=["test", "all"], help="both by default")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "interpret_size.md")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = made(folder, options.samples, options.steps)
    rows = []
    for split in options.splits:
        count = options.samples[2] if split == "test" else sum(options.samples)
        own = ["--ckpt_path", str(checkpoint), "--split", split, "--output", str(folder / f"found_{split}")]
        name, seconds, memory, _ = measured(
            f"mfm interpret --split {split}", [sys.executable, "-m", "mfm", "interpret", *own], folder
        )
        rows.append(f"| `{name}` | {count:,} | {seconds:.0f} | {memory:.0f} |")
    given = ["DIR" if word == str(options.folder) else word for word in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/interpret_size.py", *given])
    lines = [
        "# `mfm interpret` on a corpus of CMU-MOSEI's size",
        "",
        f"`{command}`, {datetime.date.today().isoformat()}; {platform.machine()}, {os.cpu_count()} CPUs, no GPU, "
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}.",
        "",
        f"Synthetic samples of {options.steps} steps, {', '.join(DIMS)}; the model of `mosei.yaml` after {BATCHES} "
        "batches; generator, training and draws have the seeds that are the commands' defaults.",
        "",
        "| command, all else by default | samples | seconds | peak memory, MB |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
