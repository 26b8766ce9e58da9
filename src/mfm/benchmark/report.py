"""The tables of a report, and the texts made of them."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mfm.benchmark.records import Record
from mfm.benchmark.study import Comparison, CorpusRuns, Study, compare_models
from mfm.benchmark.tables import Table, bounds, csv_text, html_table, latex, markdown, number, spread

_CSV = ("corpus", "model", "metric", "stage", "n", "mean", "deviation", "low", "high")
_CSV_TESTS = ("difference_low", "difference_high", "p", "p_holm")


@dataclass(frozen=True)
class Report:
    """A study with its comparisons.

    Attributes:
        study: The study.
        comparisons: Corpus -> metric -> intervals and tests.
        command: The command that made it.
        resamples: Draws of the bootstrap.
        seed: Of the draws.
    """

    study: Study
    comparisons: Mapping[str, Mapping[str, Comparison]]
    command: str
    resamples: int
    seed: int


def make_report(study: Study, metrics: Sequence[str], *, command: str, resamples: int, seed: int) -> Report:
    """Compute intervals and tests.

    Args:
        study: The study.
        metrics: Metrics to have them; by default the selecting metric of each corpus, and its correlation.
        command: The command, for the head.
        resamples: Draws of the bootstrap.
        seed: Of the draws.
    """
    comparisons = {}
    for label, runs in study.corpora.items():
        known = runs.metrics()
        default = list(dict.fromkeys([runs.monitor, *(name for name in known if name.startswith("corr"))]))
        names = [name for name in metrics if name in known] or default
        comparisons[label] = {
            name: compare_models(runs, name, study.reference, resamples=resamples, seed=seed) for name in names
        }
    return Report(study, comparisons, command, resamples, seed)


def summary_table(study: Study) -> Table:
    """Models x corpora: the selecting metric of each corpus, and the mean rank."""
    ordered = sorted(study.mean_ranks().items(), key=lambda item: (-item[1][1], item[1][0]))
    heads = [f"{label}: {runs.monitor} {_arrow(runs)}" for label, runs in study.corpora.items()]
    rows = []
    for model, (rank, count) in ordered:
        cells = [_cell(runs, model, runs.monitor) for runs in study.corpora.values()]
        of = "" if count == len(study.corpora) else f" ({count} of {len(study.corpora)} corpora)"
        rows.append([study.titles[model], *cells, number(rank, 1) + of])
    return Table("Test split, mean ± deviation over seeds (number of seeds)", ["model", *heads, "mean rank"], rows)


def corpus_table(report: Report, label: str) -> Table:
    """A corpus' models, the best first: every metric, and the interval and the test of the selecting one."""
    study, runs = report.study, report.study.corpora[label]
    shown = report.comparisons[label]
    first = runs.monitor if runs.monitor in shown else next(iter(shown))
    comparison, metrics = shown[first], runs.metrics()
    columns = ["model", "n", *metrics, f"{first}: 95 % interval"]
    if comparison.differences:
        columns += [f"less {study.titles[str(study.reference)]}", "p (Holm)"]
    if comparison.bound is not None:
        columns.append("regret")
    rows = []
    for model in runs.best_first():
        row = [study.titles[model], str(len(runs.runs[model]))]
        row += [spread(*_mean_and_deviation(runs.values(model, metric))) for metric in metrics]
        row.append(bounds(*comparison.intervals[model]))
        if comparison.differences:
            tested = model in comparison.differences
            row += [bounds(*comparison.differences[model]), _p(comparison.adjusted[model])] if tested else ["", ""]
        if comparison.bound is not None:
            sign = -1.0 if _higher(runs, first) else 1.0
            row.append(number(sign * (runs.mean(model, first) - comparison.bound)))
        rows.append(row)
    return Table(f"{runs.title}: test split, mean ± deviation over n seeds", columns, rows)


