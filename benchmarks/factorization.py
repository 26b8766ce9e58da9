"""Do the factors separate? Objectives against worlds whose factors are known, over seeds.

    python benchmarks/factorization.py --objectives authors ours --worlds easy --seeds 3

Each cell draws a world (`mfm.data.factor_world`; the seed draws world, model and order), trains the MFM with the
objective's options for a fixed number of epochs without looking at test, fits probes on the training samples' codes and
factors, and reads the test samples'. A cell that is finished is kept in `--output`, so that a stopped run goes on where
it was; all cells found there with the same sizes go into `benchmarks/results/factorization.json` and `.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mfm
from mfm.analysis.factorization import Blocks, choose_swaps, collect_blocks, separation, swaps_right
from mfm.analysis.probes import PROBES
from mfm.data.batch import AffectBatch
from mfm.data.collate import collate
from mfm.data.dataset import AffectDataset
from mfm.data.factor_world import FactorCorpus, FactorWorld
from mfm.files import write_json, write_text
from mfm.models.mfm import Factors
from mfm.modules.mfm import MFMModule

HERE = Path(__file__).resolve().parent

BASE: dict[str, Any] = {
    "z_y": 32,
    "z": 16,
    "f_y": 32,
    "f": 32,
    "encoder": {"name": "lstm", "hidden": 64},
    "fusion": {"name": "concat_lstm", "hidden": 64},
    "weight_mmd": 10.0,
}
# `authors` is the published objective; `ours` is configs/factors.yaml; `bottleneck` adds a price on the nats of Z_y;
# the others leave out one thing, or have another in its place
OURS = {
    "mmd_on": "joint",
    "independence": "nocco",
    "weight_independence": 1.0,
    "code_noise": "learned",
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "authors": {"kernel": "original", "mmd_on": "marginals", "weight_mmd": 100.0},
    "rbf_marginals": {"mmd_on": "marginals"},
    "rbf_joint": {"mmd_on": "joint"},
    "no_independence": {**OURS, "weight_independence": 0.0},
    "no_noise": {**OURS, "code_noise": 0.0},
    "fixed_noise": {**OURS, "code_noise": 0.5},
    "hsic": {**OURS, "independence": "hsic"},
    "ours": OURS,
    "bottleneck": {**OURS, "weight_bottleneck": 0.01},
}
WORLDS: dict[str, dict[str, Any]] = {
    "easy": {},
    "deep": {"depth": 4},
    "label_noise": {"label_noise": 1.0},
    "unequal": {"evidence": {"text": 1.0, "audio": 0.5, "vision": 0.0}},
    "correlated": {"correlation": {"text": 0.6, "audio": 0.0, "vision": 0.0}},
    "large_zy": {},
    "missing": {"missing": 0.3},
}
OVERRIDES: dict[str, dict[str, Any]] = {"large_zy": {"z_y": 128}}  # model options that make a world's difficulty
GOALS = {"label": (">=", 0.97), "label_leak": ("<=", 0.05), "private": (">=", 0.92), "private_leak": ("<=", 0.08)}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a cell is; cells of different sizes are never put into one table."""

    samples: tuple[int, int, int]
    epochs: int
    batch: int
    lr: float


def whole_split(corpus: FactorCorpus, split: str) -> AffectBatch:
    """A split as one batch."""
    dataset = AffectDataset(corpus.records().splits[split], corpus.world.record)
    return collate([dataset[index] for index in range(len(dataset))])


def rows_of(batch: AffectBatch, rows: torch.Tensor) -> AffectBatch:
    """Some samples of a batch."""
    features, lengths, present = (
        {name: part[rows] for name, part in group.items()} for group in (batch.features, batch.lengths, batch.present)
    )
    ids = [batch.ids[int(row)] for row in rows]
    return AffectBatch(features, lengths, present, batch.target[rows], batch.target_mask[rows], ids)


def pieces(batch: AffectBatch, size: int) -> Iterator[AffectBatch]:
    """A split in order, in batches."""
    for rows in torch.arange(len(batch.ids)).split(size):
        yield rows_of(batch, rows)


