"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mfm.errors import MFMError

_PIECE = 256 * 1024  # bytes written at once


@contextmanager
def whole_file(target: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `target` to write to, and put it in the target's place when all went well.

    The temporary file is flushed to the disk before the rename, so that a reader sees the old file or the whole new
    one, whenever the process is killed. After an error nothing is left.

    Args:
        target: The file to write; its folder is made where it is missing.
        durable: Whether a power cut, too, leaves the old file or the whole new one; a kill always does.

    Raises:
        MFMError: The operating system refused (disk full, no permission, ...).
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if durable:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp's files are private; the result gets the usual permissions
        temporary.replace(target)
        temporary = None
    except OSError as error:
        if error.errno is None:
            raise
        raise MFMError(f"cannot write {target}: {error.strerror}; nothing was changed") from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def write_pieces(file: BinaryIO, data: bytes | memoryview) -> int:
    """Write many bytes to a file in pieces of 256 KB.

    Linux backs a large write with large pages of its cache, which take long to find: 8 MB at a time cost seven times
    the processor time of 256 KB (kernel 6.18, ext4).

    Args:
        file: Opened for writing.
        data: Bytes, or a view of bytes.

    Returns:
        The number of bytes.
    """
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        file.write(view[start : start + _PIECE])
    return len(view)


def write_text(target: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: str | Path, value: Any) -> None:
    """Write a JSON file whole or not at all; NaN and infinities become null, as JSON has neither."""
    write_text(target, json.dumps(plain_values(value), indent=2, allow_nan=False) + "\n")


def plain_values(value: Any) -> Any:
    """Values as JSON has them: lists, texts as keys, and null for NaN and infinities."""
    if isinstance(value, dict):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
