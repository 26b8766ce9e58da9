"""Text-only MFM on a store made by `mfm data align` beside the same corpus aligned by others.

    python benchmarks/aligned_accuracy.py --data DATA --seeds 3

DATA holds `csd/`, `folds/mosi.json` and `mosi/words_50.pkl`. All 93 videos of CMU-MOSI are aligned: words, GloVe and
labels, the standard folds, at most 50 words. This is done twice: as the files are, and with the words and their vectors
shifted by a row, as the alignment advises, because the published words are a row late. `mfm fit` and `mfm test` run on
both stores and on `words_50.pkl` with `mosi.yaml`, the overlay `benchmarks/configs/mosi_words.yaml` and text alone;
finished runs are kept. Results go to `benchmarks/results/aligned_accuracy.json` and `.md`: metrics, and where every
labelled segment went.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from mfm.data.readers import read_corpus
from runs import HERE, fit, head, heading, run, shown, spread

PIVOT, TEXT = "CMU_MOSI_ModifiedTimestampedWords.csd", "CMU_MOSI_GloVe50.csd"
LABELS = "CMU_MOSI_Opinion_Labels.csd"
SPLITS = ("train", "valid", "test")
METRICS = ("mae", "corr", "acc2_has0", "acc2_non0", "acc7")


SHIFT = ("--shift-rows", "pivot=-1", "text=-1")


def aligned(data: Path, store: Path, *more: str) -> Path:
    """The store, made when it is not there."""
    if not store.is_file():
        files = {"--pivot": PIVOT, "--feature=text": TEXT, "--labels": LABELS}
        sequences = [f"{option}={data / 'csd' / name}" for option, name in files.items()]
        folds = ["--folds", str(data / "folds" / "mosi.json"), "--max-length", "50"]
        run("data", "align", *sequences, *folds, "--output", str(store), "--resume", *more)
    return store


def run_seed(path: Path, seed: int, folder: Path) -> dict[str, Any]:
    """Train and test one seed; returns the test's metrics, and the best validation MAE."""
    overlay = str(HERE / "configs" / "mosi_words.yaml")
    options = ["--config", "mosi.yaml", "--config", overlay, "--data.modalities", "[text]"]
    best = fit(folder, *options, "--data.path", str(path), "--seed_everything", str(seed))
    if not (folder / "metrics_test.json").is_file():
        run("test", "--ckpt_path", best, "--output", str(folder / "metrics_test.json"))
    fitted = json.loads((folder / "metrics_fit.json").read_text())
    tested: dict[str, Any] = json.loads((folder / "metrics_test.json").read_text())
    return {**tested, "best/val/mae": fitted["best/val/mae"], "epochs": fitted["epochs"]}


def segments(data: Path, store: Path) -> list[str]:
    """Where every labelled segment went, as Markdown, from the alignment's report."""
    report = json.loads(store.with_suffix(".report.json").read_text())
    others = {name: len(split) for name, split in read_corpus(data / "mosi" / "words_50.pkl").splits.items()}
    seen, used, why, dropped = Counter(), Counter(), {split: Counter() for split in SPLITS}, []
    for video in report["videos"].values():
        split = video["split"] or "no split"
        seen[split] += video["segments"]["seen"]
        used[split] += video["segments"]["used"]
        why.setdefault(split, Counter()).update(video["segments"]["dropped"])
        dropped += [(split, name, reason) for name, reason in video["dropped_segments"].items()]
    lines = ["| split | labelled segments | samples | dropped | words_50.pkl |", "|---|---|---|---|---|"]
    for split in why:
        reasons = ", ".join(f"{count} {reason}" for reason, count in why[split].items()) or "0"
        lines.append(f"| {split} | {seen[split]:,} | {used[split]:,} | {reasons} | {others.get(split, 0):,} |")
    reasons = f"{sum(seen.values()) - sum(used.values())}"
    lines.append(f"| all | {seen.total():,} | {used.total():,} | {reasons} | {sum(others.values()):,} |")
    lines += ["", "The segments that are no samples:", ""]
    return [*lines, *(f"- {split}, `{name}`: {reason}, {about(data, name)}" for split, name, reason in dropped)]