def train(corpus: FactorCorpus, options: dict[str, Any], sizes: Sizes, seed: int) -> MFMModule:
    """Train a module as Lightning would, with less ado: Adam, fixed epochs, the last one counts."""
    torch.manual_seed(seed)
    module = MFMModule(feature_dims=dict(corpus.world.dims), corpus=corpus.world.corpus, **{**BASE, **options})
    statistic = AffectDataset(corpus.records().splits["train"], corpus.world.record).statistics()
    module.normalizer.set_statistics(
        {name: torch.as_tensor(one.mean, dtype=torch.float32) for name, one in statistic.items()},
        {name: torch.as_tensor(one.std, dtype=torch.float32) for name, one in statistic.items()},
    )
    batch = whole_split(corpus, "train")
    optimizer = torch.optim.Adam(module.parameters(), lr=sizes.lr)
    module.train()
    for _ in range(sizes.epochs):
        for rows in torch.randperm(len(batch.ids)).split(sizes.batch):
            optimizer.zero_grad()
            module.step(rows_of(batch, rows)).loss.backward()
            optimizer.step()
    return module.eval()


def measure(module: MFMModule, corpus: FactorCorpus, seed: int) -> dict[str, Any]:
    """Errors on test, separation of codes and factors, swaps."""
    test = whole_split(corpus, "test")
    found = {name: collect_blocks(lambda batch: module(batch)[0], pieces(whole_split(corpus, name), 500))
             for name in ("train", "test")}  # fmt: skip
    with torch.no_grad():
        torch.manual_seed(seed)
        whole = module.step(test)
    truth = {
        block: np.concatenate([corpus.splits[name].factors[block] for name in found])
        for block in corpus.splits["test"].factors
    }
    fitted = np.repeat([True, False], [len(found["train"].ids), len(found["test"].ids)])
    present = {m: np.concatenate([found[name].present[m] for name in found]) for m in corpus.world.dims}
    scores: dict[str, Any] = {}
    for what in ("factors", "codes"):
        blocks = {b: np.concatenate([getattr(found[name], what)[b] for name in found]) for b in truth}
        for probe in PROBES:
            one = separation(blocks, truth, probe=probe, present=present, train=fitted, seed=seed)
            scores[f"{what}/{probe}"] = {**one.summary(), "r2": one.r2}
    reconstruction = {k: float(v) for k, v in whole.parts.items() if k.startswith("reconstruction/")}
    return {
        "label_mae": float((whole.prediction - test.target).abs().mean()),
        "label_factor_mae": float(np.abs(whole.prediction.numpy() - corpus.splits["test"].label_factor).mean()),
        "reconstruction": statistics.fmean(reconstruction.values()),
        "parts": {name: float(value) for name, value in whole.parts.items()},
        "swaps": swap_rates(module, corpus, found["test"], seed),
        "known_r2": corpus.world.known_r2(),
        **scores,
    }


def swap_rates(module: MFMModule, corpus: FactorCorpus, found: Blocks, seed: int) -> dict[str, float]:
    """Share of exchanges that an oracle calls right, for each modality."""
    truth, rates = corpus.splits["test"], {}
    pairs = choose_swaps(truth.label_factor, seed=seed)
    for name in sorted(corpus.world.dims):
        content, style = pairs[found.present[name][pairs].all(axis=1)].T
        factors = Factors(
            torch.from_numpy(found.factors["y"][content]).float(),
            {name: torch.from_numpy(found.factors[name][style]).float()},
        )
        with torch.no_grad():
            decoded = module.model.decode(factors, {name: corpus.world.total_steps[name]})
            made = module.normalizer.inverse(decoded)[name].numpy()
        s, p = truth.label_factor, truth.private[name]
        looks = {
            (a, b): corpus.world.render(name, s[first], p[second])
            for a, first in (("content", content), ("style", style))
            for b, second in (("content", content), ("style", style))
        }
        intended = looks.pop(("content", "style"))
        rates[name] = float(swaps_right(made, intended, list(looks.values())).mean())
    return rates


