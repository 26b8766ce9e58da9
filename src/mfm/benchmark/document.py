"""Documents whose numbers are never typed: written by the command, and checked against it."""

from __future__ import annotations

from pathlib import Path

from mfm.errors import ConfigurationError, MFMError
from mfm.files import write_text

BEGIN, END = "<!-- mfm benchmark report: begin -->", "<!-- mfm benchmark report: end -->"


def with_table(text: str, table: str, where: str) -> str:
    """A text with what stands between its markers replaced.

    Raises:
        ConfigurationError: The text has not exactly one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigurationError(f"{where} has no place for the table: put a line {BEGIN} and a line {END} there")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def put(path: Path, text: str, *, check: bool) -> None:
    """Write a document, or compare it with what it should be.

    Raises:
        MFMError: It differs, and `check` is on.
    """
    if not check:
        write_text(path, text)
        return
    found = path.read_text(encoding="utf-8") if path.is_file() else None
    if found == text:
        return
    number = next(
        (
            line
            for line, (ours, theirs) in enumerate(
                zip(text.splitlines(), (found or "").splitlines(), strict=False), start=1
            )
            if ours != theirs
        ),
        min(len(text.splitlines()), len((found or "").splitlines())) + 1,
    )
    raise MFMError(f"{path} is not what the results say (line {number}); run the command without --check and commit it")
