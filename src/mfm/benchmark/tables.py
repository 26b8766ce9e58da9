"""A table as Markdown, LaTeX, HTML and CSV."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", **{sign: "\\" + sign for sign in "&%$#_{}"}}
_LATEX |= {"<": "$<$", ">": "$>$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


class Table(NamedTuple):
    """Texts in rows and columns, the first column being names.

    Attributes:
        title: What it shows.
        columns: Heads of the columns.
        rows: Rows of as many texts.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (table.columns, *table.rows)]
    rule = ["---", *["---:"] * (len(table.columns) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:])) + "\n"


def latex(table: Table) -> str:
    """A `tabular` with booktabs' rules, in a `table` with caption."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(sign, sign) for sign in cell) for cell in cells) + r" \\"

    head = [r"\begin{table}", r"\centering", rf"\caption{{{line([table.title])[:-3]}}}"]
    head += [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule", line(table.columns), r"\midrule"]
    return "\n".join([*head, *map(line, table.rows), r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def html_table(table: Table) -> str:
    """A `table` element."""

    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    body = [line(row, "td") for row in table.rows]
    head = [f"<caption>{html.escape(table.title)}</caption>", f"<thead>{line(table.columns, 'th')}</thead>", "<tbody>"]
    return "\n".join(["<table>", *head, *body, "</tbody>", "</table>"]) + "\n"


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated values; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()


def number(value: float, digits: int = 3) -> str:
    """A number with so many decimals; `-` where it is undefined."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def spread(mean: float, deviation: float) -> str:
    """Mean and sample deviation; the deviation of a single value is left out."""
    return f"{number(mean)} ± {number(deviation)}" if math.isfinite(deviation) else number(mean)


def bounds(low: float, high: float) -> str:
    """An interval."""
    return f"[{number(low)}, {number(high)}]"
