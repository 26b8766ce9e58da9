"""Speed and memory of `mfm data align` beside a plain scan over every frame for every word.

    python benchmarks/align.py --output /tmp/align

Synthetic videos of CMU-MOSI's size (150 s: 550 words, 300 features each; audio at 100 Hz, 74 features; vision at 30 Hz,
47 features; 24 segments) are aligned to words. `plain` takes the steps of the CMU-Multimodal-SDK's alignment: features
are read into memory and sorted row by row; for every word, which is read from its file, the intervals of all frames of
its video are copied, mirrored and compared with the word's; then the same for every segment and all words of its video.
`lean` is the same scan with everything in memory, two comparisons for each word and no second round. Neither writes
anything. `align` is reading and aligning with the package, without writing; `mfm` is the whole command: store, report,
and what it needs to go on after a kill. All run on the same files in processes of their own, in turn; times are of the
work alone, without starting Python. That all find the same numbers is checked in the same run. Sixteen videos differ;
larger corpora hold them again under other names. Finished runs of the scans are kept beside the corpora. Results go to
`benchmarks/results/align.md` and `.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

import mfm

HERE = Path(__file__).resolve().parent
DISTINCT, SECONDS, WORDS, SEGMENTS = 16, 150.0, 550, 24
FEATURES = {"text": (None, 300), "audio": (100.0, 74), "vision": (30.0, 47)}
EPSILON = 1e-5


def write_corpus(folder: Path, videos: int) -> None:
    """Words, labels and features of so many videos, of which sixteen differ."""
    folder.mkdir(parents=True)
    for name in ("words", "labels", *FEATURES):
        with h5py.File(folder / f"{name}.csd", "w") as file:
            data = file.create_group(f"{name}/data")
            for number in range(videos):
                key = f"video{number:04}"
                if number >= DISTINCT:
                    data[key] = data[f"video{number % DISTINCT:04}"]  # a hard link: as many reads, little disk
                    continue
                intervals, features = content(name, number)
                data[f"{key}/intervals"], data[f"{key}/features"] = intervals, features


def content(name: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Intervals and features of one video in one file."""
    rng = np.random.default_rng([number, 0])
    edges = np.sort(rng.uniform(0, SECONDS, size=WORDS + 1))
    words = np.stack([edges[:-1], edges[1:]], axis=1)
    if name == "words":
        texts = np.where(rng.random(WORDS) < 0.15, "sp", [f"word{row}" for row in range(WORDS)])
        return words, texts.astype("S12")[:, None]
    if name == "labels":
        cuts = words[np.linspace(40, WORDS - 1, SEGMENTS + 1).astype(int), 0]
        return np.stack([cuts[:-1], cuts[1:]], axis=1), rng.uniform(-3, 3, size=(SEGMENTS, 1)).astype(np.float32)
    rate, dim = FEATURES[name]
    rng = np.random.default_rng([number, dim])
    starts = words[:, 0] if rate is None else np.arange(0, SECONDS, 1 / rate)
    intervals = words if rate is None else np.stack([starts, starts + 1 / rate], axis=1)
    values = rng.normal(size=(len(starts), dim)).astype(np.float32)
    if rate is not None:
        values[rng.random(len(values)) < 0.01, :3] = np.nan  # as COVAREP and Facet have
    return intervals, values


# ------------------------------------------------------------------------------------------------------ the plain scan


