"""What the commands that examine factors need of a module."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from mfm.data.batch import AffectBatch
from mfm.models.factor_model import FactorModel
from mfm.models.mfm import Codes
from mfm.models.normalization import Normalizer
from mfm.models.surrogate import Surrogate


@runtime_checkable
class FactorModule(Protocol):
    """A module around a model of factors; `mfm interpret`, `generate`, `reconstruct` and `robustness` work on any.

    `model.layout` says which factors there are. Batches are in the file's units, and so is what
    `normalizer.inverse` makes of what `model.decode` returns.
    """

    @property
    def model(self) -> FactorModel:
        """The network, on standardised features."""
        ...

    @property
    def normalizer(self) -> Normalizer:
        """From the file's units to standardised features, and back."""
        ...

    @property
    def surrogate(self) -> Surrogate | None:
        """What infers the codes of missing modalities, if anything does."""
        ...

    def infer_codes(self, batch: AffectBatch, *, surrogate: bool = True) -> Codes:
        """The codes of a batch; those of missing modalities are the model's own guess, or its surrogate's.

        Args:
            batch: The batch.
            surrogate: Whether what stands in for missing modalities, if anything, is asked.
        """
        ...

    def predict_label(self, batch: AffectBatch, *, surrogate: bool = True) -> Tensor:
        """The head's raw output (B, output_dim) from these codes, without decoding anything."""
        ...
