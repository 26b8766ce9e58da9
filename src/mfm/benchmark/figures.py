"""Figures of a report: what accuracy costs, and how much seeds scatter."""

from __future__ import annotations

import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from mfm.analysis.figures import TRAIN, VALID, tidy
from mfm.benchmark.study import CorpusRuns, Study


def corpus_figure(study: Study, runs: CorpusRuns) -> Figure:
    """A corpus' selecting metric on the test split against seconds and parameters, and its seeds."""
    figure = Figure(figsize=(13, 1.8 + 0.32 * max(6, len(runs.runs))), layout="constrained")
    seconds, parameters, seeds = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 1.2]})
    for axes, key, label in (
        (seconds, "seconds_fit", "seconds of training, mean"),
        (parameters, "parameters", "parameters"),
    ):
        _against(axes, study, runs, key)
        axes.set(xlabel=label, ylabel=_name(runs), xscale="log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
    _scatter(seeds, study, runs)
    figure.suptitle(f"{runs.title}: test split")
    tidy(seconds, parameters, seeds)
    return figure


def _name(runs: CorpusRuns) -> str:
    return f"{runs.monitor} ({'higher' if runs.higher_is_better else 'lower'} is better)"


def _against(axes: Axes, study: Study, runs: CorpusRuns, key: str) -> None:
    for model, several in runs.runs.items():
        values = runs.values(model, runs.monitor)
        place = statistics.fmean(float(run[key]) for run in several)
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        colour = VALID if model == study.reference else TRAIN
        mean = statistics.fmean(values)
        axes.errorbar(place, mean, yerr=deviation, fmt="o", color=colour, capsize=2)
        axes.annotate(study.titles[model], (place, mean), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes.margins(x=0.15)


def _scatter(axes: Axes, study: Study, runs: CorpusRuns) -> None:
    """Every seed, the best model on top."""
    ordered = runs.best_first()[::-1]
    for row, model in enumerate(ordered):
        values = runs.values(model, runs.monitor)
        colour = VALID if model == study.reference else TRAIN
        axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.6, markersize=5)
        axes.plot(statistics.fmean(values), row, "|", color="black", markersize=14)
    axes.set_yticks(range(len(ordered)), [study.titles[model] for model in ordered])
    axes.set(xlabel=f"{_name(runs)}, a dot a seed")
