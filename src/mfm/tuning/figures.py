"""The figure of a study: its values in the order of trials, and against each option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from mfm.analysis.figures import TRAIN, TRUTH, VALID
from mfm.tuning.results import Row
from mfm.tuning.space import Dimension, SearchSpace

_COLUMNS = 4
_PANEL = (3.3, 3.0)  # inches


def study_figure(rows: Sequence[Row], space: SearchSpace, monitor: str, mode: str) -> Figure:
    """Draw how a study went.

    Args:
        rows: Its trials.
        space: What was varied.
        monitor: Name of the value, for the axes.
        mode: `min` or `max`: which direction is better.
    """
    panels = 1 + len(space.dimensions)
    columns = min(_COLUMNS, panels)
    height = -(-panels // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * height), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False).ravel()
    complete = [row for row in rows if row.state == "complete"]
    _history(axes[0], rows, complete, mode)
    for panel, dimension in zip(axes[1:], space.dimensions, strict=False):
        _slice(panel, dimension, complete)
    for panel in axes[:panels]:
        panel.set_ylabel(f"{monitor} ({'lower' if mode == 'min' else 'higher'} is better)", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    for panel in axes[panels:]:
        panel.set_visible(False)
    return figure


def _history(axes: Axes, rows: Sequence[Row], complete: Sequence[Row], mode: str) -> None:
    numbers, values = [row.number for row in complete], [row.value for row in complete]
    axes.plot(numbers, values, ".", color=TRAIN, label="complete")
    pruned = [row for row in rows if row.state == "pruned"]
    if pruned:
        places = [row.number for row in pruned]
        axes.plot(places, [row.value for row in pruned], "x", color=TRUTH, markersize=5, label="pruned")
    if values:
        best = (np.minimum if mode == "min" else np.maximum).accumulate(np.asarray(values))
        axes.step(numbers, best, where="post", color=VALID, label="best so far")
    _mark_own(axes, [row for row in complete if row.own], lambda row: row.number)
    for row in rows:
        if row.state == "failed":
            axes.axvline(row.number, color=TRUTH, linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="trials", xlabel="trial (dotted: failed)")
    axes.title.set_fontsize(9)
    axes.legend(frameon=False, fontsize=7)


def _slice(axes: Axes, dimension: Dimension, complete: Sequence[Row]) -> None:
    known = [row for row in complete if dimension.option in row.values]

    def place(row: Row) -> Any:
        value = row.values[dimension.option]
        return dimension.values.index(value) if dimension.kind == "choice" else value

    if dimension.kind == "choice":
        axes.set_xlim(-0.5, len(dimension.values) - 0.5)
        axes.set_xticks(range(len(dimension.values)), [str(value)[:12] for value in dimension.encoded], fontsize=7)
    else:
        axes.set_xscale("log" if dimension.kind.startswith("log") else "linear")
        axes.set_xlim(*dimension.values)
        axes.xaxis.set_minor_formatter(NullFormatter())  # less than a decade would be labelled over and over
    order = [row.number for row in known]
    axes.scatter([place(row) for row in known], [row.value for row in known], c=order, cmap="Blues", vmin=-8, s=16)
    _mark_own(axes, [row for row in known if row.own], place)
    axes.set(title=dimension.option, xlabel="darker: later")
    axes.title.set_fontsize(9)


def _mark_own(axes: Axes, rows: Sequence[Row], place: Callable[[Row], Any]) -> None:
    places = [place(row) for row in rows]
    axes.plot(places, [row.value for row in rows], "D", color=VALID, markersize=5, label="as it stood", clip_on=False)
