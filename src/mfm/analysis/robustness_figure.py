"""The figure of a robustness study: one panel a protocol, methods overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mfm.analysis.robustness import PROTOCOLS, Row, Summary, summarise
from mfm.models.subsets import Subset, subset_name

# colour-blind safe (Paul Tol's "bright")
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")  # more than colours, so that no two methods look alike
STYLES = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#777777"
TITLES = {
    "subsets": "subsets: which modalities are observed",
    "random": "random: modalities absent at random",
    "spans": "spans: consecutive steps lost",
    "steps": "steps: single steps lost",
    "noise": "noise: added to the features",
}
MEANINGS = {
    "own": "own: the model as it is",
    "zero_fill": "zero_fill: zeros instead",
    "mean_fill": "mean_fill: training means instead",
    "absent": "absent: masked, without surrogate",
}
LABELS = {
    "random": "rate of missing modalities",
    "spans": "share of steps lost in one span",
    "steps": "rate of lost steps",
    "noise": "signal-to-noise ratio (dB)",
}


def robustness_figure(rows: Sequence[Row], metric: str, title: str) -> Figure:
    """Draw a study.

    In `subsets`, a point for each subset and method. In the others, thick lines with the central 95% of draws where all
    modalities are hit jointly, one for each method, and thin lines of the first method where one alone is hit. What
    needs no input is a thin black line.

    Args:
        rows: The evaluations.
        metric: The metric to draw.
        title: Title of the figure.
    """
    curves = summarise(rows)
    protocols = [name for name in PROTOCOLS if any(curve["protocol"] == name for curve in curves)]
    methods = list(dict.fromkeys(curve["method"] for curve in curves if curve["method"] != "constant"))
    constant = next((curve["metrics"][metric].mean for curve in curves if curve["method"] == "constant"), None)
    columns = min(3, len(protocols))
    lines = -(-len(protocols) // columns)
    figure = Figure(figsize=(max(5.2, 4.4 * columns), 4.6 * lines), layout="constrained")
    # legends have rows of their own: wherever they lay in a panel, they would hide some study's points
    cells = figure.subplots(2 * lines, columns, squeeze=False, sharey="row", height_ratios=[3.4, 1.0] * lines)
    panels, legends = cells[::2].ravel(), cells[1::2].ravel()
    for axes in (*panels[len(protocols) :], *legends):
        axes.set_axis_off()
    figure.suptitle(title)
    for axes, below, protocol in zip(panels, legends, protocols, strict=False):
        own = [curve for curve in curves if curve["protocol"] == protocol and curve["method"] != "constant"]
        (_subsets if protocol == "subsets" else _curves)(axes, own, methods, metric)
        if constant is not None:
            axes.axhline(constant, color="black", linewidth=0.8, label="constant, without input", zorder=1)
        axes.set_title(TITLES[protocol], fontsize=10)
        axes.set_ylabel(metric)
        axes.tick_params(labelleft=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        below.legend(
            *axes.get_legend_handles_labels(), frameon=False, fontsize=7.5, ncols=2, loc="upper center", borderaxespad=0
        )
    return figure


def _subsets(axes: Axes, curves: Sequence[dict[str, Any]], methods: Sequence[str], metric: str) -> None:
    names: list[Subset] = list(dict.fromkeys(tuple(curve["observed"]) for curve in curves))
    apart = min(0.12, 0.8 / len(methods))
    for index, method in enumerate(methods):
        points = [
            (names.index(tuple(curve["observed"])) + apart * (index - (len(methods) - 1) / 2), _mean(curve, metric))
            for curve in curves
            if curve["method"] == method
        ]
        if points:
            x, y = zip(*points, strict=True)
            mark, said = MARKERS[index % len(MARKERS)], MEANINGS.get(method, method)
            axes.plot(x, y, mark, color=_colour(index), markersize=5, label=said)
    names_shown = [subset_name(name) for name in names]
    axes.set_xticks(range(len(names)), names_shown, rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_xlabel("observed")


def _curves(axes: Axes, curves: Sequence[dict[str, Any]], methods: Sequence[str], metric: str) -> None:
    protocol = curves[0]["protocol"]
    together = min(len(curve["observed"]) for curve in curves)
    for index, method in enumerate(methods):
        joint = [curve for curve in curves if curve["method"] == method and len(curve["observed"]) == together]
        if together == 0 and joint:
            style = "-" if index < len(COLOURS) else "--"
            _line(
                axes, joint, metric, f"{method}, all modalities", color=_colour(index), linewidth=2.0, linestyle=style
            )
            levels = [curve["level"] for curve in joint]
            found: list[Summary] = [curve["metrics"][metric] for curve in joint]
            axes.fill_between(
                levels,
                [one.low for one in found],
                [one.high for one in found],
                color=_colour(index),
                alpha=0.18,
                linewidth=0,
            )
    everything = sorted({name for curve in curves for name in curve["observed"]})
    first = next(curve["method"] for curve in curves)
    for index, name in enumerate(everything):
        alone = [
            curve for curve in curves if curve["method"] == first and set(curve["observed"]) == set(everything) - {name}
        ]
        _line(axes, alone, metric, f"{first}, only {name}", color=GREY, linewidth=1.1, linestyle=STYLES[index % 5])
    axes.set_xlabel(LABELS[protocol])
    if protocol == "noise":
        axes.invert_xaxis()  # worse to the right, as in all panels


def _line(axes: Axes, curves: Sequence[dict[str, Any]], metric: str, label: str, **style: Any) -> None:
    if curves:
        axes.plot(
            [curve["level"] for curve in curves], [_mean(curve, metric) for curve in curves], label=label, **style
        )


def _mean(curve: dict[str, Any], metric: str) -> float:
    found: Summary = curve["metrics"][metric]
    return found.mean


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
