"""Missing modalities: surrogate inference against every comparison, for every subset of modalities, over seeds.

    python benchmarks/missing.py --data DATA --suite mosi_context --seeds 5

For each seed an MFM without surrogate is trained, one with a joint surrogate, a surrogate on the first one frozen, and
the references of `mfm.modules.missing_references`; `mfm robustness` scores them all on the same test split with every
subset of modalities observed. What joint and posthoc training add to the suite's configuration is what
`configs/mosi_surrogate.yaml` and `configs/mosi_surrogate_posthoc.yaml` add to `configs/mosi.yaml`. Each run's epoch is
chosen on validation: by the label's metric with all modalities for the MFM, for each subset alone by its own loss for
the references (but `authors_joint`: by the whole loss), as their configurations say for the surrogates.

Runs that are finished are kept, so that a stopped suite goes on where it was. Results go to
`benchmarks/results/missing_<suite>.json` (every seed's metrics) and `.md` (mean and standard deviation).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mfm.data.factor_files import write_factor_corpus
from mfm.data.factor_world import FactorWorld
from mfm.files import write_json, write_text
from runs import HERE, fit, head, heading, run, shown, spread

CONFIGS = HERE.parent / "configs"
Scores = dict[str, dict[str, dict[str, float]]]
"""Subset -> method -> metric -> value; the subset of the constant is empty."""


@dataclass(frozen=True)
class Suite:
    """A corpus and the configuration of its MFM; without a path it is generated."""

    config: str
    overlay: str
    path: str = ""


SUITES = {
    "mosi_context": Suite("mosi.yaml", "mosi_context.yaml", "mosi/context_aligned_10.pkl"),
    "mmmo": Suite("mmmo.yaml", "mmmo.yaml", "mfn/mmmo"),
    "four": Suite("demo.yaml", "four.yaml"),
}
# four modalities with unequal evidence, each seeing the label factor with a disturbance of its own; annotators disagree
FOUR = FactorWorld(
    dims={"audio": 12, "text": 20, "touch": 8, "vision": 16},
    evidence={"audio": 0.5, "text": 1.0, "touch": 0.25, "vision": 0.5},
    disagreement=0.7,
    label_noise=0.5,
    noise=0.3,
    nuisance=1,
    shortest=0.5,
)
FOUR_SAMPLES = (1500, 300, 800)
WITHOUT_TRAINING = ("absent", "zero_fill", "mean_fill")
REFERENCES: dict[str, tuple[str, ...]] = {
    "generative": ("--model", "MissingReferenceModule", "--model.reference", "generative"),
    "discriminative": ("--model", "DiscriminativeReferenceModule", "--model.reference_dropout", "0.5"),
    "authors_posthoc": ("--model", "MissingReferenceModule", "--model.reference", "authors_surrogate"),
    "authors_joint": ("--model", "MissingReferenceModule", "--model.reference", "authors_surrogate"),
}
ON_FROZEN = ("posthoc", "generative", "authors_posthoc")
SURROGATES = ("posthoc", "joint")
METHODS = (*REFERENCES, *SURROGATES)
ABOUT = {
    "absent": "the MFM without surrogate, what is missing masked",
    "zero_fill": "the same MFM, zeros in the file's units in its place",
    "mean_fill": "the same MFM, the training mean in its place",
    "generative": "an LSTM and a decoder for every subset and what it lacks; the same MFM reads the completed input",
    "discriminative": "an LSTM to the label for every subset",
    "authors_posthoc": "the authors' surrogates, for every subset, on the same MFM frozen",
    "authors_joint": "the authors' surrogates, for every subset, trained along with an MFM",
    "posthoc": "one surrogate for all subsets, on the same MFM frozen",
    "joint": "one surrogate for all subsets, trained along with an MFM",
}


def added(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration adds to another or changes of it, as an overlay."""
    found = {}
    for key, value in other.items():
        if key in base and isinstance(base[key], Mapping) and isinstance(value, Mapping):
            if inner := added(base[key], value):
                found[key] = inner
        elif key not in base or base[key] != value:
            found[key] = value
    return found


