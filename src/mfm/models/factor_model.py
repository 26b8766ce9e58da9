"""What analysis needs of a model of factors, whichever factors it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from mfm.models.mfm import Codes, Factors, Layout


class FactorModel(Protocol):
    """A network that infers codes from sequences, makes factors of them, and from these a label and sequences.

    Sequences are standardised. A block of codes that the `layout` does not have is (B, 0) for Z_y, and is not in `z`.

    Attributes:
        feature_dims: Modality -> D_i.
        modalities: Their names, sorted.
        layout: Which factors there are.
        decoders: Modality -> decoder; empty where nothing is generated.
    """

    feature_dims: dict[str, int]
    modalities: list[str]
    decoders: Any

    @property
    def head(self) -> nn.Module | None:
        """What reads the label; None in a model that reads none."""
        ...

    @property
    def layout(self) -> Layout:
        """Which factors there are."""
        ...

    def encode(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Codes:
        """As `MFM.encode`; the mean where codes are random."""
        ...

    def factorize(self, codes: Codes) -> Factors:
        """As `MFM.factorize`."""
        ...

    def predict_from(self, factors: Factors) -> Tensor:
        """(B, output_dim) raw output of the head; (B, 0) without one."""
        ...

    def decode(
        self,
        factors: Factors,
        steps: Mapping[str, int],
        inputs: Mapping[str, Tensor] | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """As `MFM.decode`; empty where nothing is generated."""
        ...
