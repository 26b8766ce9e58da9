"""The default logger: one CSV row a step in the run directory, which survives a resumed run."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from mfm.files import write_text


class RunLogger(Logger):
    """Write `metrics.csv` into the run directory: a row per optimiser step at which something was logged.

    The file is read again when a run goes on, so that its curves are whole; rows logged again replace their
    predecessors. (Lightning's CSVLogger deletes the file of a directory that it finds.)

    Args:
        run_dir: The run's directory.
    """

    FILE = "metrics.csv"

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self._run_dir = Path(run_dir)
        self._rows: dict[int, dict[str, float]] = {}
        if self.path.is_file():
            for row in csv.DictReader(io.StringIO(self.path.read_text(encoding="utf-8"))):
                self._rows[int(row["step"])] = {
                    key: float(value) for key, value in row.items() if value and key != "step"
                }

    @property
    def path(self) -> Path:
        """Where the rows are written."""
        return self._run_dir / self.FILE

    @property
    def name(self) -> str:
        """Name of the run directory's parent."""
        return self._run_dir.parent.name

    @property
    def version(self) -> str:
        """Name of the run directory."""
        return self._run_dir.name

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._run_dir)

    @property
    def log_dir(self) -> str:
        """The run directory."""
        return str(self._run_dir)

    @property
    def rows(self) -> list[dict[str, float]]:
        """What was logged, in order of steps; each with `step`."""
        return [{"step": float(step), **self._rows[step]} for step in sorted(self._rows)]

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Merge values into the step's row."""
        row = self._rows.setdefault(step if step is not None else len(self._rows), {})
        row.update({key: float(value) for key, value in metrics.items()})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run directory has `config.yaml`."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file whole."""
        rows = self.rows
        if not rows:
            return
        keys = ["step", *sorted(set().union(*rows) - {"step"})]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=keys, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "step": int(row["step"])})
        write_text(self.path, text.getvalue())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()
