"""Checking a store: layout, values and the recorded fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mfm.data.records import CorpusData, SplitData
from mfm.data.store_content import ContentHash, split_order
from mfm.data.store_read import StoredSequences, check_schema, open_h5, read_store
from mfm.errors import DataFormatError

_BLOCK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class StoreReport:
    """What `verify_store` found.

    Attributes:
        path: The store.
        schema_version: Version of its layout.
        recorded: Fingerprint written in the file.
        computed: Fingerprint of what it holds now.
        samples: Split -> number of samples.
        steps: `split/modality` -> number of real steps.
        nonfinite: `split/modality` -> number of NaN and infinite values.
        problems: One sentence for each fault; empty when the store is sound.
    """

    path: str
    schema_version: int
    recorded: str
    computed: str
    samples: dict[str, int]
    steps: dict[str, int]
    nonfinite: dict[str, int]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def verify_store(path: str | Path) -> StoreReport:
    """Read a whole store, check its layout and recompute its fingerprint.

    Args:
        path: A file that `write_store` wrote.

    Returns:
        What was found; faults of the content are in `problems`.

    Raises:
        CorpusNotFoundError: No such file.
        DataFormatError: Not a store, truncated, or written by a newer version.
    """
    where = Path(path)
    with open_h5(where) as file:
        check_schema(file, where)
        version, recorded = int(file.attrs["schema_version"]), str(file.attrs["fingerprint"])
    data = read_store(where)
    content = ContentHash(data.aligned)
    problems: list[str] = []
    steps: dict[str, int] = {}
    nonfinite: dict[str, int] = {}
    for name in split_order(data.splits):
        split = data.splits[name]
        content.split(name, split)
        problems += _split_problems(name, split, data)
        for modality in sorted(split.sequences):
            key = f"{name}/{modality}"
            sequences = split.sequences[modality]
            assert isinstance(sequences, StoredSequences)
            content.sequences(modality, sequences)
            try:
                steps[key], nonfinite[key] = hash_values(content, sequences)
            except DataFormatError as error:
                problems.append(str(error))
    computed = content.hexdigest()
    if computed != recorded and not problems:
        problems.append(
            f"{where}: the content's fingerprint is {computed[:12]}..., {recorded[:12]}... was recorded: "
            "values changed after writing; convert the source again"
        )
    samples = {name: len(data.splits[name]) for name in split_order(data.splits)}
    return StoreReport(str(where), version, recorded, computed, samples, steps, nonfinite, tuple(problems))


def hash_values(content: ContentHash, sequences: StoredSequences) -> tuple[int, int]:
    """Feed all real steps to the fingerprint; returns their number and that of non-finite values."""
    total = sequences.total
    rows = max(1, _BLOCK_BYTES // (4 * max(sequences.dim, 1)))
    bad = 0
    for start in range(0, total, rows):
        block = sequences.rows(start, min(start + rows, total))
        content.values(block)
        bad += int(block.size - np.count_nonzero(np.isfinite(block)))
    if sequences.marks_observed:
        for start in range(0, total, _BLOCK_BYTES):
            content.observed(sequences.marks(start, min(start + _BLOCK_BYTES, total)))
    return total, bad


def _split_problems(name: str, split: SplitData, data: CorpusData) -> list[str]:
    """Faults of the layout of one split, one sentence each."""
    found = []
    where = f"{data.path}, split {name!r}"
    for label, values in split.labels.items():
        if values.ndim != 2 or len(values) != len(split):
            found.append(f"{where}: label {label!r} has shape {values.shape} for {len(split)} samples")
    if split.raw_text is not None and len(split.raw_text) != len(split):
        found.append(f"{where}: {len(split.raw_text)} transcripts for {len(split)} samples")
    if split.words is not None and len(split.words.offsets) != len(split) + 1:
        found.append(f"{where}: words of {len(split.words.offsets) - 1} samples for {len(split)} samples")
    lengths = []
    for modality, sequences in split.sequences.items():
        assert isinstance(sequences, StoredSequences)
        if len(sequences) != len(split) or len(sequences.starts) != len(split):
            found.append(f"{where}: {modality!r} has {len(sequences)} sequences for {len(split)} samples")
            continue
        if (sequences.lengths < 0).any() or (sequences.starts < 0).any() or sequences.offset_fault():
            found.append(f"{where}: offsets or starts of {modality!r} are not monotone or do not fit the values")
        if sequences.file_steps and (sequences.starts + sequences.lengths > sequences.file_steps).any():
            found.append(
                f"{where}: {modality!r} has samples longer than the {sequences.file_steps} steps of the source"
            )
        lengths.append(sequences.lengths)
    if data.aligned and len(lengths) > 1:
        stacked = np.stack(lengths)
        if ((stacked != 0) & (stacked != stacked.max(axis=0))).any():
            found.append(f"{where}: marked as aligned, but modalities of a sample differ in length")
    return found
