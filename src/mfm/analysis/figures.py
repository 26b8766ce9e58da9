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
_PARTS = (TRAIN, VALID, "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")
_SURROGATE = "surrogate/"
_BETTER = {"min": "lower", "max": "higher"}
_MARKERS = (".", "s", "^", "D")  # with the colours, more than a corpus has parts


def save_figure(figure: Figure, path: str | Path) -> None:
    """Save as PNG, whole or not at all."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def training_curves(rows: Sequence[Mapping[str, float]], monitor: str, mode: str) -> Figure:
    """Loss, the monitored validation metric and the parts of the loss over epochs.

    Args:
        rows: Logged values, each with `epoch`; names as `train/loss`, `val/mae`.
        monitor: The metric that selects the model, marked at its best epoch.
        mode: `min` or `max` of that metric.
    """
    figure = Figure(figsize=(12, 3.3), layout="constrained")
    loss, metric, parts = figure.subplots(1, 3)
    for stage, colour, label in (("train", TRAIN, "training"), ("val", VALID, "validation")):
        _curve(loss, rows, f"{stage}/loss", label, color=colour)
    loss.set(title="loss", ylabel="weighted sum of the parts")
    loss.legend(frameon=False)
    name = monitor.partition("/")[2] or monitor
    _curve(metric, rows, monitor, "validation", color=VALID)
    points = [(row["epoch"], row[monitor]) for row in rows if monitor in row and np.isfinite(row[monitor])]
    if points:
        best = (min if mode == "min" else max)(points, key=lambda point: point[1])
        metric.plot(*best, "o", color="black", label=f"kept: {best[1]:.3f}, epoch {int(best[0])}")
        metric.legend(frameon=False)
    metric.set(title=f"{monitor}, which selects the model", ylabel=f"{name} ({_BETTER[mode]} is better)")
    _parts(parts, rows)
    for axes in (loss, metric, parts):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
    tidy(loss, metric, parts)
    return figure


def _parts(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    """Parts of the training loss; a surrogate's are dashed, in the colour of the model's part they correspond to."""
    names = sorted({key.removeprefix("train/") for row in rows for key in row if key.startswith("train/")} - {"loss"})
    kinds = list(dict.fromkeys(name.removeprefix(_SURROGATE) for name in names))
    for name in names:
        kind = kinds.index(name.removeprefix(_SURROGATE))
        style = {"color": _PARTS[kind % len(_PARTS)], "linestyle": "--" if name.startswith(_SURROGATE) else "-"}
        _curve(axes, rows, f"train/{name}", name, marker=_MARKERS[kind // len(_PARTS) % len(_MARKERS)], **style)
    axes.set(title="parts of the training loss", ylabel="unweighted, logarithmic")
    if names:
        axes.set_yscale("log")
        # beside the axes: a surrogate doubles the number of parts, and no corner of the panel would be free
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _curve(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, label: str, marker: str = ".", **style: Any
) -> None:
    points = [(row["epoch"], row[key]) for row in rows if key in row and "epoch" in row]
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, values, label=label, marker=marker if len(points) < 40 else None, markersize=5, **style)


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
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    tidy(axes)


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


def tidy(*panels: Axes) -> None:
    """Take away what frames panels, and give them a light grid."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
