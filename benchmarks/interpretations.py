"""What feeds the shared factor on real files: HSIC ratios, gradient flow and contributions of trained models.

    python benchmarks/interpretations.py --data DATA --seeds 3

Models are those of the accuracy benchmark (`mosi_context`, `mosi_words`) and, on the first file, the one with
`benchmarks/configs/independence.yaml` on top, whose factors separate; runs that are there already are used. Each is
examined by `mfm interpret` on the test split. Results go to `benchmarks/results/interpretations.json` and `.md`, and
the figures of seed 1 to `docs/figures/interpret_*`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfm.files import write_json, write_text
from runs import HERE, fit, head, heading, run, shown, spread

KEPT = ("data_fingerprint", "information", "spread", "flow_mean", "contribution")
FIGURES = ("ratios", "gradient_flow")


@dataclass(frozen=True)
class Model:
    """A file and the configurations of its model."""

    title: str
    path: str
    overlays: tuple[str, ...]


MODELS = {
    "mosi_context": Model("context_aligned_10, published", "mosi/context_aligned_10.pkl", ("mosi_context.yaml",)),
    "mosi_context_independent": Model(
        "context_aligned_10, independent", "mosi/context_aligned_10.pkl", ("mosi_context.yaml", "independence.yaml")
    ),
    "mosi_words": Model("words_50", "mosi/words_50.pkl", ("mosi_words.yaml",)),
}


def run_seed(name: str, data: Path, seed: int, output: Path) -> dict[str, Any]:
    """Train and examine one seed."""
    model, folder = MODELS[name], output / name / f"seed_{seed}"
    options = [part for overlay in model.overlays for part in ("--config", str(HERE / "configs" / overlay))]
    given = ["--data.path", str(data / model.path), "--seed_everything", str(seed)]
    best, found = fit(folder, "--config", "mosi.yaml", *options, *given), folder / "interpretation"
    if not (found / "interpretation.json").is_file():
        run("interpret", "--ckpt_path", best, "--output", str(found))
    content: dict[str, Any] = json.loads((found / "interpretation.json").read_text(encoding="utf-8"))
    return content


def markdown(found: Mapping[str, Sequence[Mapping[str, Any]]], about: Mapping[str, Any]) -> str:
    """The table with everything needed to make it again."""
    columns = ("HSIC(F_y; X^)", "p", "HSIC(F_i; X^)", "p", "ratio", "deviation of X^", "gradient flow", "Shapley, MAE")
    lines = [
        *heading("What feeds the shared factor", about),
        "",
        "Test split. HSIC is normalised, with RBF kernels of median bandwidth; p by permutation, the largest over the "
        "seeds; gradient flow is the mean over real steps of ||d x^_t / d F_y||^2; Shapley values share out what the "
        "model's MAE is better than that of a constant. Where the deviation of X^ over samples is near 0 its decoder "
        "gives a mean, and ratios say what feeds the little that is left.",
        "",
        f"| model | modality | {' | '.join(columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for name, runs in found.items():
        for modality in runs[0]["information"]:
            own = [one["information"][modality] for one in runs]
            cells = []
            for block in ("shared", "own"):
                cells += [shown(*spread([one[block]["value"] for one in own]))]
                cells += [f"{max(one[block]['p_value'] for one in own):.3f}"]
            cells += [shown(*spread([one["ratio"] for one in own]))]
            cells += [shown(*spread([one["spread"][modality] for one in runs]))]
            cells += [shown(*spread([one["flow_mean"][modality] for one in runs]))]
            cells += [shown(*spread([one["contribution"]["shapley"][modality] for one in runs]))]
            lines.append(f"| {MODELS[name].title} | {modality} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Examine every model and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in MODELS}
    for name, runs in found.items():
        for seed in range(1, options.seeds + 1):
            runs.append(run_seed(name, options.data, seed, options.output))
            print(f"{name} seed {seed}", flush=True)
        for figure in FIGURES:
            source = options.output / name / "seed_1" / "interpretation" / f"{figure}.png"
            shutil.copyfile(source, options.figures / f"interpret_{name}_{figure}.png")
    command = f"python benchmarks/interpretations.py --data DATA --seeds {options.seeds}"
    about = head(command, options.seeds, found["mosi_context"][0])
    kept = {name: [{key: one[key] for key in KEPT} for one in runs] for name, runs in found.items()}
    write_json(options.results / "interpretations.json", {**about, "runs": kept})
    write_text(options.results / "interpretations.md", markdown(found, about))


if __name__ == "__main__":
    main()
