"""Accuracy of MFM on real files: several seeds, selection on validation, the test split only for reporting.

    python benchmarks/accuracy.py --data DATA --suite mosi_context --seeds 5

DATA holds `mosi/context_aligned_10.pkl`, `mosi/words_50.pkl` and the folders `mfn/mmmo`, `mfn/pom`, `mfn/youtube`.
Each run is `mfm fit` and `mfm test` with a shipped configuration and the overlay in `benchmarks/configs`; runs that are
finished are kept, so that a stopped suite goes on where it was. Results go to `benchmarks/results/<suite>.json` (every
seed's metrics) and `<suite>.md` (mean and standard deviation).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runs import HERE, fit, head, heading, run, shown, spread


@dataclass(frozen=True)
class Suite:
    """One file, its configuration, and what is taken away from the trained model at test time."""

    config: str
    path: str
    missing: tuple[str, ...] = ()
    monitor: str = "val/mae"


SUITES = {
    "mosi_context": Suite("mosi.yaml", "mosi/context_aligned_10.pkl", ("text", "audio", "vision")),
    "mosi_words": Suite("mosi.yaml", "mosi/words_50.pkl"),
    "mmmo": Suite("mmmo.yaml", "mfn/mmmo"),
    "pom": Suite("pom.yaml", "mfn/pom", monitor="val/corr_mean"),
    "youtube": Suite("youtube.yaml", "mfn/youtube", monitor="val/acc"),
}


def run_seed(
    name: str, data: Path, seed: int, output: Path, more: Sequence[str] = (), *, missing: bool = True
) -> dict[str, dict[str, float]]:
    """Train and test one seed; returns stage -> metrics.

    Args:
        name: Of the suite.
        data: Folder with the published files.
        seed: Of the run.
        output: Where runs go.
        more: Further options of `mfm fit`.
        missing: Test with what the suite takes away, too.
    """
    suite = SUITES[name]
    folder = output / name / f"seed_{seed}"
    options = ["--config", suite.config, "--config", str(HERE / "configs" / f"{name}.yaml")]
    options += ["--data.path", str(data / suite.path), "--seed_everything", str(seed)]
    best = fit(folder, *options, *more)
    stages = {"fit": folder / "metrics_fit.json", "test": folder / "metrics_test.json"}
    if not stages["test"].is_file():
        run("test", "--ckpt_path", best, "--output", str(stages["test"]))
    for modality in suite.missing if missing else ():
        stages[f"test without {modality}"] = path = folder / f"metrics_test_without_{modality}.json"
        if not path.is_file():
            run("test", "--ckpt_path", best, "--data.missing", f"[{modality}]", "--output", str(path))
    return {stage: json.loads(path.read_text()) for stage, path in stages.items()}


def summary(runs: list[dict[str, dict[str, float]]], monitor: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Stage -> metric -> mean and sample deviation over the seeds."""
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for stage in runs[0]:
        wanted = [key for key in runs[0][stage] if key.startswith("test/")]
        if stage == "fit":
            wanted = [f"best/{monitor}", "epochs"]
        for key in wanted:
            values = [float(one[stage][key]) for one in runs if one[stage].get(key) is not None]
            if values:
                table.setdefault(stage, {})[key] = spread(values)
    return table


def short(key: str) -> bool:
    """Whether a metric belongs into the table: not a part of the loss, and of many traits only the means."""
    name = key.partition("/")[2]
    return "/" not in name and name not in ("loss", "prediction", "mmd")


def markdown(name: str, table: dict[str, dict[str, tuple[float, float]]], about: dict[str, object]) -> str:
    """The suite's table with everything needed to make it again."""
    lines = heading(name, about)
    keys = list(
        dict.fromkeys(key for stage in table.values() for key in stage if key.startswith("test/") and short(key))
    )
    lines += ["", "| split | " + " | ".join(key.partition("/")[2] for key in keys) + " |"]
    lines += ["|---|" + "---|" * len(keys)]
    for stage, values in table.items():
        if stage != "fit":
            cells = [shown(*values[key]) if key in values else "" for key in keys]
            lines += [f"| {stage} | " + " | ".join(cells) + " |"]
    fitted = [f"{key} {shown(*value)}" for key, value in table["fit"].items()]
    return "\n".join([*lines, "", "Validation: " + ", ".join(fitted) + ".", ""])


def main() -> None:
    """Run a suite and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--suite", choices=sorted(SUITES), nargs="+", default=sorted(SUITES))
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    for name in options.suite:
        seeds = list(range(1, options.seeds + 1))
        runs = []
        for seed in seeds:
            started = time.perf_counter()
            runs.append(run_seed(name, options.data, seed, options.output))
            test = {key: value for key, value in runs[-1]["test"].items() if key.startswith("test/") and short(key)}
            line = " ".join(f"{key.partition('/')[2]} {value:.3f}" for key, value in test.items() if value is not None)
            print(f"{name} seed {seed} ({time.perf_counter() - started:.0f} s): {line}", flush=True)
        first = runs[0]["test"]
        command = f"python benchmarks/accuracy.py --data DATA --suite {name} --seeds {options.seeds}"
        about = {**head(command, options.seeds, first), "parameters": first["parameters"]}
        table = summary(runs, SUITES[name].monitor)
        options.results.mkdir(parents=True, exist_ok=True)
        keep = [{stage: {k: v for k, v in one[stage].items() if "/" in k or k in ("seed", "epochs", "samples")}
                 for stage in one} for one in runs]  # fmt: skip
        (options.results / f"{name}.json").write_text(json.dumps({**about, "runs": keep}, indent=1) + "\n")
        (options.results / f"{name}.md").write_text(markdown(name, table, about))


if __name__ == "__main__":
    main()
