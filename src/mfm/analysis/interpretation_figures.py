"""Figures of an interpretation: ratios, gradient flow over words, shares of the metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mfm.analysis.figures import TRAIN, TRUTH, VALID
from mfm.analysis.interpretation import Interpretation, Segment

_LONGEST_LABEL = 12
_PLAIN: dict[str, Any] = {"parse_math": False}  # names and words may hold dollar signs: MMSA's ids do


def ratios_figure(found: Interpretation) -> Figure:
    """Information ratio of each modality with its interval, beside the two dependences that it is made of."""
    names = list(found.information)
    figure = Figure(figsize=(max(7.0, 2.4 + 1.9 * len(names)), 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    confidence = next(iter(found.information.values())).confidence
    ratios = [(one.ratio, one.low, one.high) for one in found.information.values()]
    _bars(left, names, ratios, TRAIN)
    left.set(
        ylabel="r = HSIC(F_y; X^) / HSIC(F_a; X^)", title=f"information ratio, {confidence:.0%} bootstrap interval"
    )
    known = [ratio for ratio, _, _ in ratios if np.isfinite(ratio) and ratio > 0]
    if known and max(known) > 10 * min(known):
        left.set_yscale("log")
    if any(ratio > 0.8 for ratio in known):
        left.axhline(1.0, color=TRUTH, linewidth=0.8, linestyle="--")
    place = np.arange(len(names))
    for shift, which, colour, label in ((-0.2, "shared", TRAIN, "F_y"), (0.2, "own", VALID, "the modality's own F_a")):
        parts = [getattr(one, which) for one in found.information.values()]
        right.bar(place + shift, [part.value for part in parts], 0.36, color=colour, label=label)
        for x, part in zip(place, parts, strict=True):
            right.hlines(part.chance, x + shift - 0.18, x + shift + 0.18, color="black", linewidth=1.2)
            text = f"p = {part.p_value:.2g}"
            right.annotate(text, (x + shift, part.value), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    right.hlines([], 0, 0, color="black", linewidth=1.2, label="chance (permutations)")
    right.set_xticks(place, names, **_PLAIN)
    right.set(ylabel="normalised HSIC with X^", ylim=(0.0, 1.3 * max(0.05, *right.get_ylim())))
    right.legend(frameon=False, fontsize=8, loc="upper right")
    _tidy(right)
    return figure


def flow_figure(found: Interpretation) -> Figure:
    """Heat maps of a few segments, a row a modality, over words where steps are words.

    Each row is scaled to its own largest value, printed at its end: modalities differ in features and hence in size.
    Colours are logarithmic where most steps are far below that, as with decoders that run freely.
    """
    segments = [one for one in found.segments if one.flow]
    relative = [value / max(flow) for one in segments for flow in one.flow.values() for value in flow if max(flow) > 0]
    norm = LogNorm(1e-4, 1.0) if relative and np.median(relative) < 0.1 else Normalize(0.0, 1.0)
    names = sorted({name for one in segments for name in one.flow})
    longest = max((len(flow) for one in segments for flow in one.flow.values()), default=1)
    worded = any(one.words for one in segments)
    height = 0.32 * len(names) + (1.35 if worded else 0.75)
    figure = Figure(
        figsize=(min(18.0, max(6.5, 2.6 + 0.42 * longest)), 0.7 + height * max(1, len(segments))), layout="constrained"
    )
    figure.suptitle(
        "gradient flow ||d x^_t / d F_y||^2, each row relative to its largest value (at the right)", fontsize=10
    )
    panels = figure.subplots(max(1, len(segments)), 1, squeeze=False)[:, 0]
    for axes in panels[len(segments) :]:
        axes.set_visible(False)
    image: AxesImage | None = None
    for axes, segment in zip(panels, segments, strict=False):
        image = _heat_map(axes, segment, names, longest, norm)
    if image is not None:
        figure.colorbar(
            image,
            ax=list(panels),
            shrink=0.6,
            pad=0.06 if longest < 30 else 0.04,
            label="relative",
            extend="min" if isinstance(norm, LogNorm) else "neither",
        )
    return figure


def _heat_map(axes: Axes, segment: Segment, names: Sequence[str], longest: int, norm: Normalize) -> AxesImage:
    table = np.full((len(names), longest), np.nan)
    for row, name in enumerate(names):
        flow = np.asarray(segment.flow.get(name, []))
        peak = flow.max(initial=0.0)
        table[row, : len(flow)] = np.maximum(flow / peak, 1e-12) if peak > 0 else 0.0
        axes.text(longest - 0.3, row, f"{peak:.2g}" if len(flow) else "absent", va="center", fontsize=7)
    image = axes.imshow(table, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(names)), list(names), fontsize=8, **_PLAIN)
    if segment.words:
        labels = [word if len(word) <= _LONGEST_LABEL else f"{word[: _LONGEST_LABEL - 1]}…" for word in segment.words]
        axes.set_xticks(
            range(len(labels)), labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=7, **_PLAIN
        )
    else:
        every = max(1, longest // 12)
        axes.set_xticks(range(0, longest, every), [str(step + 1) for step in range(0, longest, every)], fontsize=7)
        axes.set_xlabel("step", fontsize=8)
    said = ", ".join(
        f"{key} {_short(value)}" for key, value in segment.outcome.items() if key in ("prediction", "target") and value
    )
    axes.set_title(f"{segment.id}    {said}", fontsize=8, loc="left", **_PLAIN)
    axes.spines[:].set_visible(False)
    return image


def _short(cell: str) -> str:
    try:
        return f"{float(cell):.3g}"
    except ValueError:  # the name of a class
        return cell


def contribution_figure(found: Interpretation) -> Figure | None:
    """Shapley shares with intervals, and the metric of every subset; None where there is nothing to predict."""
    one = found.contribution
    if one is None:
        return None
    names = list(one.shapley)
    figure = Figure(figsize=(max(7.5, 3.0 + 1.3 * len(names) + 0.25 * len(one.scores)), 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _bars(left, names, [(one.shapley[name], one.low[name], one.high[name]) for name in names], TRAIN)
    left.axhline(0.0, color=TRUTH, linewidth=0.8)
    better = "higher" if one.higher_is_better else "lower"
    left.set(ylabel=f"improvement of {one.metric}", title=f"Shapley share, {one.confidence:.0%} bootstrap interval")
    # many modalities have too many subsets for a figure; the table has them all
    shown = (
        list(one.scores.items())
        if len(one.scores) <= 32
        else [*list(one.scores.items())[:31], list(one.scores.items())[-1]]
    )
    labels = ["+".join(sorted(subset)) or "none (constant)" for subset, _ in shown]
    right.barh(range(len(shown)), [score for _, score in shown], color=[TRUTH] + [TRAIN] * (len(shown) - 1))
    right.set_yticks(range(len(shown)), labels, fontsize=8, **_PLAIN)
    right.invert_yaxis()
    for row, (_, score) in enumerate(shown):
        right.annotate(f"{score:.3f}", (score, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    right.margins(x=0.15)
    right.set(xlabel=f"{one.metric} ({better} is better)", title="with these modalities only")
    _tidy(right)
    return figure


def _bars(axes: Axes, names: Sequence[str], values: Sequence[tuple[float, float, float]], colour: str) -> None:
    for place, (value, low, high) in enumerate(values):
        if not np.isfinite(value):
            axes.text(place, 0.0, "not defined", ha="center", va="bottom", fontsize=8)
            continue
        axes.bar(place, value, 0.6, color=colour, alpha=0.85)
        if np.isposinf(high):
            axes.vlines(place, low, 2 * value, color="black", linewidth=1.4, linestyle=":")
            axes.annotate("∞", (place, 2 * value), (0, 1), textcoords="offset points", ha="center")
        elif np.isfinite(low) and np.isfinite(high):
            # the percentile interval need not hold the estimate itself
            axes.vlines(place, low, high, color="black", linewidth=1.4)
            axes.hlines([low, high], place - 0.08, place + 0.08, color="black", linewidth=1.4)
    axes.set_xticks(range(len(names)), list(names), **_PLAIN)
    axes.set_xlim(-0.6, len(names) - 0.4)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
