"""Figures of a run: how training went, and what was predicted against what was true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from mfm.corpora import Corpus
from mfm.files import whole_file

TRAIN, VALID, TRUTH = "#4477aa", "#ee6677", "#666666"  # colour-blind safe (Paul Tol's "bright")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Save as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def training_curves(rows: Sequence[Mapping[str, float]], monitor: str, mode: str) -> Figure:
    """Loss, its parts and the monitored validation metric over epochs.

    Args:
        rows: Logged values, each with `epoch`; names as `train/loss`, `val/mae`.
        monitor: The metric that selects the model, marked at its best epoch.
        mode: `min` or `max` of that metric.
    """
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    loss, parts, metric = figure.subplots(1, 3)
    for stage, colour in (("train", TRAIN), ("val", VALID)):
        _curve(loss, rows, f"{stage}/loss", colour, stage)
    loss.set(title="loss", xlabel="epoch")
    loss.legend(frameon=False)
    names = sorted({key for row in rows for key in row if key.startswith("train/")} - {"train/loss"})
    for name in names:
        _curve(parts, rows, name, None, name.removeprefix("train/"))
    parts.set(title="parts of the training loss (unweighted)", xlabel="epoch")
    if names:
        parts.set_yscale("log")
        # below the axes: a surrogate doubles the number of parts, and no corner of the panel would be free
        parts.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    _curve(metric, rows, monitor, VALID, monitor)
    points = [(row["epoch"], row[monitor]) for row in rows if monitor in row and np.isfinite(row[monitor])]
    if points:
        best = (min if mode == "min" else max)(points, key=lambda point: point[1])
        metric.plot(*best, "o", color="black", label=f"best: {best[1]:.3f}, epoch {int(best[0])}")
        metric.legend(frameon=False)
    metric.set(title=monitor, xlabel="epoch")
    for axes in (loss, parts, metric):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(loss, parts, metric)
    return figure


def _curve(axes: Axes, rows: Sequence[Mapping[str, float]], key: str, colour: str | None, label: str) -> None:
    points = [(row["epoch"], row[key]) for row in rows if key in row and "epoch" in row]
    if points:
        epochs, values = zip(*points, strict=True)
        marker = "." if len(points) < 40 else None
        axes.plot(epochs, values, color=colour, label=label, marker=marker)


def predicted_against_true(corpus: Corpus, prediction: Tensor, target: Tensor, mask: Tensor, title: str) -> Figure:
    """Scatter of predictions against labels (regression) or confusion matrices (classes), a panel a target.

    Args:
        corpus: Task, targets and classes.
        prediction: (N, output_dim), raw output of the head.
        target: (N, K) or, for `multiclass`, (N,).
        mask: Same shape as `target`, False where the label is missing.
        title: Title of the figure.
    """
    targets = corpus.targets
    columns = min(4, len(targets))
    rows = -(-len(targets) // columns)
    figure = Figure(figsize=(max(4.6, 3.1 * columns), max(4.2, 3.1 * rows)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    figure.suptitle(title)
    for index, (axes, name) in enumerate(zip(panels, targets, strict=False)):
        if corpus.task == "multiclass":
            _confusion(axes, prediction.argmax(1)[mask].numpy(), target[mask].numpy(), corpus.classes)
        elif corpus.task == "regression":
            known = mask[:, index]
            _scatter(axes, corpus, prediction[known, index].numpy(), target[known, index].numpy())
        else:
            known = mask[:, index]
            guess = (prediction[known, index] > 0).long().numpy()
            _confusion(axes, guess, target[known, index].long().numpy(), ("absent", "present"))
        if len(targets) > 1:
            axes.set_title(name)
    for axes in panels[len(targets) :]:
        axes.set_visible(False)
    return figure


def _scatter(axes: Axes, corpus: Corpus, prediction: Any, target: Any) -> None:
    values = np.concatenate([prediction, target]) if len(target) else np.zeros(1)
    low, high = corpus.label_range or (float(values.min()), float(values.max()))
    low, high = min(low, float(values.min())), max(high, float(values.max()))
    margin = 0.05 * (high - low or 1.0)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=TRUTH, linewidth=1, linestyle="--", label="prediction = label")
    axes.scatter(target, prediction, s=9, alpha=0.5, color=TRAIN, linewidths=0)
    error = float(np.abs(prediction - target).mean()) if len(target) else float("nan")
    varied = len(target) > 1 and np.std(prediction) > 0 and np.std(target) > 0
    correlation = float(np.corrcoef(prediction, target)[0, 1]) if varied else float("nan")
    axes.set(xlim=limits, ylim=limits, xlabel="label", ylabel="prediction", aspect="equal")
    axes.text(0.03, 0.97, f"MAE {error:.3f}\nr {correlation:.3f}\nn {len(target)}", va="top", transform=axes.transAxes)
    _tidy(axes)


def _confusion(axes: Axes, guess: Any, truth: Any, names: Sequence[str]) -> None:
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (truth, guess), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="prediction", ylabel="label")


def _tidy(*panels: Axes) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
