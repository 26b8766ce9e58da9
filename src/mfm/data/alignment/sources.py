"""Which files are aligned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sources:
    """Files to align.

    Attributes:
        pivot: Timestamped words.
        features: Modality -> file of frames; at least one.
        labels: Labelled segments.
        folds: JSON of splits; None for a split drawn by `seed`.
        fractions: Shares of train, valid and test of that draw.
        seed: Of that draw.
        label_columns: Label array of the store -> columns of the label file; None for one array `labels` with all.
    """

    pivot: Path
    features: Mapping[str, Path]
    labels: Path
    folds: Path | None = None
    fractions: Sequence[float] = (0.7, 0.1, 0.2)
    seed: int = 0
    label_columns: Mapping[str, Sequence[int]] | None = None

    @property
    def files(self) -> dict[str, Path]:
        """All computational sequences by their part."""
        return {"pivot": self.pivot, "labels": self.labels, **{f"feature {k}": v for k, v in self.features.items()}}

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of every file that is read, by its part."""
        return {part: _sha256(path) for part, path in {**self.files, **self._folds}.items()}

    def states(self) -> dict[str, list[Any]]:
        """What tells quickly whether a file is still the same: where it is, its size and when it was changed."""
        return {part: _state(path) for part, path in {**self.files, **self._folds}.items()}

    @property
    def _folds(self) -> dict[str, Path]:
        return {} if self.folds is None else {"folds": self.folds}


def _state(path: Path) -> list[Any]:
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
