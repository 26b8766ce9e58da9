"""Does training on batches of similar length cost accuracy? Bucketed against unbucketed, over the same seeds.

    python benchmarks/bucketing.py --data DATA --seeds 5

Runs are those of `benchmarks/accuracy.py`, whose finished ones are used where `--output` has them, and the same with
`--data.bucketing false`. A metric agrees where the means differ by at most one standard error of the difference.
Results go to `benchmarks/results/bucketing.json` and `.md`.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from accuracy import run_seed
from mfm.files import write_json, write_text
from runs import HERE, head, heading, shown, spread

SUITES = ("mosi_context", "mosi_words")
METRICS = ("best/val/mae", "best/val/corr", "test/mae", "test/corr", "test/acc2_has0", "test/acc2_non0", "test/acc7")
UNBUCKETED = ("--data.bucketing", "false")


class Difference(NamedTuple):
    """One metric of both ways of training, over seeds."""

    bucketed: tuple[float, float]
    unbucketed: tuple[float, float]
    difference: float
    error: float

    @property
    def agrees(self) -> bool:
        """Whether the means are within one standard error of each other."""
        return abs(self.difference) <= self.error


def compared(bucketed: Sequence[float], unbucketed: Sequence[float]) -> Difference:
    """Means with deviations, their difference, and its standard error for independent runs."""
    error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (bucketed, unbucketed)))
    return Difference(spread(bucketed), spread(unbucketed), spread(bucketed)[0] - spread(unbucketed)[0], error)


def markdown(name: str, rows: dict[str, Difference], about: dict[str, object]) -> str:
    """A suite's table."""
    lines = heading(name, about)
    lines += ["", "| metric | bucketed | unbucketed | difference | its standard error | within one |", "|" + "---|" * 6]
    for metric, row in rows.items():
        cells = [metric, shown(*row.bucketed), shown(*row.unbucketed), f"{row.difference:+.4f}", f"{row.error:.4f}"]
        lines.append("| " + " | ".join([*cells, "yes" if row.agrees else "no"]) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run both ways of training on each suite, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--suite", choices=SUITES, nargs="+", default=list(SUITES))
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to N, N >= 2")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="where the runs go")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    texts, found = [], {}
    for name in options.suite:
        values: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for seed in range(1, options.seeds + 1):
            for bucketed in values:
                place = options.output if bucketed else options.output / "unbucketed"
                stages = run_seed(name, options.data, seed, place, () if bucketed else UNBUCKETED, missing=False)
                values[bucketed].append({**stages["fit"], **stages["test"]})
                mae = stages["test"]["test/mae"]
                print(f"{name} seed {seed} {'' if bucketed else 'un'}bucketed: mae {mae:.3f}", flush=True)
        rows = {
            metric: compared(*([float(one[metric]) for one in values[way]] for way in values))
            for metric in METRICS
            if all(metric in one for way in values.values() for one in way)
        }
        command = f"python benchmarks/bucketing.py --data DATA --suite {name} --seeds {options.seeds}"
        about = head(command, options.seeds, values[True][0])
        texts.append(markdown(name, rows, about))
        found[name] = {**about, "metrics": {metric: row._asdict() for metric, row in rows.items()}}
    write_json(options.results / "bucketing.json", found)
    write_text(options.results / "bucketing.md", "\n".join(texts))


if __name__ == "__main__":
    main()
