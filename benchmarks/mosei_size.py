"""What a corpus of CMU-MOSEI's size costs: inspect, convert, open, and an epoch from the store.

    python benchmarks/mosei_size.py --output /tmp/mosei

The public generator writes an MMSA pickle of 22,856 x 50 x (768 + 74 + 35) float32 (about 4 GB; 6 GB of disk are needed
in all). Every step runs in a process of its own, of which wall seconds and peak resident memory are taken. Converting
stands beside three ways of reading the same file: its bytes from the page cache, its bytes from the disk, and
`pickle.load`, which is how other programs open it. The steps that are compared take turns, and the median counts.
Results go to `benchmarks/results/mosei_size.md`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZES = (16326, 1871, 4659)
TARGET = 2.0  # times the time of reading

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
LOAD = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    pickle.load(file)
"""
OPEN = """
import sys, time
import mfm.data.store
started = time.perf_counter()
data = mfm.data.store.read_store(sys.argv[1])
print(f"{time.perf_counter() - started:.3f}", {name: len(split) for name, split in data.splits.items()})
"""
WARM, COLD = "page cache warm", "page cache cold"
CONVERT = "mfm data convert"
READINGS = {"read the pickle's bytes once": WARM, "pickle.load of the file": WARM, "read the bytes from the disk": COLD}

Row = tuple[str, float, float, str]


def measured(name: str, command: list[str], cwd: Path) -> Row:
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


def forget(path: Path) -> None:
    """Take a file out of the page cache; what a virtual machine's host keeps of it stays there."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def median(rows: list[Row]) -> Row:
    """The row of the median seconds, with the largest memory."""
    seconds = statistics.median_low([row[1] for row in rows])
    return (rows[0][0], seconds, max(row[2] for row in rows), rows[-1][3])


def readings_and_conversion(pickle: Path, store: Path, folder: Path, repeats: int) -> list[Row]:
    """Converting, from a warm and from a cold page cache, in turns with three ways of reading: medians."""
    python = [sys.executable, "-c"]
    commands = dict(zip(READINGS, ([*python, READ], [*python, LOAD], [*python, READ]), strict=True))
    found: dict[str, list[Row]] = {}
    for _ in range(repeats):
        for state in (WARM, COLD):
            for name in [one for one, needs in READINGS.items() if needs == state]:
                if state == COLD:
                    forget(pickle)
                found.setdefault(name, []).append(measured(name, [*commands[name], str(pickle)], folder))
            if state == COLD:
                forget(pickle)
            store.unlink(missing_ok=True)
            name = f"{CONVERT}, {state}"
            command = [sys.executable, "-m", "mfm", "data", "convert", str(pickle), "--output", str(store)]
            found.setdefault(name, []).append(measured(name, command, folder))
    return [median(rows) for rows in found.values()]


def ratios(rows: list[Row]) -> list[str]:
    """Converting over each way of reading, beside the target."""
    seconds = {name: value for name, value, _, _ in rows}
    lines = ["", "| converting takes | times | target |", "|---|---|---|"]
    for name, state in READINGS.items():
        ratio = seconds[f"{CONVERT}, {state}"] / seconds[name]
        verdict = "met" if ratio <= TARGET else "missed"
        lines.append(f"| {name} ({state}) | {ratio:.1f} | {TARGET:.0f}: {verdict} |")
    return lines


def main() -> None:
    """Run all steps and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the big files; they are left there")
    parser.add_argument("--batches", type=int, default=50, help="training batches of 64 in the timed epoch's beginning")
    parser.add_argument("--repeats", type=int, default=3, help="turns of reading and converting")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "mosei_size.md")
    options = parser.parse_args()
    folder = options.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    pickle, store = folder / "aligned_50.pkl", folder / "mosei.h5"
    python, mfm = [sys.executable, "-c"], [sys.executable, "-m", "mfm"]
    fit = [*mfm, "fit", "--config", "mosei.yaml", "--data.path", str(store), "--trainer.max_epochs", "1"]
    fit += ["--trainer.limit_train_batches", str(options.batches), "--trainer.limit_val_batches", "2"]
    rows = []
    if not pickle.exists():
        rows.append(measured("generate the pickle", [*python, GENERATE.format(sizes=SIZES), str(pickle)], folder))
    rows.append(measured("import of the training command alone", [*python, "import mfm.cli.training"], folder))
    rows.append(measured("mfm data inspect", [*mfm, "data", "inspect", str(pickle)], folder))
    compared = readings_and_conversion(pickle, store, folder, options.repeats)
    rows += compared
    rows.append(measured("open the store (seconds printed at the right)", [*python, OPEN, str(store)], folder))
    rows.append(measured("mfm data verify", [*mfm, "data", "verify", str(store)], folder))
    few = [*fit, "--data.limit", "640"]
    rows.append(measured("mfm fit on 640 of its samples, the same model: what is not data", few, folder))
    rows.append(measured(f"mfm fit from the store, {options.batches} batches of 64", fit, folder))
    sizes = f"{pickle.stat().st_size / 1e9:.2f} GB pickle, {store.stat().st_size / 1e9:.2f} GB store"
    lines = ["# A corpus of CMU-MOSEI's size", "", "`python benchmarks/mosei_size.py --output DIR`", ""]
    lines += [f"{datetime.date.today().isoformat()}; {sizes}; {platform.machine()}, {os.cpu_count()} CPUs, no GPU, "]
    lines[-1] += f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; page cache warm where nothing is said."
    lines += [f"Readings and conversion took {options.repeats} turns, of which this is the median."]
    lines += ["", "| step | seconds | peak memory, MB |", "|---|---|---|"]
    lines += [f"| {name} | {seconds:.1f} | {memory:.0f} |" for name, seconds, memory, _ in rows]
    lines += ratios(compared)
    opened = next(last.split()[0] for name, _, _, last in rows if name.startswith("open"))
    lines += [
        "",
        "`pickle.load` is how other programs open the file. Converting also hashes the whole source and the content",
        "(SHA-256) and writes and syncs the store, which alone take longer than copying the bytes out of memory twice.",
        "Cold: the machine's own page cache was emptied of the file; what a virtual machine's host keeps was not.",
        "",
        f"Opening the store itself took {opened} s; the rest of its row is the interpreter and its imports.",
        "",
    ]
    lines += ["Training's growth by data is the difference of the last two rows. An epoch has 256 batches of 64."]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
