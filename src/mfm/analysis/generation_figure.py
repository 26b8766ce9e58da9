"""The figure of what was generated: what is read from it, and a few sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
) -> Figure:
    """Draw what readers say of generated samples, and some of these as heat maps, one column a modality.

    A heat map has a row for each feature (the 32 that differ most among those shown, in one order for all) and a column
    for each step.

    Args:
        corpus: Task and target names.
        readings: Reader -> (P, K) raw outputs on what was generated; one target is drawn.
        intended: (P, K), or (P,) classes.
        known: Same shape, which are known.
        scores: Reader -> metric -> value, drawn for classes.
        shown: The samples.
        title: Title of the figure.
        target: Which target is drawn.
    """
    names = sorted(shown[0].features) if shown else []
    panels = bool(readings)
    columns = len(names) + panels
    figure = Figure(figsize=(max(5.0, 3.5 * columns), max(3.4, 1.9 * len(shown) + 0.6)), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(max(1, len(shown)), max(1, columns), width_ratios=[1.25] * panels + [1] * len(names))
    if panels:
        axes = figure.add_subplot(grid[:, 0])
        if corpus.task == "regression":
            said = {name: read[:, target].numpy() for name, read in readings.items()}
            _scatter(axes, corpus.targets[target], said, intended[:, target].numpy(), known[:, target].numpy())
        else:
            _bars(axes, {name: scores[name]["acc"] for name in readings})
    for column, name in enumerate(names, start=int(panels)):
        order = _most_different([one.features[name] for one in shown])
        heat = []
        for row, one in enumerate(shown):
            axes = figure.add_subplot(grid[row, column])
            values = one.features[name]
            axes.set_title(f"{name}: {one.title}", fontsize=7)
            axes.set_yticks([])
            if not len(values):
                axes.set_xticks([])
                axes.text(0.5, 0.5, "absent", ha="center", va="center", transform=axes.transAxes, color=TRUTH)
                continue
            heat.append(
                axes.imshow(
                    values[:, order].T, aspect="auto", cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT, interpolation="nearest"
                )
            )
            axes.tick_params(labelsize=7)
            if row == len(shown) - 1:
                axes.set_xlabel("step", fontsize=8)
        if heat and column == columns - 1:
            figure.colorbar(heat[0], ax=figure.axes[-len(shown) :], label="deviations", shrink=0.8)
    return figure


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
        axes.plot(ends, ends, color=TRUTH, linewidth=1, linestyle="--", label="as intended")
    for (name, read), colour in zip(readings.items(), (TRAIN, VALID), strict=False):
        axes.scatter(intended[known], read[known], s=12, alpha=0.6, color=colour, linewidths=0, label=name)
    axes.set(xlabel=f"intended {target}", ylabel="read from what was generated")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _bars(axes: Axes, accuracy: Mapping[str, float]) -> None:
    axes.bar(range(len(accuracy)), list(accuracy.values()), color=[TRAIN, VALID][: len(accuracy)], width=0.6)
    axes.set_xticks(range(len(accuracy)), list(accuracy))
    axes.set(ylim=(0, 1), ylabel="intended label read, share")
    axes.spines[["top", "right"]].set_visible(False)
