"""MISA as a LightningModule."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.losses.misa import MISAObjective
from mfm.models.mfm import Codes
from mfm.models.misa import MISA, MISAOutput
from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.mfm import for_modalities


class MISAModule(AffectModule):
    """MISA: modality-invariant and modality-specific representations (Hazarika et al., ACM MM 2020, arXiv 2005.03545).

    Each modality's utterance vector is seen in a subspace that all modalities share and in one of its own; both
    together predict the label and rebuild the vector. See `mfm.models.misa.MISA` for the equations. It is a model of
    factors (the shared representations are the joint one) that generates no sequences.

    Args:
        hidden: Width of all representations.
        encoder: What makes the utterance vectors: `lstm`, `gru`, `transformer`, `ssm` or `mean`, or a mapping with
            `name` and settings; per modality, as in `MFMModule`.
        layers: Blocks of self-attention over the representations.
        heads: Attention heads.
        dropout: Dropout in the self-attention, [0, 1).
        dropout_head: Dropout in the head, [0, 1).
        weight_similarity: Weight alpha of the central moment discrepancy between shared representations.
        weight_difference: Weight beta of what keeps private representations orthogonal to the shared and to each other.
        weight_reconstruction: Weight gamma of rebuilding the utterance vectors.
        prediction_loss: As in `MFMModule`.
        **kwargs: Optimisation and what the data decides; see `AffectModule`.
    """

    surrogate = None  # what a `FactorModule` infers missing modalities with

    def __init__(
        self,
        hidden: int = 128,
        encoder: str | dict[str, Any] = "lstm",
        layers: int = 1,
        heads: int = 2,
        dropout: float = 0.1,
        dropout_head: float = 0.2,
        weight_similarity: float = 0.7,
        weight_difference: float = 0.3,
        weight_reconstruction: float = 0.7,
        prediction_loss: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = MISA(
            self.feature_dims,
            self.corpus.output_dim,
            hidden=hidden,
            encoder=for_modalities(encoder, self.feature_dims),
            layers=layers,
            heads=heads,
            dropout=dropout,
            dropout_head=dropout_head,
        )
        self.objective = MISAObjective(
            self.corpus.task,
            similarity=weight_similarity,
            difference=weight_difference,
            reconstruction=weight_reconstruction,
            prediction_loss=prediction_loss,
        )

    @property
    def output_bias(self) -> Tensor:
        """The head's last bias."""
        return self.model.output_bias

    def forward(self, batch: AffectBatch) -> MISAOutput:
        """Run the model on a batch in the file's units."""
        features = self.normalizer(batch.features, batch.lengths)
        output: MISAOutput = self.model(features, batch.lengths, batch.present)
        return output

    def infer_codes(self, batch: AffectBatch, *, surrogate: bool = True) -> Codes:
        """The representations of a batch; there is no surrogate to ask."""
        return self.model.codes(self(batch))

    def predict_label(self, batch: AffectBatch, *, surrogate: bool = True) -> Tensor:
        """The head's raw output (B, output_dim) for a batch in the file's units."""
        output: MISAOutput = self(batch)
        return output.prediction

    def step(self, batch: AffectBatch) -> StepOutput:
        """Objective and prediction for one batch."""
        if not self._labelled():
            raise ConfigurationError("MISA is trained with labels: leave --data.labels true")
        output = self(batch)
        total, parts = self.objective(output.prediction, batch.target, batch.target_mask, *output[1:])
        return StepOutput(total, parts, output.prediction)

    def predict_step(self, batch: AffectBatch, batch_idx: int) -> Prediction:
        """Predictions of one batch, and its representations: all shared ones as block `y`, one private per modality."""
        output = self(batch)
        z_y, z = self.model.codes(output)
        blocks = {"y": z_y.float(), **{name: code.float() for name, code in z.items()}}
        return Prediction(batch.ids, output.prediction.float(), batch.target, batch.target_mask, blocks, dict(blocks))
