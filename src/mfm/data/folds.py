"""Other splits of the same samples: no test split, or K folds over the videos of training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mfm.data.inspect import video_of
from mfm.data.records import BoolArray, CorpusData, FloatArray, IntArray, Sequences, SplitData
from mfm.errors import ConfigurationError

_SEEN = ("train", "valid")


class ChosenSequences(Sequences):
    """Chosen samples of one modality out of several splits; nothing is read before it is asked for.

    Args:
        parts: The modality's sequences in each split.
        rows: (n,) chosen samples, counted through all parts one after the other.
    """

    def __init__(self, parts: Sequence[Sequences], rows: IntArray) -> None:
        self._parts, self._rows = list(parts), rows
        self._ends = np.cumsum([len(part) for part in parts])
        self.dim = parts[0].dim
        self.lengths = np.concatenate([part.lengths for part in parts])[rows]
        self.starts = np.concatenate([part.starts for part in parts])[rows]
        stored = {part.file_steps for part in parts}
        self.file_steps = stored.pop() if len(stored) == 1 else 0
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.marks_observed = any(part.marks_observed for part in parts)

    def _locate(self, index: int) -> tuple[Sequences, int]:
        row = int(self._rows[index])
        part = int(np.searchsorted(self._ends, row, side="right"))
        return self._parts[part], row - (int(self._ends[part - 1]) if part else 0)

    def steps(self, index: int) -> FloatArray:
        """See `Sequences.steps`."""
        part, row = self._locate(index)
        return part.steps(row)

    def original(self, index: int) -> FloatArray:
        """See `Sequences.original`."""
        part, row = self._locate(index)
        return part.original(row)

    def observed(self, index: int) -> BoolArray:
        """See `Sequences.observed`."""
        part, row = self._locate(index)
        return part.observed(row)


def without_test(data: CorpusData) -> CorpusData:
    """The same corpus with its training and validation splits only, so that nothing can look at another."""
    return replace(data, splits={name: split for name, split in data.splits.items() if name in _SEEN})


def video_folds(data: CorpusData, folds: int, seed: int) -> list[CorpusData]:
    """Split training and validation samples anew into K folds, every video in one fold.

    Videos are shuffled and dealt, those with most samples first, to the fold that has fewest samples. A file without
    names has no videos: every sample is one.

    Args:
        data: The corpus; its test split is left out.
        folds: K, at least 2.
        seed: Of the shuffle.

    Returns:
        K corpora; the k-th validates on fold k and trains on the others, samples in the order of the file. Words of a
        step are left out.

    Raises:
        ConfigurationError: Fewer videos than folds.
    """
    parts = [data.splits[name] for name in _SEEN if name in data.splits]
    videos: dict[str, list[int]] = {}
    for row, name in enumerate(name for part in parts for name in part.ids):
        videos.setdefault(video_of(name), []).append(row)
    if folds < 2 or len(videos) < folds:
        raise ConfigurationError(
            f"{folds} folds cannot be made of the {len(videos)} videos in training and validation; "
            f"choose 2 to {len(videos)}"
        )
    names = list(videos)
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    dealt: list[list[int]] = [[] for _ in range(folds)]
    for name in sorted(shuffled, key=lambda name: -len(videos[name])):
        min(dealt, key=len).extend(videos[name])
    everything = np.arange(sum(len(part) for part in parts))
    return [
        replace(
            data,
            splits={
                "train": _chosen(parts, np.setdiff1d(everything, held_out)),
                "valid": _chosen(parts, np.sort(np.asarray(held_out, dtype=np.int64))),
            },
        )
        for held_out in dealt
    ]


def _chosen(parts: Sequence[SplitData], rows: NDArray[np.int64]) -> SplitData:
    ids = [name for part in parts for name in part.ids]
    texts = [text for part in parts for text in part.raw_text or ()]
    modalities = [name for name in parts[0].sequences if all(name in part.sequences for part in parts)]
    labels = [name for name in parts[0].labels if all(name in part.labels for part in parts)]
    return SplitData(
        ids=tuple(ids[row] for row in rows),
        sequences={name: ChosenSequences([part.sequences[name] for part in parts], rows) for name in modalities},
        labels={name: np.concatenate([part.labels[name] for part in parts])[rows] for name in labels},
        raw_text=tuple(texts[row] for row in rows) if len(texts) == len(ids) else None,
        has_ids=all(part.has_ids for part in parts),
    )