def cost_table(report: Report, label: str) -> Table:
    """What each model costs, means over its runs, and how its selected epoch scored on validation."""
    study, runs = report.study, report.study.corpora[label]
    columns = ["model", "parameters", f"val {runs.monitor}", "epochs", "seconds of training", "peak memory, MB"]
    rows = []
    for model in runs.best_first():
        several = runs.runs[model]
        late = sum(run.get("stopped_by") == "max_seconds" for run in several)
        epochs = number(statistics.fmean(run["epochs"] for run in several), 1)
        rows.append(
            [
                study.titles[model],
                f"{several[0]['parameters']:,}",
                spread(*_mean_and_deviation(runs.values(model, runs.monitor, "val"))),
                epochs + (f" ({late} stopped by the budget)" if late else ""),
                number(statistics.fmean(run["seconds_fit"] for run in several), 1),
                number(statistics.fmean(run["peak_memory_mb"]["host"] for run in several), 0),
            ]
        )
    return Table(f"{runs.title}: cost", columns, rows)


def failure_table(records: Sequence[Record], title: str) -> Table:
    """Runs that failed, and why."""
    rows = [[f"{one['corpus']}/{one['model']}/seed_{one['seed']}", str(one.get("error", ""))] for one in records]
    return Table(title, ["run", "why"], rows)


def head(report: Report) -> list[str]:
    """What the tables are made of and how to read them."""
    study, finished = report.study, report.study.finished()
    dates = sorted({run["started"][:10] for run in finished})
    versions = sorted({", ".join(f"{name} {one}" for name, one in run["versions"].items()) for run in finished})
    devices = sorted({run.get("device", "cpu") for run in finished})
    seeds = sorted({run["seed"] for run in finished})
    budgets = {tuple(run["budget"].items()) for run in finished}
    lines = [
        f"`{report.command}`",
        "",
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; seeds {', '.join(map(str, seeds))}; "
        f"{' | '.join(versions)}; {', '.join(devices)}.",
        f"{len(finished)} runs finished, {len(study.failures)} failed. "
        "Every run's epoch was chosen on validation; the test split was scored once, at the end.",
        *(_budget(dict(budget)) for budget in sorted(budgets, key=str)),
        f"Intervals: 95 %, percentiles of {report.resamples} draws of test samples and seeds (seed {report.seed}).",
    ]
    if study.reference is not None:
        lines += [
            f"Tests: paired bootstrap against {study.titles[study.reference]}, both models on the same drawn samples "
            "and each on seeds of its own; two-sided, with Holm's correction over the rows of a table. Few seeds make "
            "intervals and p-values somewhat too small."
        ]
    return [*lines, ""]


def conventions(runs: CorpusRuns) -> list[str]:
    """Definition of every metric shown; loads torch."""
    from mfm.metrics import describe

    texts = describe(runs.corpus)
    return [f"* `{name}`: {texts[name]}" for name in runs.metrics() if name in texts]


def corpus_section(report: Report, label: str, figures: str | None) -> list[str]:
    """A corpus' part of a document."""
    runs = report.study.corpora[label]
    lines = [f"## {runs.title}", "", f"Corpus `{label}`, data {runs.fingerprint[:12]}.", ""]
    lines += [runs.note, ""] if runs.note else []
    lines += [markdown(corpus_table(report, label))]
    for comparison in report.comparisons[label].values():
        if comparison.bound is not None:
            lines += [_bound_of(runs, comparison), ""]
        if comparison.metric != runs.monitor:
            lines += [markdown(_tested(report.study, runs, comparison))]
    lines += [markdown(cost_table(report, label))]
    if figures is not None:
        lines += [f"![{runs.monitor} against seconds, parameters and seed]({figures}/benchmark_{label}.png)", ""]
    return [*lines, *conventions(runs), ""]


def _bound_of(runs: CorpusRuns, comparison: Comparison) -> str:
    value = number(comparison.bound if comparison.bound is not None else math.nan)
    if comparison.metric == runs.monitor:
        return f"The label's median given the true label factor has {runs.monitor} {value}; regret is the loss to it."
    return f"The same median has {comparison.metric} {value}."


