"""What a corpus of CMU-MOSEI's size costs: inspect, convert, open, and an epoch from the store.

    python benchmarks/mosei_size.py --output /tmp/mosei

The public generator writes an MMSA pickle of 22,856 x 50 x (768 + 74 + 35) float32 (about 4 GB; 6 GB of disk are needed
in all). Every step runs in a process of its own, of which wall seconds and peak resident memory are taken; reading the
file once from end to end stands beside them for comparison. Results go to `benchmarks/results/mosei_size.md`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZES = (16326, 1871, 4659)

GENERATE = """
import sys
from mfm.data.synthetic import write_mmsa
write_mmsa(sys.argv[1], "mosei", {sizes}, defects=False, seed=0)
"""
READ = """
import sys
with open(sys.argv[1], "rb", buffering=0) as file:
    buffer = bytearray(1 << 24)
    while file.readinto(buffer):
        pass
"""
OPEN = """
import sys, time
import mfm.data.store
started = time.perf_counter()
data = mfm.data.store.read_store(sys.argv[1])
print(f"{{time.perf_counter() - started:.3f}}", {{name: len(split) for name, split in data.splits.items()}})
"""


def measured(name: str, command: list[str], cwd: Path) -> tuple[str, float, float, str]:
    """Run a command; returns its name, seconds, peak resident memory in MB and last line of output."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name}: {command} failed")
    row = (name, time.perf_counter() - started, usage.ru_maxrss / 1024, (output.strip().splitlines() or [""])[-1])
    print(f"{row[0]:45} {row[1]:8.1f} s {row[2]:8.0f} MB  {row[3]}", flush=True)
    return row


def main() -> None:
    """Run all steps and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the big files; they are left there")
    parser.add_argument("--batches", type=int, default=50, help="training batches of 64 in the timed epoch's beginning")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "mosei_size.md")
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pickle, store = folder / "aligned_50.pkl", folder / "mosei.h5"
    store.unlink(missing_ok=True)
    python, mfm = [sys.executable, "-c"], [sys.executable, "-m", "mfm"]
    fit = [*mfm, "fit", "--config", "mosei.yaml", "--data.path", str(store), "--trainer.max_epochs", "1"]
    fit += ["--trainer.limit_train_batches", str(options.batches), "--trainer.limit_val_batches", "2"]
    rows = []
    if not pickle.exists():
        rows.append(measured("generate the pickle", [*python, GENERATE.format(sizes=SIZES), str(pickle)], folder))
    rows.append(measured("import of the training command alone", [*python, "import mfm.cli.training"], folder))
    rows.append(measured("read the pickle's bytes once", [*python, READ, str(pickle)], folder))
    rows.append(measured("mfm data inspect", [*mfm, "data", "inspect", str(pickle)], folder))
    rows.append(measured("mfm data convert", [*mfm, "data", "convert", str(pickle), "--output", str(store)], folder))
    rows.append(measured("open the store (seconds printed at the right)", [*python, OPEN.format(), str(store)], folder))
    rows.append(measured("mfm data verify", [*mfm, "data", "verify", str(store)], folder))
    few = [*fit, "--data.limit", "640"]
    rows.append(measured("mfm fit on 640 of its samples, the same model: what is not data", few, folder))
    rows.append(measured(f"mfm fit from the store, {options.batches} batches of 64", fit, folder))
    sizes = f"{pickle.stat().st_size / 1e9:.2f} GB pickle, {store.stat().st_size / 1e9:.2f} GB store"
    lines = ["# A corpus of CMU-MOSEI's size", "", "`python benchmarks/mosei_size.py --output DIR`", ""]
    lines += [f"{datetime.date.today().isoformat()}; {sizes}; {platform.machine()}, {os.cpu_count()} CPUs, no GPU, "]
    lines[-1] += f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; page cache warm."
    lines += ["", "| step | seconds | peak memory, MB |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.1f} | {memory:.0f} |" for name, seconds, memory, _ in rows]
    opened = next(last.split()[0] for name, _, _, last in rows if name.startswith("open"))
    lines += [
        "",
        f"Opening the store itself took {opened} s; the rest of its row is the interpreter and its imports.",
        "",
    ]
    lines += ["Training's growth by data is the difference of the last two rows. An epoch has 256 batches of 64."]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
