"""What a reader hands over: named splits of variable-length sequences with labels.

Everything a published file holds is turned into these records, whatever its format; the store, the
dataset and the inspection report know nothing else. Needs numpy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SPLITS = ("train", "valid", "test")


class Sequences(ABC):
    """N sequences of one modality, read one at a time.

    Attributes:
        dim: Features per step, D.
        lengths: (N,) int64, real steps of each sample; 0 where the modality is absent.
        starts: (N,) int64, position of the first real step in the file (pre-padding before it).
        file_steps: Steps T that the file stores for each sample, padding included; 0 when the file is ragged.
        dtype: Data type in the file.
        marks_observed: Whether the file says which steps were observed; where it does not, all were.
    """

    dim: int
    lengths: IntArray
    starts: IntArray
    file_steps: int
    dtype: np.dtype[np.generic]
    marks_observed: bool = False

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def steps(self, index: int) -> FloatArray:
        """Real steps of one sample in order: (lengths[index], dim) float32; NaN and infinities as in the file."""

    @abstractmethod
    def original(self, index: int) -> FloatArray:
        """The sample as the file stores it, padding in its place: (file_steps, dim) float32."""

    def observed(self, index: int) -> BoolArray:
        """Real steps at which something was observed, (lengths[index],); the others are zero vectors."""
        return np.ones(int(self.lengths[index]), dtype=np.bool_)


class TimedWords(ABC):
    """The words of N samples with their times, one word a step; read when asked for.

    Attributes:
        offsets: (N + 1,) int64; sample i has the words offsets[i] to offsets[i + 1].
    """

    offsets: IntArray

    @abstractmethod
    def rows(self, start: int, stop: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Words `start` to `stop` of all samples together, and their (n, 2) start and end in seconds of the video."""

    def of(self, index: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Words of one sample, and their times."""
        return self.rows(int(self.offsets[index]), int(self.offsets[index + 1]))


@dataclass(frozen=True)
class SplitData:
    """One split of a file.

    Attributes:
        ids: N sample names, as strings; made up as `<split>_<index>` where the file has none.
        sequences: Modality name -> its N sequences.
        labels: Label array name in the file -> (N, K) float64; NaN where a label is missing.
            IEMOCAP's (N, 4, 2) one-hot pairs arrive here as (N, 4) classes.
        raw_text: Transcript of each sample where the file has it.
        has_ids: False where `ids` were made up.
        words: Word and times of each step, where steps are words and the file has them.
    """

    ids: tuple[str, ...]
    sequences: Mapping[str, Sequences]
    labels: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    raw_text: tuple[str, ...] | None = None
    has_ids: bool = True
    words: TimedWords | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class CorpusData:
    """A whole file.

    Attributes:
        path: File or folder it came from.
        format: `mmsa`, `mult`, `mfn` or `store`.
        splits: Split name (`train`, `valid`, `test`) -> its data.
        aligned: True when step t of all modalities is the same moment (one T, one length per sample).
        notes: What the reader decided and a user may want to know (padding side, given lengths, ...).
    """

    path: str
    format: str
    splits: Mapping[str, SplitData]
    aligned: bool
    notes: tuple[str, ...] = ()