def _tested(study: Study, runs: CorpusRuns, comparison: Comparison) -> Table:
    columns = ["model", comparison.metric, "95 % interval"]
    columns += [f"less {study.titles[str(study.reference)]}", "p (Holm)"] if comparison.differences else []
    rows = []
    for model in runs.best_first():
        row = [study.titles[model], _cell(runs, model, comparison.metric), bounds(*comparison.intervals[model])]
        if comparison.differences:
            tested = model in comparison.differences
            row += [bounds(*comparison.differences[model]), _p(comparison.adjusted[model])] if tested else ["", ""]
        rows.append(row)
    return Table(f"{runs.title}: {comparison.metric}", columns, rows)


def document(report: Report, title: str, figures: str | None) -> str:
    """The whole report as Markdown."""
    study = report.study
    lines = [f"# {title}", "", *head(report), markdown(summary_table(study))]
    for label in study.corpora:
        lines += corpus_section(report, label, figures)
    for records, what in ((study.failures, "Failed"), (study.repeated, "Failed before, finished since")):
        if records:
            lines += [f"## {what}", "", markdown(failure_table(records, what))]
    return "\n".join(lines).rstrip("\n") + "\n"


def all_tables(report: Report) -> list[Table]:
    """The tables, for other formats."""
    study = report.study
    tables = [summary_table(study)]
    for label, runs in study.corpora.items():
        tables.append(corpus_table(report, label))
        tables += [_tested(study, runs, one) for name, one in report.comparisons[label].items() if name != runs.monitor]
        tables.append(cost_table(report, label))
    if study.failures:
        tables.append(failure_table(study.failures, "Failed runs"))
    return tables


def latex_text(report: Report) -> str:
    """All tables as LaTeX; it needs the booktabs package."""
    return "\n".join(map(latex, all_tables(report)))


def html_text(report: Report) -> str:
    """All tables as one HTML page."""
    head_lines = "".join(f"<p>{html.escape(line)}</p>\n" for line in head(report) if line)
    style = "<style>td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}</style>"
    body = "\n".join(map(html_table, all_tables(report)))
    return f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n{style}\n{head_lines}{body}</html>\n'


def csv_of(report: Report) -> str:
    """Every number, one row for each corpus, model, metric and stage."""
    rows = []
    for label, runs in report.study.corpora.items():
        for model in runs.best_first():
            for metric in runs.metrics():
                for stage in ("test", "val"):
                    mean, deviation = _mean_and_deviation(runs.values(model, metric, stage))
                    one = report.comparisons[label].get(metric) if stage == "test" else None
                    low, high = one.intervals[model] if one else (None, None)
                    tests: tuple[float | None, ...] = (None,) * 4
                    if one is not None and model in one.differences:
                        tests = (*one.differences[model], one.p_values[model], one.adjusted[model])
                    rows.append(
                        (label, model, metric, stage, len(runs.runs[model]), mean, deviation, low, high, *tests)
                    )
    return csv_text((*_CSV, *_CSV_TESTS), rows)


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def _cell(runs: CorpusRuns, model: str, metric: str) -> str:
    if model not in runs.runs:
        return "-"
    return f"{spread(*_mean_and_deviation(runs.values(model, metric)))} ({len(runs.runs[model])})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value)


def _arrow(runs: CorpusRuns) -> str:
    return "(higher is better)" if runs.higher_is_better else "(lower is better)"


def _higher(runs: CorpusRuns, metric: str) -> bool:
    from mfm.metrics.conventions import definitions_for

    return definitions_for(runs.corpus)[metric].higher_is_better


def _budget(budget: Mapping[str, int | None]) -> str:
    epochs, seconds = budget.get("max_epochs"), budget.get("max_seconds")
    parts = [f"at most {epochs} epochs"] if epochs else []
    parts += [f"at most {seconds} s of training"] if seconds else []
    return f"Budget of a run: {' and '.join(parts) or 'that of its configuration'}."
