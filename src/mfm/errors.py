"""The few exceptions that users meet.

Each message is one sentence that says what was found, where, and what to do about it. The command
line prints the message and exits with `exit_status`; it never shows a traceback for them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MFMError(Exception):
    """A mistake that the user can mend; everything `mfm` raises on purpose derives from it."""

    exit_status = 1


class DataFormatError(MFMError):
    """A file is not what it claims to be: wrong type, truncated, corrupt, missing or misshapen parts."""


class UnsafePickleError(DataFormatError):
    """A pickle asks for something outside the allow-list; nothing of it was called."""


class CorpusNotFoundError(MFMError):
    """The file of a corpus is not where it was looked for; the message says how to get it."""

    exit_status = 2


class ConfigurationError(MFMError):
    """An option has a value that cannot be used."""

    exit_status = 2


class MissingDependencyError(MFMError):
    """An optional package is needed and not installed; the message has the pip line."""


_CLOSE, _LISTED = 5, 40  # a sentence with a hundred names is not read


def nearest(name: str, known: Iterable[str]) -> str:
    """Describe the known names for a message about an unknown one: the nearest, and all where they are not too many.

    >>> nearest("txt", ["audio", "text"])
    "did you mean 'text'? Known: audio, text"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=_CLOSE, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) <= _LISTED:
        return f"{hint}Known: {', '.join(names) or 'none'}"
    shown = close if len(close) > 1 else names[:_CLOSE]
    return f"{hint}{len(names)} are known, among them: {', '.join(shown)}"