def run_cell(objective: str, world: str, seed: int, sizes: Sizes, output: Path) -> dict[str, Any]:
    """Train and measure one cell, or read it where it is finished."""
    path = output / f"{world}-{objective}-{seed}.json"
    options = {**OBJECTIVES[objective], **OVERRIDES.get(world, {})}
    head = {
        "objective": objective,
        "world": world,
        "seed": seed,
        "options": {**BASE, **options},
        "version": mfm.__version__,
    }
    head |= {"sizes": json.loads(json.dumps(dataclasses.asdict(sizes))), "world_options": WORLDS[world]}
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(kept.get(key) == value for key, value in head.items()):
            return kept
    corpus = FactorWorld(seed=seed, **WORLDS[world]).draw(sizes.samples)
    started = time.perf_counter()
    module = train(corpus, options, sizes, seed)
    trained = time.perf_counter() - started
    cell = {**head, **measure(module, corpus, seed), "train_seconds": trained}
    cell["seconds"] = time.perf_counter() - started
    write_json(path, cell)
    return cell


def markdown(cells: list[dict[str, Any]], head: dict[str, Any]) -> str:
    """One row per world, objective and what was probed, with mean and deviation over seeds."""
    columns = ("label", "label_leak", "private", "private_leak", "separation")
    goals = ", ".join(f"{name} {sign} {value}" for name, (sign, value) in GOALS.items())
    lines = ["# Do the factors separate?", "", f"`{head['command']}`", ""]
    lines += [
        "That is the last command; cells that an earlier one finished are in the table too, with their seeds.",
        "",
    ]
    lines += [f"{head['date']}; {head['sizes']}; {head['versions']}; {head['machine']}.", ""]
    lines += [
        "R^2 on test samples, the factor's dimensions averaged, at the worst modality; mean ± deviation over seeds. "
        "`label`: label factor from F_y; `label_leak`: from the F_ai that tells most; `private`: private factors from "
        "their F_ai; `private_leak`: from F_y. Swaps: share right by the oracle, worst modality. "
        f"Goals: {goals}, swaps >= 0.95.",
        "",
        "| world | objective | probe | seeds | label MAE | recon. | " + " | ".join(columns) + " | swaps |",
        "|" + "---|" * (7 + len(columns)),
    ]
    groups = {(one["world"], one["objective"]) for one in cells}
    for world in WORLDS:
        for objective in OBJECTIVES:
            if (world, objective) not in groups:
                continue
            own = [one for one in cells if (one["world"], one["objective"]) == (world, objective)]
            seeds = ", ".join(str(one["seed"]) for one in own)
            for what in ("factors", "codes"):
                for probe in PROBES:
                    row = [world, objective, f"{probe} on {'F' if what == 'factors' else 'Z'}", seeds]
                    row += [spread([one["label_mae"] for one in own]), spread([one["reconstruction"] for one in own])]
                    row += [spread([one[f"{what}/{probe}"][column] for one in own]) for column in columns]
                    row += [spread([min(one["swaps"].values()) for one in own])]
                    lines.append("| " + " | ".join(row) + " |")
    return "\n".join([*lines, ""])


def spread(values: list[float]) -> str:
    """Mean and sample deviation, or the one value."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def main() -> None:
    """Run the cells asked for, then write the table of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objectives", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N")
    parser.add_argument("--samples", type=int, nargs=3, default=(3000, 1, 1500), help="train, valid (unused), test")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, default=Path("runs/factorization"), help="where finished cells are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    sizes = Sizes(tuple(options.samples), options.epochs, options.batch, options.lr)
    for seed in range(1, options.seeds + 1):
        for world in options.worlds:
            for objective in options.objectives:
                cell = run_cell(objective, world, seed, sizes, options.output)
                table = cell["factors/mlp"]
                shown = " ".join(f"{name} {table[name]:.3f}" for name in (*GOALS, "separation"))
                print(
                    f"{world} {objective} seed {seed} ({cell['seconds']:.0f} s): {shown} swaps {cell['swaps']}",
                    flush=True,
                )
    wanted = json.loads(json.dumps(dataclasses.asdict(sizes)))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.output.glob("*.json"))]
    cells = [one for one in cells if one["sizes"] == wanted]
    head = {
        "command": shlex.join(["python", "benchmarks/factorization.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "sizes": f"{sizes.samples[0]} training and {sizes.samples[2]} test samples, {sizes.epochs} epochs, "
        f"batch {sizes.batch}, Adam {sizes.lr:g}",
        "versions": f"mfm {mfm.__version__}, torch {torch.__version__}, python {platform.python_version()}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, no GPU",
    }
    write_json(options.results / "factorization.json", {**head, "goals": GOALS, "cells": cells})
    write_text(options.results / "factorization.md", markdown(cells, head))


if __name__ == "__main__":
    main()
