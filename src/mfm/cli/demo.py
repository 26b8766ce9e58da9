"""`mfm demo`: the main job on a synthetic corpus, from a file to a figure."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

from mfm.errors import ConfigurationError, MFMError

_USAGE = """\
usage: mfm demo [--output DIR]

Write a small synthetic corpus with the structure of MMSA's CMU-MOSI file and its defects (pre-padding, -inf in audio,
float64, lists), then inspect it, train MFM on it with a surrogate for missing modalities, test the best epoch with and
without text, predict, see how robust it is, and exchange factors between samples, with the commands you would use on
your own file. Everything lands in DIR (default: demo).
"""


def main(arguments: list[str]) -> int:
    """Run the demonstration; each step is a command line of its own, shown before it runs."""
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return 0
    folder = _folder(arguments)
    corpus, run = folder / "corpus.pkl", _free(folder)
    best, predictions = run / "checkpoints" / "best.ckpt", folder / "predictions.csv"
    _mfm("data", "generate", "--corpus", "mosi", "--output", str(corpus), "--overwrite")
    _mfm("data", "inspect", str(corpus))
    surrogate = ("--model.surrogate", "joint", "--model.surrogate_width", "16", "--model.surrogate_hidden", "32")
    _mfm("fit", "--config", "demo.yaml", "--data.path", str(corpus), "--run_dir", str(run), *surrogate)
    _mfm("test", "--ckpt_path", str(best))
    _mfm("test", "--ckpt_path", str(best), "--data.missing", "[text]")
    _mfm("predict", "--ckpt_path", str(best), "--output", str(predictions), "--factors", str(folder / "factors.h5"))
    _mfm("robustness", "--ckpt_path", str(best), "--protocols", "subsets", "random", "--draws", "2")
    _mfm("generate", "--ckpt_path", str(best), "--mode", "swap")
    content, style = _opposites(predictions)
    _mfm(
        *("generate", "--ckpt_path", str(best), "--mode", "swap", "--content", content, "--style", style),
        *("--output", str(run / "swapped_pair.h5")),
    )
    figures = {
        run / "figures" / "training_curves.png": "loss and validation error over epochs",
        run / "figures" / "test_predictions.png": "predicted against true sentiment",
        run / "robustness" / "robustness.png": "error while modalities are missing",
        run / "generated_swap.png": "100 exchanges of factors, and the sentiment read from them",
        run / "swapped_pair.png": "one exchange: Z_y of the most positive sample, Z_i of the most negative",
    }
    width = max(len(str(path)) for path in figures)
    listed = "\n              ".join(f"{path!s:{width}}  {meaning}" for path, meaning in figures.items())
    sys.stdout.write(
        f"""
Figures:      {listed}
Predictions:  {predictions}
Factors:      {folder / "factors.h5"}

The same with your own file (MMSA, MulT or MultiBench pickle, MFN folder, or a store):
  mfm data inspect aligned_50.pkl
  mfm fit --config mosei.yaml --data.path aligned_50.pkl
  mfm test --ckpt_path runs/mosei/version_0/checkpoints/best.ckpt
  mfm predict --ckpt_path runs/mosei/version_0/checkpoints/best.ckpt --output predictions.csv
"""
    )
    return 0


def _folder(arguments: list[str]) -> Path:
    """Make the folder that everything lands in."""
    if arguments and (len(arguments) != 2 or arguments[0] != "--output"):
        raise ConfigurationError(f"demo takes only --output DIR, got {shlex.join(arguments)}")
    folder = Path(arguments[1] if arguments else "demo")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--output {folder} cannot be made ({error.strerror}); choose another folder"
        ) from error
    return folder


def _free(folder: Path) -> Path:
    number = 0
    while (folder / f"run_{number}").exists():
        number += 1
    return folder / f"run_{number}"


def _opposites(predictions: Path) -> tuple[str, str]:
    """Ids of the samples of the highest and the lowest label; among equals, of the most extreme prediction."""
    with predictions.open(newline="", encoding="utf-8") as file:
        ranked = sorted(csv.DictReader(file), key=lambda row: (float(row["target"]), float(row["prediction"])))
    return ranked[-1]["id"], ranked[0]["id"]


def _mfm(*arguments: str) -> None:
    sys.stdout.write(f"\n$ {shlex.join(['mfm', *arguments])}\n")
    sys.stdout.flush()
    status = subprocess.run([sys.executable, "-m", "mfm", *arguments], check=False).returncode
    if status:
        raise MFMError(f"the step `{shlex.join(['mfm', *arguments])}` ended with status {status}")
