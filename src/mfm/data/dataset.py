"""A split of a corpus as a torch dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from mfm.corpora import Corpus
from mfm.data.collate import Sample
from mfm.data.labels import Targets, decode_labels, empty_targets
from mfm.data.records import FloatArray, SplitData
from mfm.data.statistics import FeatureStatistics, feature_statistics
from mfm.errors import ConfigurationError, DataFormatError, nearest

Padding = Literal["masked", "original"]
_IN_MEMORY_BYTES = 256 * 1024 * 1024


class AffectDataset(Dataset[Sample]):
    """Samples of one split, read from memory when they fit, from the file otherwise.

    Picklable, and safe in workers started by fork or spawn. Use with `mfm.data.collate.collate`.

    Args:
        split: The split.
        corpus: Which labels to take, and how.
        modalities: Modalities in the batch; all of the split by default.
        max_lengths: Longest sequence, for all modalities or by modality; the first steps are kept.
        absent: Modalities that are taken away: never read, length 0, `present` False. They need not be in
            the split if `dims` knows them.
        padding: `masked`: real steps only. `original`: all T steps as the file stores them, padding in its place
            and counted as real (the treatment of the paper's authors).
        labels: False: no labels are looked for; all targets are masked.
        required: Refuse a split without labels; otherwise missing ones are masked.
        target: Name of the label array in the file; by the corpus' record by default.
        in_memory: Keep all steps in memory; by default when they need less than 256 MB.
        indices: Samples of the split to use, in this order; all by default.
        dims: Feature dimension of modalities that the split lacks.
        where: File and split, for messages.

    Attributes:
        modalities: Names, sorted.
        dims: Modality -> D.
        ids: N names.
        lengths: Modality -> (N,) int64 steps that a sample has in the batch.

    Raises:
        ConfigurationError: An unknown modality, a length below 1, or `original` together with `max_lengths`.
        DataFormatError: Labels that do not fit the corpus, or a ragged file with `original`.
    """

    def __init__(
        self,
        split: SplitData,
        corpus: Corpus,
        *,
        modalities: Sequence[str] | None = None,
        max_lengths: int | Mapping[str, int] | None = None,
        absent: Sequence[str] = (),
        padding: Padding = "masked",
        labels: bool = True,
        required: bool = True,
        target: str | None = None,
        in_memory: bool | None = None,
        indices: Sequence[int] | NDArray[np.int64] | None = None,
        dims: Mapping[str, int] | None = None,
        where: str = "the file",
    ) -> None:
        self.split, self.corpus, self.padding = split, corpus, padding
        self.modalities = tuple(sorted(split.sequences if modalities is None else modalities))
        self.absent = frozenset(absent)
        self._indices = np.arange(len(split)) if indices is None else np.asarray(indices, dtype=np.int64)
        self.dims = {name: self._dim(name, dims or {}, where) for name in self.modalities}
        self._limits = resolve_max_lengths(max_lengths, self.modalities)
        self._check_padding(where)
        self.ids = [split.ids[index] for index in self._indices]
        self.targets = (
            decode_labels(split, corpus, target, required=required, where=where)
            if labels
            else empty_targets(len(split), corpus)
        )
        self.lengths = {name: self._lengths(name) for name in self.modalities}
        sizes = {name: int(self.lengths[name].sum()) * self.dims[name] * 4 for name in self.modalities}
        self._cache: dict[str, FloatArray] = {}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        if in_memory or (in_memory is None and sum(sizes.values()) < _IN_MEMORY_BYTES):
            self._fill_cache()

    @property
    def used_targets(self) -> Targets:
        """Labels and masks of the samples of this dataset, in its order."""
        return Targets(self.targets.values[self._indices], self.targets.mask[self._indices])

    def _dim(self, name: str, dims: Mapping[str, int], where: str) -> int:
        if name in self.split.sequences:
            return self.split.sequences[name].dim
        if name in self.absent and name in dims:
            return dims[name]
        raise ConfigurationError(f"{where} has no modality {name!r}: {nearest(name, self.split.sequences)}")

    def _check_padding(self, where: str) -> None:
        if self.padding not in ("masked", "original"):
            raise ConfigurationError(f"unknown padding {self.padding!r}: {nearest(self.padding, get_args(Padding))}")
        if self.padding == "masked":
            return
        if self._limits:
            raise ConfigurationError("padding 'original' keeps every step of the file; drop max_lengths")
        for name in self.modalities:
            if name not in self.absent and not self.split.sequences[name].file_steps:
                raise DataFormatError(f"{where} stores no padding for {name!r} (ragged); use padding 'masked'")

    def _lengths(self, name: str) -> NDArray[np.int64]:
        if name in self.absent:
            return np.zeros(len(self._indices), dtype=np.int64)
        sequences = self.split.sequences[name]
        if self.padding == "original":
            return np.full(len(self._indices), sequences.file_steps, dtype=np.int64)
        lengths = np.asarray(sequences.lengths)[self._indices]
        return np.minimum(lengths, self._limits[name]) if name in self._limits else lengths

    def _fill_cache(self) -> None:
        for name in self.modalities:
            if name in self.absent:
                continue
            offsets = np.concatenate([[0], np.cumsum(self.lengths[name])])
            values = np.empty((int(offsets[-1]), self.dims[name]), dtype=np.float32)
            for position in range(len(self)):
                values[offsets[position] : offsets[position + 1]] = self._read(name, position)
            self._cache[name], self._offsets[name] = values, offsets

    def _read(self, name: str, position: int) -> FloatArray:
        """Steps of one sample, from the cache if it is filled: (lengths[name][position], D)."""
        length = int(self.lengths[name][position])
        if not length:
            return np.zeros((0, self.dims[name]), dtype=np.float32)
        if name in self._cache:
            start = self._offsets[name][position]
            return self._cache[name][start : start + length]
        index = int(self._indices[position])
        sequences = self.split.sequences[name]
        return sequences.original(index) if self.padding == "original" else sequences.steps(index)[:length]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Sample:
        index = int(self._indices[position])
        features = {name: self._read(name, position) for name in self.modalities}
        return Sample(
            features=features,
            present={name: len(steps) > 0 for name, steps in features.items()},
            target=np.asarray(self.targets.values[index]),
            target_mask=np.asarray(self.targets.mask[index]),
            id=self.ids[position],
        )

    def __getitems__(self, positions: Sequence[int]) -> list[Sample]:
        """Samples of one batch, read in the order of the file and returned in the order asked for."""
        found = {position: self[position] for position in sorted(set(positions))}
        return [found[position] for position in positions]

    @property
    def costs(self) -> NDArray[np.int64]:
        """(N,) steps of all modalities together: what bucketing sorts by."""
        costs = np.zeros(len(self), dtype=np.int64)
        for lengths in self.lengths.values():
            costs += lengths
        return costs

    def statistics(self) -> dict[str, FeatureStatistics]:
        """Mean and deviation of every feature over the real steps of these samples."""
        return feature_statistics(
            self.split,
            [name for name in self.modalities if name not in self.absent],
            indices=self._indices,
            max_lengths=self._limits,
        )


class AffectConcat(Dataset[Sample]):
    """Several datasets one after the other; unlike torch's, it reads whole batches.

    Args:
        parts: Datasets with the same modalities.
    """

    def __init__(self, parts: Sequence[AffectDataset]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> Sample:
        part = int(np.searchsorted(self._ends, position, side="right"))
        return self.parts[part][position - (int(self._ends[part - 1]) if part else 0)]

    def __getitems__(self, positions: Sequence[int]) -> list[Sample]:
        """Samples of one batch."""
        return [self[position] for position in positions]

    @property
    def ids(self) -> list[str]:
        """Names of all samples in order."""
        return [name for part in self.parts for name in part.ids]

    @property
    def costs(self) -> NDArray[np.int64]:
        """See `AffectDataset.costs`."""
        return np.concatenate([part.costs for part in self.parts])


def resolve_max_lengths(max_lengths: int | Mapping[str, int] | None, modalities: Sequence[str]) -> dict[str, int]:
    """Spell `max_lengths` out by modality.

    Raises:
        ConfigurationError: An unknown modality, or a length below 1.
    """
    if max_lengths is None:
        return {}
    limits: Mapping[str, Any] = dict.fromkeys(modalities, max_lengths) if isinstance(max_lengths, int) else max_lengths
    for name, limit in limits.items():
        if name not in modalities:
            _unknown("max_lengths", name, modalities)
        if limit < 1:
            raise ConfigurationError(f"max_lengths of {name!r} is {limit}; it must be at least 1")
    return dict(limits)


def _unknown(option: str, name: str, modalities: Sequence[str]) -> NoReturn:
    raise ConfigurationError(f"{option} names an unknown modality {name!r}: {nearest(name, modalities)}")
