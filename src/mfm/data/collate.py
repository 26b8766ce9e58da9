"""From samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mfm.data.batch import AffectBatch
from mfm.data.records import FloatArray


class Sample(NamedTuple):
    """One sample.

    Attributes:
        features: Modality -> (L_m, D_m) float32; L_m = 0 where absent.
        present: Modality -> whether it was observed.
        target: (K,) float32, or () int64 for multi-class.
        target_mask: Same shape, bool.
        id: Name.
    """

    features: Mapping[str, FloatArray]
    present: Mapping[str, bool]
    target: NDArray[Any]
    target_mask: NDArray[np.bool_]
    id: str


def collate(samples: Sequence[Sample]) -> AffectBatch:
    """Pad samples to the longest of the batch, at least one step.

    Args:
        samples: B samples with the same modalities.

    Returns:
        The batch; padded steps and absent modalities hold zeros.
    """
    features, lengths, present = {}, {}, {}
    for name in sorted(samples[0].features):
        sequences = [sample.features[name] for sample in samples]
        sizes = [len(sequence) for sequence in sequences]
        padded = np.zeros((len(samples), max(1, *sizes), sequences[0].shape[1]), dtype=np.float32)
        for row, sequence in zip(padded, sequences, strict=True):
            row[: len(sequence)] = sequence
        features[name] = torch.from_numpy(padded)
        lengths[name] = torch.tensor(sizes, dtype=torch.int64)
        present[name] = torch.tensor([sample.present[name] for sample in samples], dtype=torch.bool)
    return AffectBatch(
        features=features,
        lengths=lengths,
        present=present,
        target=torch.from_numpy(np.stack([sample.target for sample in samples])),
        target_mask=torch.from_numpy(np.stack([sample.target_mask for sample in samples])),
        ids=[sample.id for sample in samples],
    )
