"""`mfm benchmark report` and `mfm benchmark compare`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mfm.benchmark.document import put, with_table
from mfm.benchmark.tables import markdown
from mfm.errors import ConfigurationError, nearest
from mfm.files import write_text

if TYPE_CHECKING:
    from mfm.benchmark.study import Study

_REPORT = """\
Tables and figures of finished runs: mean and deviation over seeds, 95 % intervals by the bootstrap over test samples
and seeds, paired tests against a chosen row with Holm's correction, ranks over corpora, costs, and what failed.
Results of different data, or of one model with different settings, are not mixed.

Written to OUT: report.md, report.tex, report.html, report.csv, and a figure a corpus.
"""
_REPORT_EXAMPLES = """\
examples:
  mfm benchmark report out
  mfm benchmark report out --reference tfn --metrics mae corr acc2_non0
  mfm benchmark report results/* --document docs/results.md --readme README.md
  mfm benchmark report results/* --document docs/results.md --readme README.md --check
"""
_COMPARE = """\
Published numbers beside ours, each with its source and convention; those on other data than ours are marked, and so
are those that were written down from memory.
"""


def add_commands(commands: Any) -> None:
    """Add `report` and `compare` to the parser of `mfm benchmark`."""
    raw = argparse.RawDescriptionHelpFormatter
    report = commands.add_parser(
        "report", help="tables, intervals, tests and figures", description=_REPORT, epilog=_REPORT_EXAMPLES,
        formatter_class=raw,
    )  # fmt: skip
    report.set_defaults(command=_report)
    report.add_argument("folders", nargs="+", metavar="DIR", help="folder of a suite's results")
    report.add_argument("--reference", metavar="MODEL", help="row to test the others against (default: the suite's)")
    report.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="metrics with intervals and tests")
    report.add_argument(
        "--resamples", type=int, default=1000, metavar="B", help="draws of the bootstrap (default: 1000)"
    )
    report.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    report.add_argument("--output", metavar="OUT", help="folder for the files (default: DIR/report of the first DIR)")
    report.add_argument(
        "--document", metavar="FILE", help="write the report as this Markdown file, and figures beside it"
    )
    report.add_argument("--readme", metavar="FILE", help="put the summary between the markers in this file")
    report.add_argument("--title", default="Results", help="title of the document (default: Results)")
    report.add_argument("--check", action="store_true", help="write nothing; fail where --document or --readme differ")
    compare = commands.add_parser(
        "compare", help="published numbers beside ours", description=_COMPARE, formatter_class=raw
    )
    compare.set_defaults(command=_compare)
    compare.add_argument("folders", nargs="+", metavar="DIR", help="folder of a suite's results")
    compare.add_argument("--output", metavar="FILE", help="write the tables as Markdown to this file as well")


def _report(options: argparse.Namespace) -> int:
    from mfm.benchmark.report import csv_of, document, html_text, latex_text, make_report, summary_table
    from mfm.benchmark.study import read_study

    if options.resamples < 20:
        raise ConfigurationError(f"--resamples is {options.resamples}; give at least 20")
    if options.check and not (options.document or options.readme):
        raise ConfigurationError("--check compares --document or --readme; name one")
    study = read_study(options.folders, options.reference)
    _refuse_unknown(study, options.metrics)
    report = make_report(
        study, options.metrics, command=_command(options), resamples=options.resamples, seed=options.seed
    )
    if options.document:
        figures = Path(options.document).parent / "figures"
        put(Path(options.document), document(report, options.title, "figures"), check=options.check)
        if not options.check:
            _figures(study, figures)
    if options.readme:
        table = markdown(summary_table(study))
        put(Path(options.readme), with_table(_text(options.readme), table, options.readme), check=options.check)
    if options.document or options.readme:
        return 0
    output = Path(options.output or Path(options.folders[0]) / "report")
    text = document(report, options.title, ".")
    for name, content in (
        ("report.md", text),
        ("report.tex", latex_text(report)),
        ("report.html", html_text(report)),
        ("report.csv", csv_of(report)),
    ):
        write_text(output / name, content)
    _figures(study, output)
    sys.stdout.write(f"{text}\n{output}\n")
    return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"--readme {path} cannot be read ({error}); name a text that has the markers"
        ) from error


def _refuse_unknown(study: Study, metrics: list[str]) -> None:
    known = {name for runs in study.corpora.values() for name in runs.metrics()}
    for name in metrics:
        if name not in known:
            raise ConfigurationError(f"--metrics {name}: {nearest(name, known)}")


def _figures(study: Study, folder: Path) -> None:
    from mfm.analysis.figures import save_figure
    from mfm.benchmark.figures import corpus_figure

    for label, runs in study.corpora.items():
        save_figure(corpus_figure(study, runs), folder / f"benchmark_{label}.png")


def _command(options: argparse.Namespace) -> str:
    """The command without `--check` and `--output`, so that checking makes the same text."""
    words = ["mfm", "benchmark", "report", *options.folders]
    for name in ("reference", "document", "readme"):
        value = getattr(options, name)
        words += [f"--{name}", value] if value else []
    words += ["--metrics", *options.metrics] if options.metrics else []
    for name, default in (("resamples", 1000), ("seed", 0), ("title", "Results")):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value != default else []
    return shlex.join(words)


def _compare(options: argparse.Namespace) -> int:
    from mfm.benchmark.comparison import comparison_tables, read_published
    from mfm.benchmark.study import read_study

    study = read_study(options.folders)
    parts = [f"## {table.title}\n\n{markdown(table)}" for table in comparison_tables(study, read_published())]
    command = shlex.join(
        ["mfm", "benchmark", "compare", *options.folders, *(["--output", options.output] if options.output else [])]
    )
    text = f"# Published numbers beside ours\n\n`{command}`\n\n" + "\n".join(parts)
    sys.stdout.write(text)
    if options.output:
        write_text(Path(options.output), text)
    return 0
