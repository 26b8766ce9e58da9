"""How `mfm data inspect` prints its report."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mfm.corpora import CORPORA
from mfm.data.inspect import ColumnReport, CorpusReport, ModalityReport, SplitReport

_BARS = "▁▂▃▄▅▆▇█"
_MANY_COLUMNS = 4


def print_report(report: CorpusReport, console: Console | None = None) -> None:
    """Print a report as tables.

    Args:
        report: What was found.
        console: Where to; standard output by default, at full width when that is not a terminal.
    """
    console = console or Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=160)
    kind = "aligned" if report.aligned else "unaligned"
    console.print(
        f"[bold]{escape(report.path)}[/]: {report.format}, {kind}, {report.bytes / 1e6:,.1f} MB", highlight=False
    )
    console.print(f"fingerprint {report.fingerprint or 'not computed (add --sha256)'}", highlight=False)
    for line in _matches(report):
        console.print(line, highlight=False)
    console.print(_modalities(report))
    console.print(_labels(report))
    for line in [*_warnings(report), *(f"note: {note}" for note in report.notes)]:
        console.print(escape(line), highlight=False)


def _matches(report: CorpusReport) -> list[str]:
    if not report.matches:
        return ["matches no published file that is known here"]
    said = {
        "identical": "[green]SHA-256 as published[/]",
        "differs": "[yellow]SHA-256 is not that of the published file[/]",
        "unknown": "no published SHA-256",
        "not computed": "SHA-256 not compared (add --sha256)",
    }
    lines = []
    for match in report.matches:
        title = CORPORA[match.corpus].title
        if match.same_features:
            lines.append(f"matches {title} {escape(match.file)} in {match.agrees}; {said[match.sha256]}")
        else:
            lines.append(f"has the numbers of samples of {title} with other features")
    return lines


def _modalities(report: CorpusReport) -> Table:
    table = Table(title=None, box=None, padding=(0, 1), header_style="bold")
    for name in ("split", "modality", "N", "T", "D", "type", "length", "padding", "absent", "zero steps", "NaN", "inf"):
        table.add_column(name, justify="left" if name in ("split", "modality", "type", "padding") else "right")
    for split, found in report.splits.items():
        for name, modality in found.modalities.items():
            table.add_row(split, escape(name), *_modality_row(modality))
    return table


def _modality_row(modality: ModalityReport) -> list[str]:
    samples, steps, dim = modality.shape
    lengths = modality.lengths
    return [
        f"{samples:,}",
        str(steps) if steps else "ragged",
        str(dim),
        modality.dtype,
        f"{lengths.minimum} - {lengths.median:g} - {lengths.maximum} ({lengths.mean:.1f})",
        modality.padding,
        _count(modality.absent),
        _count(modality.zero_steps),
        _count(modality.nan),
        _count(modality.infinite),
    ]


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def _labels(report: CorpusReport) -> Table:
    table = Table(title=None, box=None, padding=(0, 1), header_style="bold")
    for name in ("split", "label", "column", "range", "mean", "missing", "distribution"):
        table.add_column(name, justify="right" if name in ("column", "mean", "missing") else "left")
    for split, found in report.splits.items():
        if not found.labels:
            table.add_row(split, "none", "", "", "", "", "")
        for name, columns in found.labels.items():
            shown = columns if len(columns) <= _MANY_COLUMNS or split == next(iter(report.splits)) else []
            for index, column in enumerate(shown):
                table.add_row(split, escape(name), str(index) if len(columns) > 1 else "", *_column_row(column))
            if not shown:
                table.add_row(split, escape(name), f"0-{len(columns) - 1}", "", "", "", "see --json")
    return table


def _column_row(column: ColumnReport) -> list[str]:
    if column.minimum is None or column.maximum is None or column.mean is None:
        return ["", "", _count(column.missing), ""]
    if column.classes is not None:
        shape = ", ".join(f"{name}: {count}" for name, count in column.classes.items())
    else:
        counts = column.histogram or [0]
        top = max(counts) or 1
        shape = "".join(" " if count == 0 else _BARS[(len(_BARS) - 1) * count // top] for count in counts)
    return [f"{column.minimum:g} to {column.maximum:g}", f"{column.mean:.3f}", _count(column.missing), shape]


def _warnings(report: CorpusReport) -> list[str]:
    lines = []
    for name, split in report.splits.items():
        lines.extend(_split_warnings(name, split))
    for pair, count in report.shared_ids.items():
        if count:
            lines.append(f"warning: {pair} share {count:,} sample names")
        elif report.shared_videos[pair]:
            lines.append(f"warning: {pair} share {report.shared_videos[pair]:,} videos: speakers may be in both")
    unnamed = [name for name, split in report.splits.items() if not split.has_ids]
    if unnamed:
        lines.append(f"note: {', '.join(unnamed)} have no sample names; they are made up")
    return lines


def _split_warnings(name: str, split: SplitReport) -> list[str]:
    lines = []
    if split.duplicates:
        example = next(iter(split.duplicated_ids))
        lines.append(f"warning: {name} has {split.duplicates:,} names more than once, for example {example!r}")
    for modality, found in split.modalities.items():
        if found.outside:
            lines.append(
                f"warning: {name}/{modality} has content in {found.outside:,} steps outside of the file's own lengths"
            )
        if split.samples and found.absent == split.samples:
            lines.append(f"warning: {name}/{modality} is all zero")
    return lines
