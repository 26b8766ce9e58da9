"""Kill `mfm data align` at random moments and resume it: the result must be that of a run left alone.

    python benchmarks/killed_alignments.py --data DATA --output /tmp/killed --kills 20

DATA holds `csd/` and `folds/mosi.json`. CMU-MOSI's words, GloVe, audio, face geometry and labels are aligned with one
process and with two. Each is killed with SIGKILL after a random share of the time that a whole run takes, and started
again with `--resume`, until it gets through; then the next begins, until so many kills have been made. Compared are
every dataset and attribute of the store but its date, bit by bit, and the report; the exit status is 1 when anything
differs or is left over. Results go to `benchmarks/results/killed_alignments.md`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import h5py

import mfm

HERE = Path(__file__).resolve().parent
CSD = {
    "--pivot=": "CMU_MOSI_ModifiedTimestampedWords.csd",
    "--labels=": "CMU_MOSI_Opinion_Labels.csd",
    "--feature=text=": "CMU_MOSI_GloVe50.csd",
    "--feature=audio=": "MOSI16_Librosa.csd",
    "--feature=vision=": "MOSI16_FaceGeometry.csd",
}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
EARLIEST = 0.15  # share of the whole time, most of which goes to starting Python


class Attempt(NamedTuple):
    """One alignment: its processes, videos that were finished at each kill, and how it compares."""

    workers: int
    finished: list[int]
    equal: bool
    left: int


def content(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Every dataset and attribute of the store but its date, and the report but its command."""
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        for key, value in item.attrs.items():
            found[f"{name}@{key}"] = value if isinstance(value, str) else (str(value.dtype), value.tobytes())
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name] = values.tolist() if values.dtype == object else (str(values.dtype), values.tobytes())

    with h5py.File(folder / "mosi.h5") as file:
        file.visititems(visit)
        about = dict(file.attrs.items())
        found |= about | {"provenance": {**json.loads(about["provenance"]), "written": ""}}
    return found, {**json.loads((folder / "mosi.report.json").read_text()), "command": ""}


def finished(folder: Path) -> int:
    """Videos that a stopped run has kept."""
    return len(list((folder / ".mosi.h5.videos").glob("*.npz")))


def aligned(command: list[str], folder: Path, seconds: float | None) -> bool:
    """Start an alignment in a folder; kill it and its workers after so many seconds. Whether it got through."""
    process = subprocess.Popen(command, cwd=folder, **QUIET)
    try:
        if process.wait(seconds):
            sys.exit(f"failed: {' '.join(command)}")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def attempt(command: list[str], folder: Path, whole: tuple[object, float], draw: random.Random, left: int) -> Attempt:
    """Kill and resume an alignment until it gets through, at most so many times."""
    expected, seconds = whole
    folder.mkdir()
    kept: list[int] = []
    while not aligned(command, folder, draw.uniform(EARLIEST, 1) * seconds if len(kept) < left else None):
        kept.append(finished(folder))
    others = [path for path in folder.iterdir() if path.name not in ("mosi.h5", "mosi.report.json")]
    return Attempt(int(command[-1]), kept, content(folder) == expected, len(others))


def main() -> None:
    """Compare killed alignments with one left alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the stores; must not exist")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    data, output = options.data.resolve(), options.output.resolve()
    command = [sys.executable, "-m", "mfm", "data", "align", "--output", "mosi.h5", "--resume"]
    command += ["--folds", str(data / "folds" / "mosi.json")]
    command += [f"{option}{data / 'csd' / name}" for option, name in CSD.items()]
    wholes = {}
    for workers in (1, 2):
        folder = output / f"whole_{workers}"
        folder.mkdir(parents=True)
        started = time.perf_counter()
        aligned([*command, "--workers", str(workers)], folder, None)
        wholes[workers] = (content(output / "whole_1"), time.perf_counter() - started)
    same = content(output / "whole_2") == wholes[1][0]
    print(f"one and two processes left alone: {'equal' if same else 'DIFFERENT'}", flush=True)
    draw, attempts, kills = random.Random(options.seed), [], 0
    while kills < options.kills:
        workers = 1 + len(attempts) % 2
        folder = output / f"run_{len(attempts)}"
        attempts.append(
            attempt([*command, "--workers", str(workers)], folder, wholes[workers], draw, options.kills - kills)
        )
        kills += len(attempts[-1].finished)
        print(attempts[-1], flush=True)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "killed_alignments.md").write_text(markdown(options, attempts, kills, same))
    sys.exit(0 if same and all(one.equal and not one.left for one in attempts) else 1)


def markdown(options: argparse.Namespace, attempts: list[Attempt], kills: int, same: bool) -> str:
    """The table."""
    command = f"killed_alignments.py --data DATA --output DIR --kills {options.kills} --seed {options.seed}"
    lines = [
        "# Alignments that are killed and resumed",
        "",
        f"`python benchmarks/{command}`",
        "",
        f"{datetime.date.today().isoformat()}; mfm {mfm.__version__}. {kills} kills (SIGKILL) at random moments of "
        f"{len(attempts)} alignments of CMU-MOSI, 93 videos;",
        "stores and reports compared bit by bit with a run left alone. One process and two, left alone: "
        f"{'equal' if same else 'DIFFERENT'}.",
        "",
        "| processes | killed | videos finished at each kill | store and report | files left over |",
        "|---|---|---|---|---|",
    ]
    for one in attempts:
        moments = ", ".join(map(str, one.finished)) or "not killed"
        outcome = "equal" if one.equal else "DIFFERENT"
        lines.append(f"| {one.workers} | {len(one.finished)} | {moments} | {outcome} | {one.left} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