def about(data: Path, name: str) -> str:
    """When a segment is, and the words that share time with it."""
    video, number = name.split("$_$")
    with h5py.File(data / "csd" / LABELS) as labels, h5py.File(data / "csd" / PIVOT) as pivot:
        start, end = only(labels)["data"][video]["intervals"][int(number)].tolist()
        words = only(pivot)["data"][video]
        times, texts = words["intervals"][:].tolist(), words["features"][:, 0].tolist()
    near = [
        f"{text.decode()} {first:.3f}-{last:.3f}"
        for text, (first, last) in zip(texts, times, strict=True)
        if first < end and last > start
    ]
    return f"{start:.3f}-{end:.3f} s; words that share time with it: {', '.join(near) or 'none'}"


def only(file: h5py.File) -> h5py.Group:
    """The root group of a computational sequence."""
    return next(iter(file.values()))


def main() -> None:
    """Align, train on both, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/aligned"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    store = aligned(options.data, options.output / "mosi_shifted.h5", *SHIFT)
    files = {
        f"mfm data align {' '.join(SHIFT)}": store,
        "words_50.pkl": options.data / "mosi" / "words_50.pkl",
        "mfm data align": aligned(options.data, options.output / "mosi.h5"),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for seed in range(1, options.seeds + 1):
        for name, path in files.items():
            runs[name].append(run_seed(path, seed, options.output / f"{path.stem}_{seed}"))
            found = ", ".join(f"{key} {runs[name][-1][f'test/{key}']:.3f}" for key in METRICS)
            print(f"{name} seed {seed}: {found}", flush=True)
    command = f"python benchmarks/aligned_accuracy.py --data DATA --seeds {options.seeds}"
    heads = {name: head(command, options.seeds, found[0]) for name, found in runs.items()}
    keys = ("best/val/mae", "epochs", *(f"test/{key}" for key in METRICS))
    kept = {name: [{key: one[key] for key in keys} for one in found] for name, found in runs.items()}
    options.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({name: {**heads[name], "runs": kept[name]} for name in runs}, indent=1)
    (options.results / "aligned_accuracy.json").write_text(text + "\n")
    table = markdown(next(iter(heads.values())), kept, segments(options.data, store))
    (options.results / "aligned_accuracy.md").write_text(table)


def markdown(about: dict[str, Any], runs: dict[str, list[dict[str, float]]], accounted: list[str]) -> str:
    """The tables."""
    lines = [*heading("Aligned by mfm and by others", about), "", "CMU-MOSI, text alone (GloVe, 50 numbers a word)."]
    keys = ["best/val/mae", *(f"test/{key}" for key in METRICS)]
    lines += ["", "| file | " + " | ".join(keys) + " |", "|---|" + "---|" * len(keys)]
    for name, found in runs.items():
        cells = [shown(*spread([one[key] for one in found])) for key in keys]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    first, second, _ = runs.values()
    lines += ["", "Seed by seed, the first file less the second:", "", "| seed | mae | corr |", "|---|---|---|"]
    differences = {
        key: [one[f"test/{key}"] - two[f"test/{key}"] for one, two in zip(first, second, strict=True)]
        for key in ("mae", "corr")
    }
    for seed, pair in enumerate(zip(*differences.values(), strict=True), start=1):
        lines.append(f"| {seed} | " + " | ".join(f"{value:+.3f}" for value in pair) + " |")
    means = {key: spread(values) for key, values in differences.items()}
    cells = [f"{mean:+.3f}" + ("" if math.isnan(one) else f" ± {one:.3f}") for mean, one in means.values()]
    lines.append(f"| mean | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "## Where every labelled segment went", "", *accounted, ""])


if __name__ == "__main__":
    main()