def in_order(intervals: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both by start."""
    order = sorted(range(len(intervals)), key=lambda row: intervals[row, 0])
    return intervals[order], features[order]


def mean(features: np.ndarray) -> np.ndarray:
    """(n, D) -> (D,) over the finite values, 0 where there is none."""
    there = np.isfinite(features)
    return np.where(there, features.astype(np.float64), 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def plain(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The SDK's steps: everything to words, then to segments. `video[k]` -> modality -> (words, D)."""
    with contextlib.ExitStack() as stack:
        files = {name: opened(stack, folder, name) for name in ("words", "labels", *FEATURES)}
        words, spoken = files["words"], {}
        frames = {name: everything(files[name]) for name in FEATURES}
        on_words: dict[str, dict[str, list[tuple[np.ndarray, np.ndarray]]]] = {name: {} for name in FEATURES}
        for video in words:
            spoken[video] = np.zeros(len(words[video]["intervals"]), dtype=bool)
            for row in range(len(words[video]["intervals"])):
                word = words[video]["intervals"][row, :]
                spoken[video][row] = words[video]["features"][row, :][0] != b"sp"
                for name in FEATURES:
                    rows = intersecting(word, frames[name][video][0])
                    taken = word[None], mean(frames[name][video][1][rows])[None]
                    on_words[name].setdefault(video, []).append(taken)
        relevant = {
            name: {
                video: in_order(*(np.concatenate(part) for part in zip(*rows, strict=True)))
                for video, rows in videos.items()
            }
            for name, videos in on_words.items()
        }
        aligned: dict[str, dict[str, np.ndarray]] = {}
        for video in files["labels"]:
            for number in range(len(files["labels"][video]["intervals"])):
                segment = files["labels"][video]["intervals"][number, :]
                aligned[f"{video}[{number}]"] = {
                    name: videos[video][1][intersecting(segment, videos[video][0]) & spoken[video]]
                    for name, videos in relevant.items()
                }
    return aligned


def opened(stack: contextlib.ExitStack, folder: Path, name: str) -> dict[str, h5py.Group]:
    """Video -> its group in the open file."""
    return dict(stack.enter_context(h5py.File(folder / f"{name}.csd"))[name]["data"])


def everything(videos: dict[str, h5py.Group]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Video -> intervals and features, in memory, by start."""
    return {video: in_order(group["intervals"][:], group["features"][:]) for video, group in videos.items()}


def intersecting(one: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """(n,) which intervals share more than EPSILON with one: start below its end, and end above its start."""
    mirrored = intervals.copy()
    mirrored[:, 0] = -mirrored[:, 0]
    bound = np.array([-one[1], one[0]])
    meets = np.all(mirrored - bound > -EPSILON, axis=1)
    cut = np.concatenate(
        [np.maximum(intervals[meets, 0], one[0])[:, None], np.minimum(intervals[meets, 1], one[1])[:, None]], axis=1
    )
    meets[np.flatnonzero(meets)[cut[:, 1] - cut[:, 0] <= EPSILON]] = False
    return meets


def lean(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The same in memory, by two comparisons for each word, and words to segments by the midpoint."""
    with contextlib.ExitStack() as stack:
        corpus = {name: everything(opened(stack, folder, name)) for name in ("words", "labels", *FEATURES)}
    aligned: dict[str, dict[str, np.ndarray]] = {}
    for video, (words, texts) in corpus["words"].items():
        rows = {name: np.zeros((len(words), FEATURES[name][1])) for name in FEATURES}
        for name in FEATURES:
            intervals, features = corpus[name][video]
            for number, (start, end) in enumerate(words):
                shared = np.minimum(intervals[:, 1], end) - np.maximum(intervals[:, 0], start)
                rows[name][number] = mean(features[shared > EPSILON])
        middle = words.mean(axis=1)
        for number, (start, end) in enumerate(corpus["labels"][video][0]):
            inside = (middle >= start) & (middle < end) & (texts[:, 0] != b"sp")
            aligned[f"{video}[{number}]"] = {name: values[inside] for name, values in rows.items()}
    return aligned


SCANS = {"plain": plain, "lean": lean}
KINDS = (*SCANS, "align", "mfm")


# ------------------------------------------------------------------------------------------------------ measurements


def ours(folder: Path) -> Path:
    """Align with the package; returns the store."""
    from mfm.data.alignment.corpus import align_corpus
    from mfm.data.alignment.placing import AlignmentOptions
    from mfm.data.alignment.sources import Sources

    features = {name: folder / f"{name}.csd" for name in FEATURES}
    sources = Sources(folder / "words.csd", features, folder / "labels.csd")
    store = folder / "aligned.h5"
    align_corpus(sources, store, folder / "report.json", AlignmentOptions(), overwrite=True)
    return store


def align_only(folder: Path) -> int:
    """Read and align with the package, and write nothing; returns the number of samples."""
    from mfm.data.alignment.csd import ComputationalSequence
    from mfm.data.alignment.placing import AlignmentOptions
    from mfm.data.alignment.sources import Sources
    from mfm.data.alignment.workers import Job, Task, VideoAligner

    features = {name: folder / f"{name}.csd" for name in FEATURES}
    sources = Sources(folder / "words.csd", features, folder / "labels.csd")
    task = Task(sources, {name: dim for name, (_, dim) in FEATURES.items()}, AlignmentOptions())
    with ComputationalSequence(sources.pivot) as pivot, VideoAligner(task) as aligner:
        return sum(len(aligner.align(Job(video, "train"))[0]) for video in pivot.videos)


def differences(folder: Path) -> float:
    """Largest difference between the store and either scan."""
    from mfm.data.store import read_store

    worst, splits = 0.0, read_store(ours(folder)).splits
    for scan in SCANS.values():
        expected, samples = scan(folder), 0
        for split in splits.values():
            for index, sample in enumerate(split.ids):
                video, number = sample.split("$_$")
                for name, sequences in split.sequences.items():
                    wanted = expected[f"{video}[{number}]"][name]
                    worst = max(worst, float(np.abs(sequences.steps(index) - wanted).max(initial=0.0)))
                samples += 1
        if samples != sum(1 for values in expected.values() if len(values["text"])):
            sys.exit("the store has another number of samples than a scan")
    return worst


class Run(NamedTuple):
    """One run: seconds on the clock, seconds of the processor (the system's included), peak MB of the process."""

    wall: float
    cpu: float
    mb: float


def measured(what: str, folder: Path) -> Run:
    """Do the work in a process of its own."""
    command = [sys.executable, __file__, "--work", what, "--output", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what} failed on {folder}")
    return Run(*map(float, done.stdout.split()))


def work(what: str, folder: Path) -> None:
    """What a process of its own does."""
    kinds = {**SCANS, "align": align_only, "mfm": ours}
    import numpy.ma  # noqa: F401 - imported by the first np.unique: not to be timed

    import mfm.data.alignment.corpus  # noqa: F401

    wall, cpu = time.perf_counter(), time.process_time()
    kinds[what](folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status").read_text()  # of this program, not of the one that started it
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(wall, cpu, int(peak) / 1024)


def median(runs: Sequence[Run]) -> Run:
    """The median of each number."""
    return Run(*map(statistics.median, zip(*runs, strict=True)))


def corpus_of(output: Path, videos: int) -> Path:
    """The corpus of that size, made when it is not there."""
    folder = output / f"videos_{videos}"
    if not folder.is_dir():
        write_corpus(folder, videos)
    return folder


def beside(folder: Path, repeat: int, scans: int) -> dict[str, list[Run]]:
    """Runs of every kind in turn, of the scans so many."""
    runs: dict[str, list[Run]] = {kind: [] for kind in KINDS}
    for turn in range(repeat):
        for kind in KINDS:
            if kind not in SCANS or turn < scans:
                kept = folder / f"{kind}_{turn}.json"  # of the scans, which take long: a stopped suite goes on
                if not kept.is_file():
                    one = measured(kind, folder)
                    if kind in SCANS:
                        kept.write_text(json.dumps(one))
                else:
                    one = Run(*json.loads(kept.read_text()))
                runs[kind].append(one)
                print(f"{folder.name} {kind}: {runs[kind][-1]}", flush=True)
    return runs


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the corpora (about 1 GB)")
    parser.add_argument("--videos", type=int, nargs="+", default=(16, 200), help="sizes beside the scans")
    parser.add_argument("--growth", type=int, nargs="*", default=(50, 100, 200, 400, 800), help="sizes for growth")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each kind, of which the median counts")
    parser.add_argument("--scans", type=int, default=1, help="runs of the scans beyond sixteen videos")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.output)
        return
    worst = differences(corpus_of(options.output, DISTINCT))
    print(f"largest difference from the scans: {worst:.1e}", flush=True)
    compared = {
        videos: beside(
            corpus_of(options.output, videos), options.repeat, options.repeat if videos <= DISTINCT else options.scans
        )
        for videos in options.videos
    }
    growth: dict[int, list[Run]] = {videos: [] for videos in options.growth}
    for _ in range(options.repeat):
        for videos, runs in growth.items():
            runs.append(measured("mfm", corpus_of(options.output, videos)))
            print(f"{videos} videos: {runs[-1]}", flush=True)
    about = {
        "command": f"python benchmarks/align.py --output DIR --repeat {options.repeat} --scans {options.scans}",
        "date": datetime.date.today().isoformat(),
        "version": mfm.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "largest_difference": worst,
    }
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**about, "fields": Run._fields, "beside": compared, "growth": growth}, indent=1)
    (options.results / "align.json").write_text(text + "\n")
    (options.results / "align.md").write_text(markdown(about, compared, growth))


