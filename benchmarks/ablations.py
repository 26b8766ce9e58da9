"""What each factor brings: every rung of the ablation ladder on a real file, over seeds.

    python benchmarks/ablations.py --data DATA --seeds 5

Each run is `mfm fit` and `mfm test` with a configuration of `configs/ablations` and the overlay that the accuracy
benchmark has for `context_aligned_10.pkl`; its epoch is chosen on validation. Runs that are finished are kept, so that
a stopped benchmark goes on where it was. Results go to `benchmarks/results/ablations.json` and `.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mfm.files import write_json, write_text
from runs import HERE, fit, head, heading, run, shown, spread

VARIANTS = {
    "m_a": "M_A: unimodal encoders fused late, discriminative",
    "m_b": "M_B: a joint factor, discriminative",
    "m_c": "M_C: modality-specific factors for generation and prediction",
    "m_d": "M_D: one joint factor for both",
    "m_e": "M_E: a joint discriminative and one shared generative factor",
    "mfm": "MFM: modality-specific generative factors",
    "kl": "MFM with KL instead of MMD",
    "beta_kl": "MFM with beta KL",
    "two_stage_beta_vae": "two-stage beta-VAE: generate, then discriminate",
}
METRICS = ("mae", "corr", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc7")
Results = Mapping[str, float]


def run_seed(variant: str, data: Path, seed: int, output: Path) -> Results:
    """Train and test one seed of a variant."""
    folder = output / variant / f"seed_{seed}"
    config = ["--config", f"ablations/{variant}.yaml", "--config", str(HERE / "configs" / "mosi_context.yaml")]
    given = ["--data.path", str(data / "mosi" / "context_aligned_10.pkl"), "--seed_everything", str(seed)]
    best, path = fit(folder, *config, *given), folder / "metrics_test.json"
    if variant == "two_stage_beta_vae":  # the run so far has learnt to generate; another one trains the head on it
        folder = output / f"{variant}_discriminate" / f"seed_{seed}"
        second = ["--config", str(Path(best).parents[1] / "config.yaml"), "--model.stage", "discriminate"]
        best, path = fit(folder, *second, "--model.init_from", best), folder / "metrics_test.json"
    if not path.is_file():
        run("test", "--ckpt_path", best, "--output", str(path))
    found: Results = json.loads(path.read_text())
    return found


def markdown(found: Mapping[str, Sequence[Results]], about: Mapping[str, Any]) -> str:
    """The table with everything needed to make it again."""
    lines = [*heading("Ablations", about), ""]
    lines += [
        "Sizes, weights and optimisation are those of mosi.yaml in every row; rows differ in their factors and what "
        "binds them to the prior. `minus MFM`: difference in MAE to MFM within seeds, mean and standard error.",
        "",
        "| variant | parameters | " + " | ".join(METRICS) + " | minus MFM |",
        "|---" * (3 + len(METRICS)) + "|",
    ]
    for variant, runs in found.items():
        row = [shown(*spread([one[f"test/{metric}"] for one in runs])) for metric in METRICS]
        gaps = [one["test/mae"] - own["test/mae"] for one, own in zip(runs, found.get("mfm", []), strict=False)]
        mean, deviation = spread(gaps) if gaps else (math.nan, math.nan)
        gap = "" if variant == "mfm" or not gaps else f"{mean:+.3f} ± {deviation / math.sqrt(len(gaps)):.3f}"
        lines.append(f"| {VARIANTS[variant]} | {int(runs[0]['parameters']):,} | {' | '.join(row)} | {gap} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train every variant and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--variants", choices=list(VARIANTS), nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N")
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    found: dict[str, list[Results]] = {variant: [] for variant in options.variants}
    for seed in range(1, options.seeds + 1):
        for variant, runs in found.items():
            started = time.perf_counter()
            runs.append(run_seed(variant, options.data, seed, options.output))
            print(
                f"{variant} seed {seed} ({time.perf_counter() - started:.0f} s): mae {runs[-1]['test/mae']:.3f}",
                flush=True,
            )
    first = {**runs[0], "parameters": 0} if (runs := found[options.variants[0]]) else {}
    about = head(f"python benchmarks/ablations.py --data DATA --seeds {options.seeds}", options.seeds, first)
    kept = {variant: [{k: v for k, v in one.items() if "/" in k or k == "seed"} for one in runs]
            for variant, runs in found.items()}  # fmt: skip
    write_json(options.results / "ablations.json", {**about, "runs": kept})
    write_text(options.results / "ablations.md", markdown(found, about))


if __name__ == "__main__":
    main()
