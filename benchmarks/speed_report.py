r"""Table and figure of what `speed.py` measured: ratio to MMSA's MFM and share of the matrix products.

    python benchmarks/speed_report.py benchmarks/results/speed.json benchmarks/results/speed_lengths.json \
        --output benchmarks/results/speed.md --figure docs/figures/speed.png

Each JSON is the `--output` of one run of `speed.py`, with all steps real or with real lengths.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TARGETS = {
    "full": {32: (2.0, 3.2), 64: (1.7, 3.0), 128: (1.5, 2.7)},
    "real": dict.fromkeys((32, 64, 128), (5.0, 9.0)),
}
"""Ratio to MMSA aimed at, by batch: of training, and of prediction."""
SHARE = 0.75
"""Of a step that the matrix products should be, all steps real."""
COLOURS = {"training": "tab:blue", "evaluation": "tab:green", "prediction": "tab:olive"}


def target_of(record: dict[str, Any], row: dict[str, Any]) -> float | None:
    """The ratio aimed at; None for a shape without one."""
    own = TARGETS["full" if record["lengths"] == "full" else "real"].get(row["batch"])
    return None if own is None else dict(zip(("training", "prediction"), own, strict=True)).get(row["mode"])


def spread(row: dict[str, Any], name: str) -> str:
    """Median milliseconds, with quartiles."""
    if name not in row:
        return ""
    low, high = row[name]["quartiles"]
    return f"{row[name]['median']:.1f} ({low:.1f}, {high:.1f})"


def lines_of(record: dict[str, Any]) -> list[str]:
    """One run's section."""
    full = record["lengths"] == "full"
    title = "All steps real" if full else f"Real lengths ({record['lengths']})"
    machine = ", ".join(f"{key} {value}" for key, value in record["machine"].items())
    lines = ["", f"## {title}, {record['dtype']}", "", f"{record['date']}; {machine}; `{record['command']}`.", ""]
    columns = ["text/audio/vision D", "batch", "mode", "fused, ms", "reference, ms", "MMSA, ms"]
    columns += ["reference / fused", "MMSA / fused", "target", "reached"]
    columns += ["matrix products, ms", "their share"] if full else []
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row in record["rows"]:
        ratio, target = row["ratio"].get("mmsa"), target_of(record, row)
        cells = [row["dims"], str(row["batch"]), row["mode"]]
        cells += [spread(row, name) for name in ("auto", "reference", "mmsa")]
        cells += [f"{row['ratio']['reference']:.2f}", "" if ratio is None else f"{ratio:.2f}"]
        cells += ["" if target is None else f"{target:.1f}"]
        cells += ["" if ratio is None or target is None else "yes" if ratio >= target else "no"]
        cells += [spread(row, "gemm"), f"{row['ratio']['gemm']:.0%}"] if full else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def document(records: list[dict[str, Any]]) -> str:
    """All runs as Markdown."""
    lines = [
        "# Speed beside MMSA's MFM",
        "",
        "Milliseconds of a step: medians, with quartiles in brackets; everything of a row took turns in one process. "
        "`fused` is the default backend. Ratios above 1 say how many times as long the other one takes. `evaluation` "
        "is forward with all losses; `prediction` is the label alone, and has the target of inference: MMSA's forward "
        "always decodes and computes its losses, and stands beside both. The share is the part of our step that its "
        f"bare matrix products take alone; the aim is {SHARE:.0%}.",
    ]  # fmt: skip
    for record in records:
        lines += lines_of(record)
    missed = [
        f"{record['lengths']}, {row['dims']}, batch {row['batch']}, {row['mode']}: "
        f"{row['ratio']['mmsa']:.2f} of {target:.1f}"
        for record in records
        for row in record["rows"]
        if "mmsa" in row["ratio"] and (target := target_of(record, row)) and row["ratio"]["mmsa"] < target
    ]  # fmt: skip
    lines += ["", "## Targets missed", "", *([f"* {one}" for one in missed] or ["None."])]
    return "\n".join([*lines, ""])


def figure(records: list[dict[str, Any]], path: Path) -> None:
    """Ratio to MMSA's MFM by shape and mode; a line at the ratio that the matrix products alone would have."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    records = [record for record in records if all("mmsa" in row["ratio"] for row in record["rows"])]
    if not records:
        raise SystemExit("no run has MMSA beside it: give speed.py --mmsa DIR")
    canvas, panels = pyplot.subplots(
        1, len(records), figsize=(7 * len(records), 4), squeeze=False, layout="constrained"
    )
    for record, panel in zip(records, panels[0], strict=True):
        shapes = list(dict.fromkeys((row["dims"], row["batch"]) for row in record["rows"]))
        modes = list(dict.fromkeys(row["mode"] for row in record["rows"]))
        width, bounded = 0.8 / len(modes), False
        for row in record["rows"]:
            shape, place = shapes.index((row["dims"], row["batch"])), modes.index(row["mode"])
            left = shape - 0.4 + place * width
            first = row["mode"] not in panel.get_legend_handles_labels()[1]
            panel.bar(left, row["ratio"]["mmsa"], 0.92 * width, align="edge", color=COLOURS[row["mode"]],
                      label=row["mode"] if first else None)  # fmt: skip
            if "gemm" in row:
                bound = row["mmsa"]["median"] / row["gemm"]["median"]
                panel.hlines(bound, left, left + 0.92 * width, color="black", linewidth=1.5,
                             label=None if bounded else "matrix products alone")  # fmt: skip
                bounded = True
        panel.axhline(1, color="tab:red", linewidth=1, label="MMSA's MFM")
        panel.set_xticks(range(len(shapes)), [f"{dims}\nbatch {size}" for dims, size in shapes], fontsize=8)
        panel.set_title("all steps real" if record["lengths"] == "full" else f"real lengths ({record['lengths']})")
        panel.set_ylabel("times as fast as MMSA's MFM")
        panel.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.08), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="JSON of speed.py --output")
    parser.add_argument("--output", type=Path, help="Markdown to write; printed without")
    parser.add_argument("--figure", type=Path, help="PNG to write")
    options = parser.parse_args()
    records = [json.loads(path.read_text()) for path in options.runs]
    if options.output:
        options.output.write_text(document(records))
    else:
        print(document(records))
    if options.figure:
        figure(records, options.figure)


if __name__ == "__main__":
    main()
