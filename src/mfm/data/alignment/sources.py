"""Which files are aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


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
