"""The figure of what was generated: what is read from it, and a few sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mfm.analysis.figures import TRAIN, TRUTH, VALID
from mfm.corpora import Corpus
from mfm.data.records import FloatArray, IntArray

_FEATURES = 32  # rows of a heat map
_LIMIT = 2.0  # deviations at the ends of the colour scale


class Shown(NamedTuple):
    """One sample of the figure: its title and modality -> (T, D) standardised features."""

    title: str
    features: Mapping[str, FloatArray]


def generation_figure(
    corpus: Corpus,
    readings: Mapping[str, Tensor],
    intended: Tensor,
    known: Tensor,
    scores: Mapping[str, Mapping[str, float]],
    shown: Sequence[Shown],
    title: str,
    target: int = 0,
    *,
    style: Tensor | None = None,
) -> Figure:
    """Draw what readers say of generated samples, and some of these as heat maps, one column a modality.

    A heat map has a row for each feature (the 32 that differ most among those shown, in one order for all) and a column
    for each step; all maps of one line belong to one sample, named at its left.

    Args:
        corpus: Task and target names.
        readings: Reader -> (P, K) raw outputs on what was generated; one target is drawn.
        intended: (P, K), or (P,) classes.
        known: Same shape, which are known.
        scores: Reader -> metric -> value, drawn for classes.
        shown: The samples.
        title: Title of the figure.
        target: Which target is drawn.
        style: Labels of the samples that gave the Z_ai, same shape as `intended`; drawn for a single exchange.
    """
    names = sorted(shown[0].features) if shown else []
    panels = bool(readings)
    columns = len(names) + panels
    figure = Figure(figsize=(max(5.0, 3.5 * columns), max(3.6, 1.9 * len(shown) + 0.6)), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(max(1, len(shown)), max(1, columns), width_ratios=[1.25] * panels + [1] * len(names))
    if panels:
        axes = figure.add_subplot(grid[:, 0])
        if corpus.task == "regression":
            label, there = intended[:, target].numpy(), known[:, target].numpy()
            said = {reader: read[:, target].numpy() for reader, read in readings.items()}
            _ratings(axes, corpus.targets[target], said, label, there, None if style is None else style[:, target])
        else:
            _bars(axes, {name: scores[name]["acc"] for name in readings})
    _heat_maps(figure, grid, shown, first=int(panels))
    return figure


def _ratings(
    axes: Axes, name: str, said: Mapping[str, FloatArray], label: FloatArray, known: FloatArray, style: Tensor | None
) -> None:
    """What readers say of a target against what was intended; of a single exchange, between its two ends."""
    if style is not None and len(label) == 1:
        ends = {"content": float(label[0]) if known[0] else np.nan, "style": float(style[0])}
        _one(axes, name, {reader: float(read[0]) for reader, read in said.items()}, ends)
    else:
        _scatter(axes, name, said, label, known)


def _heat_maps(figure: Figure, grid: GridSpec, shown: Sequence[Shown], first: int) -> None:
    """A row of the grid for each sample, a column, from the `first` on, for each modality."""
    names = sorted(shown[0].features) if shown else []
    heat = []
    for column, name in enumerate(names):
        order = _most_different([one.features[name] for one in shown])
        for row, one in enumerate(shown):
            axes = figure.add_subplot(grid[row, column + first])
            image = _heat_map(axes, one.features[name][:, order])
            heat += [] if image is None else [image]
            if row == 0:
                dims = one.features[name].shape[1]
                axes.set_title(
                    f"{name}: {dims} features" if len(order) == dims else f"{name}: {len(order)} of {dims} features"
                )
            if row == len(shown) - 1:
                axes.set_xlabel("step")
            if column == 0:
                axes.set_ylabel(one.title.replace(" (", "\n(", 1), fontsize=9)  # beside a low map
    if heat:
        figure.colorbar(
            heat[0],
            ax=figure.axes[first:],
            label="training deviations from the training mean",
            shrink=0.8,
            extend="both",
        )


def _heat_map(axes: Axes, values: FloatArray) -> AxesImage | None:
    """A row for each feature, a column for each step; nothing for an absent modality."""
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    if not len(values):
        axes.set_xticks([])
        axes.text(0.5, 0.5, "absent", ha="center", va="center", transform=axes.transAxes, color=TRUTH)
        return None
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return axes.imshow(values.T, aspect="auto", cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT, interpolation="nearest")


def _most_different(sequences: Sequence[FloatArray]) -> IntArray:
    steps = np.concatenate(list(sequences))
    if not len(steps):
        return np.arange(min(steps.shape[1], _FEATURES))
    chosen = np.argsort(-steps.var(axis=0), kind="stable")[:_FEATURES]
    return np.sort(chosen)


def _scatter(
    axes: Axes, target: str, readings: Mapping[str, FloatArray], intended: FloatArray, known: FloatArray
) -> None:
    if known.any():
        ends = (float(intended[known].min()), float(intended[known].max()))
        axes.plot(ends, ends, color=TRUTH, linewidth=1, linestyle="--", label="read = intended")
    for (name, read), colour in zip(readings.items(), (TRAIN, VALID), strict=False):
        axes.scatter(intended[known], read[known], s=12, alpha=0.6, color=colour, linewidths=0, label=name)
    axes.set(xlabel=f"intended {target}", ylabel=f"{target} read from what was generated")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _one(axes: Axes, target: str, said: Mapping[str, float], labels: Mapping[str, float]) -> None:
    """What each reader says of a single sample, between the labels of the two it was made from."""
    for (name, label), line in zip(labels.items(), ("--", ":"), strict=True):
        if np.isfinite(label):
            axes.axhline(label, color=TRUTH, linestyle=line, label=f"label of {name}: {label:+.1f}")
    for place, (read, colour) in enumerate(zip(said.values(), (TRAIN, VALID), strict=False)):
        axes.plot(place, read, "o", color=colour, markersize=9)
        axes.annotate(f"{read:+.2f}", (place, read), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xticks(range(len(said)), list(said))
    axes.margins(0.15)
    axes.set(xlim=(-0.5, len(said) - 0.5), xlabel="reader", ylabel=f"{target} read from what was generated")
    axes.legend(fontsize=8, framealpha=0.85, edgecolor="none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _bars(axes: Axes, accuracy: Mapping[str, float]) -> None:
    axes.bar(range(len(accuracy)), list(accuracy.values()), color=[TRAIN, VALID][: len(accuracy)], width=0.6)
    axes.set_xticks(range(len(accuracy)), list(accuracy))
    axes.set(ylim=(0, 1), ylabel="intended label read, share")
    axes.spines[["top", "right"]].set_visible(False)