def surrogate_overlay(config: str, folder: Path) -> Path:
    """Write what a shipped surrogate configuration adds to `mosi.yaml`; runs with other settings cannot go on."""
    base, other = (yaml.safe_load((CONFIGS / name).read_text()) for name in ("mosi.yaml", config))
    overlay = added(base, other)
    overlay["model"]["init_args"].pop("init_from", None)
    path, text = folder / config, yaml.safe_dump(overlay, sort_keys=False)
    if path.is_file() and path.read_text() != text:
        sys.exit(
            f"{config} has changed since {folder} was begun: choose another --output, or remove its runs and {path}"
        )
    write_text(path, text)
    return path


def corpus_path(name: str, data: Path | None, folder: Path) -> Path:
    """The suite's file; a generated one is written once."""
    if SUITES[name].path:
        if data is None:
            sys.exit(f"suite {name} needs --data, the folder with the published files")
        return data / SUITES[name].path
    path = folder / "corpus.h5"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_factor_corpus(FOUR.draw(FOUR_SAMPLES), path, overwrite=True)
    return path


def run_seed(name: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train every method of one seed and score all of them; returns the content of its results."""
    suite, folder = SUITES[name], options.output / name
    data = corpus_path(name, options.data, folder)
    common = ["--config", suite.config, "--config", str(HERE / "configs" / suite.overlay)]
    given = ["--data.path", str(data), "--seed_everything", str(seed)]
    short = ["--trainer.max_epochs", str(options.max_epochs)] if options.max_epochs else []
    here = folder / f"seed_{seed}"
    plain = fit(here / "plain", *common, *given, *short)
    same = ["--config", str(here / "plain" / "config.yaml")]
    checkpoints = {}
    for method in options.methods:
        frozen = ["--model.init_from", plain] if method in ON_FROZEN else []
        if method in REFERENCES:
            arguments = [*same, *REFERENCES[method]]
        elif method == "posthoc":
            arguments = [*same, "--config", str(surrogate_overlay("mosi_surrogate_posthoc.yaml", folder))]
        else:
            arguments = [*common, "--config", str(surrogate_overlay("mosi_surrogate.yaml", folder)), *given]
        checkpoints[method] = fit(here / method, *arguments, *frozen, *short)
    return scores(plain, checkpoints, here / "robustness")


def scores(plain: str, checkpoints: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Score everything on the same test split, unless it has been."""
    path = folder / "robustness.json"
    if not path.is_file() or not set(checkpoints) <= json.loads(path.read_text())["methods"].keys():
        compared = [f"--compare={method}={checkpoint}" for method, checkpoint in checkpoints.items()]
        options = ["--protocols", "subsets", "--methods", *WITHOUT_TRAINING, "--output", str(folder)]
        run("robustness", "--ckpt_path", plain, *options, *compared)
    return json.loads(path.read_text())


def read_scores(folder: Path) -> Scores:
    """The table of one seed."""
    found: Scores = {}
    with (folder / "robustness.csv").open() as file:
        for row in csv.DictReader(file):
            metrics = {key: float(row[key]) for key in list(row)[5:]}
            found.setdefault(row["observed"], {})[row["method"]] = metrics
    return found


def table_of(metric: str, seeds: Sequence[Scores], methods: Sequence[str]) -> list[str]:
    """Subset x method of one metric, as Markdown."""
    lines = ["| observed | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for subset, found in seeds[0].items():
        if subset:
            cells = [
                shown(*spread([one[subset][method][metric] for one in seeds])) for method in methods if method in found
            ]
            lines.append(f"| {subset} | " + " | ".join(cells) + " |")
    constant = seeds[0][""]["constant"][metric]
    lines.append(
        f"| nothing: the training median | {'undefined' if math.isnan(constant) else f'{constant:.3f}'} |"
        + " |" * (len(methods) - 1)
    )
    return lines


def differences(seeds: Sequence[Scores], full: str, methods: Sequence[str]) -> list[str]:
    """MAE with all modalities, with and without a surrogate: standard errors, and of the difference within seeds."""
    root = math.sqrt(len(seeds))
    lines = [
        "| method | MAE, all modalities | standard error | minus without surrogate | standard error |",
        "|---|---|---|---|---|",
    ]
    for method in ("absent", *methods):
        own = [one[full][method]["mae"] for one in seeds]
        less = [one[full][method]["mae"] - one[full]["absent"]["mae"] for one in seeds]
        (mean, deviation), (gap, spread_of_gap) = spread(own), spread(less)
        lines.append(
            f"| {ABOUT[method]} | {mean:.4f} | {deviation / root:.4f} | {gap:+.4f} | {spread_of_gap / root:.4f} |"
        )
    return lines


def losses(seeds: Sequence[Scores], full: str, methods: Sequence[str], compared: Sequence[str]) -> list[str]:
    """What losing each modality costs a surrogate, against the best comparison and the constant."""
    lines = ["| without | method | MAE | cost | best comparison | its MAE | training median |", f"|{'---|' * 7}"]
    constant = seeds[0][""]["constant"]["mae"]
    for modality in full.split("+"):
        subset = "+".join(name for name in full.split("+") if name != modality)
        found = {m: spread([one[subset][m]["mae"] for one in seeds]) for m in (*compared, *methods)}
        best = min(compared, key=lambda one: found[one][0])
        for method in methods:
            cost = spread([one[subset][method]["mae"] - one[full][method]["mae"] for one in seeds])
            cells = [modality, method, *map(_shown, (found[method], cost)), best, _shown(found[best])]
            lines.append(f"| {' | '.join(cells)} | {constant:.3f} |")
    return lines


def _shown(value: tuple[float, float]) -> str:
    return shown(*value)


def markdown(name: str, seeds: Sequence[Scores], about: Mapping[str, Any], definitions: Mapping[str, str]) -> str:
    """The suite's tables with everything needed to make them again."""
    full = max(seeds[0], key=lambda subset: len(subset.split("+")))
    methods = [method for method in ABOUT if method in seeds[0][full]]
    surrogates = [method for method in SURROGATES if method in methods]
    compared = [method for method in methods if method not in SURROGATES]
    lines = [*heading(f"Missing modalities: {name}", about), "", "Test split. Methods:", ""]
    lines += [f"* `{method}`: {ABOUT[method]}" for method in methods]
    wanted = [metric for metric in definitions if metric in ("mae", "corr") or metric.startswith("acc2")]
    for metric in sorted(wanted, key=lambda one: one != "mae"):
        lines += ["", f"## {metric}: {definitions[metric]}", "", *table_of(metric, seeds, methods)]
    trained_along = [method for method in ("authors_joint", "posthoc", "joint") if method in methods]
    lines += ["", "## All modalities, with and without surrogate", "", *differences(seeds, full, trained_along)]
    if surrogates:
        lines += ["", "## What losing a modality costs", ""]
        lines += ["Cost: MAE above that of the same model with all modalities.", ""]
        lines += losses(seeds, full, surrogates, compared)
    return "\n".join([*lines, ""])


def main() -> None:
    """Run a suite and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the published files; four needs none")
    parser.add_argument("--suite", choices=sorted(SUITES), nargs="+", default=sorted(SUITES))
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS), help="what is trained; all")
    parser.add_argument("--max_epochs", type=int, help="train shorter, for trials")
    parser.add_argument("--output", type=Path, default=Path("runs/missing"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    for name in options.suite:
        found, seeds = {}, []
        for seed in range(1, options.seeds + 1):
            started = time.perf_counter()
            found = run_seed(name, options, seed)
            seeds.append(read_scores(options.output / name / f"seed_{seed}" / "robustness"))
            print(f"{name} seed {seed} ({time.perf_counter() - started:.0f} s)", flush=True)
        data = "--data DATA " if SUITES[name].path else ""
        command = f"python benchmarks/missing.py {data}--suite {name} --seeds {options.seeds}"
        command += f" --max_epochs {options.max_epochs}" if options.max_epochs else ""
        command += f" --methods {' '.join(options.methods)}" if set(options.methods) != set(METHODS) else ""
        about = head(command, options.seeds, found)
        content = {**about, "methods": ABOUT, "runs": seeds}
        write_json(options.results / f"missing_{name}.json", content)
        text = markdown(name, seeds, about, found["definitions"])
        write_text(options.results / f"missing_{name}.md", text)


if __name__ == "__main__":
    main()
