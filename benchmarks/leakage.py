"""How much of the label can be read from the generative factors of a real corpus, with and without independence.

    python benchmarks/leakage.py --data DATA --seeds 5

Each seed trains the MFM of `mosi.yaml` on `context_aligned_10.pkl` as the accuracy benchmark does (whose finished runs
are used where `--output` has them), and once more with `configs/independence.yaml` on top: the objective of
`factors.yaml`, with nothing tuned for this corpus. Probes read the label from each block of the test samples' factors
and codes by cross-validation over videos; whose video and which modality the shared factor tells is scored too.
Results go to `benchmarks/results/leakage.json` and `.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mfm.analysis.factorization import Blocks, collect_blocks, leakage, modality_identity
from mfm.analysis.probes import PROBES
from mfm.cli.loading import LoadedRun, load_run
from mfm.data.batch import AffectBatch, without
from mfm.data.inspect import video_of
from mfm.files import write_json, write_text
from runs import HERE, fit, head, heading, run, shown, spread

OBJECTIVES = {"published": (), "independent": ("--config", str(HERE / "configs" / "independence.yaml"))}
METRICS = ("test/mae", "test/corr", "test/acc2_non0")


def only(batch: AffectBatch, modality: str) -> AffectBatch:
    """A batch of which nothing but one modality was observed."""
    everywhere = torch.ones(len(batch.ids), dtype=torch.bool)
    return without(batch, {name: everywhere for name in batch.present if name != modality})


def blocks_of(loaded: LoadedRun, modality: str | None = None) -> Blocks:
    """Codes and factors of the split, from everything or from one modality alone."""
    batches = loaded.data.predict_dataloader()
    seen = batches if modality is None else (only(batch, modality) for batch in batches)
    return collect_blocks(lambda batch: loaded.module(batch)[0], seen)


def measure(checkpoint: str, seed: int) -> dict[str, Any]:
    """Leaks of a trained model on the test split."""
    loaded = load_run(checkpoint, [], split="test", command="leakage")
    found = blocks_of(loaded)
    videos = [video_of(name) for name in found.ids]
    scores: dict[str, Any] = {}
    for what in ("factors", "codes"):
        own = leakage(getattr(found, what), found.target, found.mask, videos, present=found.present, seed=seed)
        scores[what] = dataclasses.asdict(own)
    alone = {name: blocks_of(loaded, name).factors["y"] for name in sorted(found.present)}
    rows = np.logical_and.reduce([found.present[name] for name in alone])
    scores["modality"], scores["modality_chance"] = modality_identity({name: f[rows] for name, f in alone.items()})
    return scores


def run_seed(data: Path, objective: str, seed: int, output: Path) -> dict[str, Any]:
    """Train, test and probe one seed of one objective."""
    name = "mosi_context" if objective == "published" else f"mosi_context_{objective}"
    folder = output / name / f"seed_{seed}"
    common = ["--config", "mosi.yaml", "--config", str(HERE / "configs" / "mosi_context.yaml"), *OBJECTIVES[objective]]
    given = ["--data.path", str(data / "mosi" / "context_aligned_10.pkl"), "--seed_everything", str(seed)]
    best, tested, probed = fit(folder, *common, *given), folder / "metrics_test.json", folder / "leakage.json"
    if not tested.is_file():
        run("test", "--ckpt_path", best, "--output", str(tested))
    if not probed.is_file():
        write_json(probed, measure(best, seed))
    return {"test": json.loads(tested.read_text()), **json.loads(probed.read_text())}


def kept(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs without the places of their files."""
    return [
        {**one, "test": {name: value for name, value in one["test"].items() if name.startswith("test/")}}
        for one in runs
    ]


def cells(runs: Sequence[Mapping[str, Any]], *path: str) -> str:
    """Mean and deviation over seeds of what lies at a path in each run's results."""
    values = []
    for one in runs:
        value: Any = one
        for key in path:
            value = value[key]
        values.append(math.nan if value is None else float(value))
    return shown(*spread(values))


def markdown(found: Mapping[str, Sequence[Mapping[str, Any]]], about: Mapping[str, Any]) -> str:
    """The table with everything needed to make it again."""
    first = next(iter(found.values()))[0]
    blocks = list(first["factors"]["label"]["ridge"])
    lines = heading("How much label do the generative factors of a real corpus hold?", about)
    lines += [
        "",
        "`published`: mosi.yaml with the overlay benchmarks/configs/mosi_context.yaml. `independent`: the same with "
        "benchmarks/configs/independence.yaml on top.",
        "",
        "## Cost",
        "",
        "| objective | " + " | ".join(name.partition("/")[2] for name in METRICS) + " |",
        "|---" * (1 + len(METRICS)) + "|",
    ]
    lines += [
        f"| {name} | " + " | ".join(cells(runs, "test", m) for m in METRICS) + " |" for name, runs in found.items()
    ]
    lines += ["", "## R^2 of the label on held-out videos of the test split", ""]
    lines += ["| objective | read from | probe | " + " | ".join(blocks) + " |", "|---" * (3 + len(blocks)) + "|"]
    for name, runs in found.items():
        for what in ("factors", "codes"):
            for probe in PROBES:
                row = [cells(runs, what, "label", probe, block) for block in blocks]
                lines.append(f"| {name} | {'F' if what == 'factors' else 'Z'} | {probe} | {' | '.join(row)} |")
    lines += ["", "## Whose video, and which modality", ""]
    lines += [
        "`nearest`: share of samples whose nearest neighbour in the block of factors is of the same video (at random "
        f"{first['factors']['video_chance']:.3f}). `modality`: how often ridge tells from F_y which single modality it "
        f"was inferred from (guessing: {first['modality_chance']:.3f}).",
        "",
        "| objective | " + " | ".join(f"nearest, {block}" for block in blocks) + " | modality |",
        "|---" * (2 + len(blocks)) + "|",
    ]
    for name, runs in found.items():
        row = [cells(runs, "factors", "video", block) for block in blocks]
        lines.append(f"| {name} | {' | '.join(row)} | {cells(runs, 'modality')} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train and probe every seed, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in OBJECTIVES}
    for seed in range(1, options.seeds + 1):
        for name, runs in found.items():
            started = time.perf_counter()
            runs.append(run_seed(options.data, name, seed, options.output))
            print(f"{name} seed {seed} ({time.perf_counter() - started:.0f} s)", flush=True)
    about = head(f"python benchmarks/leakage.py --data DATA --seeds {options.seeds}", options.seeds,
                 found["published"][0]["test"])  # fmt: skip
    write_json(options.results / "leakage.json", {**about, "runs": {name: kept(runs) for name, runs in found.items()}})
    write_text(options.results / "leakage.md", markdown(found, about))


if __name__ == "__main__":
    main()