def markdown(about: dict[str, object], compared: dict[int, dict[str, list[Run]]], growth: dict[int, list[Run]]) -> str:
    """The tables."""
    lines = [
        "# Alignment: speed and memory",
        "",
        f"`{about['command']}`",
        "",
        f"{about['date']}; mfm {about['version']}; {about['machine']}, OMP_NUM_THREADS={about['threads']}. Numbers are "
        "medians.",
        "Videos of 150 s, 550 words, 15,000 audio and 4,500 vision frames. Time is that of the processor, in brackets "
        "that of the clock, which other work on the machine lengthens.",
        f"Largest difference of a feature between the store and the scans: {about['largest_difference']:.0e}.",
        "",
        "`plain` takes the SDK's steps (which read each word from its file), `lean` is a short scan of the same cost",
        "in memory; neither writes anything. `align` reads and aligns with the package; `mfm` is `mfm data align` with",
        "what it writes: store, report, SHA-256 of the sources, finished videos. Scans beyond sixteen videos are kept",
        "when the suite is started again, and may be older than the runs beside them.",
        "",
        "| videos | kind | runs | seconds | plain is slower by | lean is slower by | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for videos, kinds in compared.items():
        middle = {kind: median(runs) for kind, runs in kinds.items()}
        for kind, one in middle.items():
            slower = [
                f"{middle[scan].cpu / one.cpu:.1f} ({middle[scan].wall / one.wall:.1f})" if kind != scan else ""
                for scan in SCANS
            ]
            seconds = f"{one.cpu:.2f} ({one.wall:.2f})"
            cells = [str(videos), kind, str(len(kinds[kind])), seconds, *slower, f"{one.mb:.0f} MB"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "`mfm data align` alone:",
        "",
        "| videos | runs | seconds | per video | peak memory |",
        "|---|---|---|---|---|",
    ]
    for videos, runs in growth.items():
        one = median(runs)
        each = f"{1000 * one.cpu / videos:.1f} ms"
        lines.append(f"| {videos} | {len(runs)} | {one.cpu:.2f} ({one.wall:.2f}) | {each} | {one.mb:.0f} MB |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
