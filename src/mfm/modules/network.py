"""Any network that predicts a label, as a LightningModule."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.losses.prediction import choose_prediction_loss, prediction_loss
from mfm.models.mfm import observed_inputs
from mfm.models.networks import NETWORKS
from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.mfm import for_modalities


class NetworkModule(AffectModule):
    """A network of the collection: EF-LSTM, LF-DNN, TFN, MulT, ... (`mfm parts` lists them with their settings).

    Args:
        network: Its name; a mapping with `name` and its settings, e.g. `{name: ef_lstm, hidden: 64}`; or, as the name,
            the import path of a `mfm.models.networks.Network` of your own.
        prediction_loss: As in `MFMModule`.
        **kwargs: Optimisation and what the data decides; see `AffectModule`.
    """

    def __init__(
        self, network: str | dict[str, Any] = "lf_dnn", prediction_loss: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        choose_prediction_loss(self.corpus.task, prediction_loss)
        self.prediction_loss = prediction_loss
        self.network = NETWORKS.build(
            for_modalities(network, self.feature_dims),
            feature_dims=self.feature_dims,
            output_dim=self.corpus.output_dim,
            aligned=self.aligned,
        )

    @property
    def output_bias(self) -> Tensor:
        """As `Network.output_bias`."""
        return self.network.output_bias

    def predict_label(self, batch: AffectBatch) -> Tensor:
        """Raw output (B, output_dim) for a batch in the file's units."""
        features = self.normalizer(batch.features, batch.lengths)
        observed, lengths = observed_inputs(self.feature_dims, features, batch.lengths, batch.present)
        present = {name: own > 0 for name, own in lengths.items()}
        prediction: Tensor = self.network(observed, lengths, present)
        return prediction

    def step(self, batch: AffectBatch) -> StepOutput:
        """The prediction loss."""
        if not self._labelled():
            raise ConfigurationError("a network that only predicts is trained with labels: leave --data.labels true")
        prediction = self.predict_label(batch)
        loss = prediction_loss(
            prediction, batch.target, batch.target_mask, task=self.corpus.task, loss=self.prediction_loss
        )
        return StepOutput(loss, {"prediction": loss}, prediction)

    def predict_step(self, batch: AffectBatch, batch_idx: int) -> Prediction:
        """Predictions of one batch."""
        return Prediction(batch.ids, self.predict_label(batch).float(), batch.target, batch.target_mask, {}, {})
