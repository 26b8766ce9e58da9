"""What training costs: MMD, memory, growth with every size, MOSEI's epoch, two processes, data, starting.

    bash benchmarks/mmsa_environment.sh /tmp/mmsa
    OMP_NUM_THREADS=1 python benchmarks/costs.py --mmsa /tmp/mmsa

Each section measures what it compares side by side, one round of each after the other, and takes medians with
quartiles; run it on a machine that does nothing else (Linux, about five minutes). `docs/costs.md` has the formulas
behind the numbers. Results go to `benchmarks/results/costs.md` and `.json`, where sections that were not chosen stay as
they were; `--figure` draws what `costs.json` has. `--quick` is a trial with tiny sizes that writes only where told.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cost_epoch import mosei
from cost_measures import HERE, Section, quartiles
from cost_memory import memory
from cost_runs import ddp, loader, startup
from cost_scaling import AXES, MEANING, mmd_section, scaling
from speed import machine, shown_command

SECTIONS: dict[str, tuple[Callable[[Path | None, int, bool], Section], int]] = {
    "mmd": (mmd_section, 7),
    "memory": (memory, 3),
    "scaling": (scaling, 7),
    "mosei": (mosei, 9),
    "ddp": (ddp, 5),
    "loader": (loader, 3),
    "startup": (startup, 5),
}
"""Name -> what measures it, and its rounds."""


def document(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# What training costs", ""]
    lines += ["Medians, with quartiles in brackets. [docs/costs.md](../../docs/costs.md) has the formulas."]
    for name in [name for name in SECTIONS if name in found]:
        own = found[name]
        lines += ["", f"## {own['title']}", "", own["about"], ""]
        lines += [f"| {' | '.join(own['columns'])} |", "|" + "---|" * len(own["columns"])]
        lines += [f"| {' | '.join(row)} |" for row in own["rows"]]
        described = ", ".join(f"{key} {value}" for key, value in own["machine"].items())
        lines += ["", f"{own['date']}; {described}; `{own['command']}`."]
    return "\n".join([*lines, ""])


def figure(values: dict[str, Any], path: Path) -> None:
    """Time and memory of a training step against every size, on logarithmic axes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    axes = [axis for axis in AXES if axis in values]
    canvas, rows = pyplot.subplots(2, len(axes), figsize=(2.6 * len(axes), 5), squeeze=False, sharey="row",
                                   layout="constrained")  # fmt: skip
    for column, axis in enumerate(axes):
        own = values[axis]
        spreads = [quartiles(times) for times in own["ms"].values()]
        medians = [middle for _, middle, _ in spreads]
        errors = [[m - low for low, m, _ in spreads], [high - m for _, m, high in spreads]]
        above, below = rows[0][column], rows[1][column]
        above.errorbar(own["sizes"], medians, yerr=errors, marker="o", capsize=2)
        below.plot(own["sizes"], own["MB"], marker="s", color="tab:orange")
        for panel, kind in ((above, "time"), (below, "memory")):
            panel.set(xscale="log", yscale="log", title=f"exponent {own['exponents'][kind]:.2f}")
            panel.set_xticks(own["sizes"], [str(size) for size in own["sizes"]])
            panel.xaxis.set_minor_locator(ticker.NullLocator())
            panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
            panel.yaxis.set_minor_locator(ticker.NullLocator())
            panel.grid(alpha=0.3)
        below.set_xlabel(f"{axis}: {MEANING[axis]}", fontsize=8)
    rows[0][0].set_ylabel("ms a training step")
    rows[1][0].set_ylabel("peak memory, MB")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def main() -> None:
    """Measure the chosen sections and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmsa", type=Path, help="directory of mmsa_environment.sh; without, MMSA is left out")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeats", type=int, help="rounds of every section, instead of its own number")
    parser.add_argument("--quick", action="store_true", help="a trial: tiny sizes, two rounds")
    parser.add_argument("--output", type=Path, help="folder of costs.md and costs.json; benchmarks/results by default")
    parser.add_argument("--figure", type=Path, help="PNG; docs/figures/costs.png by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    output = options.output or (None if options.quick else HERE / "results")
    drawn = options.figure or (None if options.quick else HERE.parent / "docs" / "figures" / "costs.png")
    written = output / "costs.json" if output else None
    found = json.loads(written.read_text()) if written and written.is_file() else {}
    for name in options.sections:
        started = time.perf_counter()
        measured, rounds = SECTIONS[name]
        section = measured(options.mmsa, 2 if options.quick else options.repeats or rounds, options.quick)
        about = {"date": datetime.date.today().isoformat(), "command": shown_command(sys.argv), "machine": machine(1)}
        # as it will be read again: keys are strings there
        found[name] = json.loads(json.dumps({**about, **section._asdict()}))
        print(f"\n{section.title} ({time.perf_counter() - started:.0f} s)", flush=True)
        print("\n".join("  " + " | ".join(row) for row in section.rows), flush=True)
        if written and output:
            output.mkdir(parents=True, exist_ok=True)
            written.write_text(json.dumps(found, indent=1) + "\n")
            (output / "costs.md").write_text(document(found))
    if drawn and "scaling" in found:
        figure(found["scaling"]["values"], drawn)


if __name__ == "__main__":
    main()
