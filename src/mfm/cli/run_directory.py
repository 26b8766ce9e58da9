"""Where a run keeps what it makes."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from mfm.callbacks.run_config import CONFIG_FILE
from mfm.errors import ConfigurationError

_CLAIMED = "MFM_RUN_DIR"  # tells processes that Lightning (not torchrun) starts which directory is theirs


def new_run(given: str | None, corpus: str) -> Path:
    """Claim a directory for a new run.

    Args:
        given: The directory asked for, or None for the next free `runs/<corpus>/version_<n>`.
        corpus: Name of the corpus.

    Raises:
        ConfigurationError: The directory asked for holds a run already, or cannot be made.
    """
    rank: int = getattr(rank_zero_only, "rank", 0)
    if rank > 0:  # writes nothing, and is told by Lightning where checkpoints are
        return Path(os.environ.get(_CLAIMED) or given or Path("runs", corpus)).resolve()
    path = None if given is None else Path(given).resolve()
    if path is not None and (path / CONFIG_FILE).exists():
        last = path / "checkpoints" / "last.ckpt"
        remedy = f"resume it with mfm fit --ckpt_path {last}" if last.is_file() else "delete it: it has no checkpoint"
        raise ConfigurationError(f"--run_dir {given} holds a run already: choose another directory, or {remedy}")
    try:
        if path is None:
            path = _next_version(Path("runs").resolve() / corpus)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--run_dir: {error.filename} cannot be made ({error.strerror}); choose another directory"
        ) from error
    os.environ[_CLAIMED] = str(path)
    return path


def _next_version(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        path = parent / f"version_{number}"
        try:
            path.mkdir()
        except FileExistsError:  # taken, perhaps by a run that starts at the same moment
            continue
        return path
    raise AssertionError("unreachable")


def resumed_run(checkpoint: str) -> Path | None:
    """The directory of the run that a checkpoint belongs to, so that a resumed run goes on in it."""
    folder = Path(checkpoint).resolve().parent
    if folder.name == "checkpoints" and (folder.parent / CONFIG_FILE).is_file():
        return folder.parent
    return None


def evaluated_run(checkpoint: str) -> Path:
    """Where results of evaluating a checkpoint go: its run's directory, or the folder it lies in."""
    return resumed_run(checkpoint) or Path(checkpoint).resolve().parent


def clear_leftovers(run_dir: Path) -> None:
    """Remove what a killed process was writing: temporary files that never got their names."""
    for path in run_dir.rglob(".*.part"):
        path.unlink(missing_ok=True)
