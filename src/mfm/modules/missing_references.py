"""What surrogate inference is compared with where modalities are missing, as LightningModules."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, nearest
from mfm.losses.missing_references import authors_surrogate_loss
from mfm.losses.prediction import choose_prediction_loss, prediction_loss
from mfm.losses.reconstruction import reconstruction_loss
from mfm.models.mfm import MFMOutput
from mfm.models.missing_references import SubsetGenerators, SubsetPredictors, SubsetSurrogates
from mfm.models.subsets import subset_name
from mfm.models.surrogate import generate
from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.initialisation import load_parts
from mfm.modules.mfm import MFMModule

REFERENCES = ("generative", "authors_surrogate")


class DiscriminativeReferenceModule(AffectModule):
    """The paper's purely discriminative reference: one LSTM from every subset of observed modalities to the label.

    All subsets' networks are trained at once, each on all samples that have its modalities, and are in one checkpoint.
    A sample is predicted by the network of what it has. The loss is the mean over subsets of their prediction losses,
    and its value on validation chooses the epoch: with L1, the mean over subsets of MAE. It needs no trained model.
    See `mfm.models.missing_references.SubsetPredictors`.

    Args:
        reference_hidden: Width of each LSTM over the concatenated modalities.
        reference_width: Width of each head.
        reference_dropout: Dropout in the heads, [0, 1).
        prediction_loss: As in `MFMModule`.
        **kwargs: Optimisation and what the data decides; see `AffectModule`.
    """

    def __init__(
        self,
        reference_hidden: int = 128,
        reference_width: int = 64,
        reference_dropout: float = 0.0,
        prediction_loss: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        choose_prediction_loss(self.corpus.task, prediction_loss)
        self.prediction_loss = prediction_loss
        self.predictors = SubsetPredictors(
            self.feature_dims,
            self.corpus.output_dim,
            hidden=reference_hidden,
            width=reference_width,
            dropout=reference_dropout,
            aligned=self.aligned,
        )

    def selection_metric(self) -> tuple[str, Literal["min", "max"]]:
        """The mean over subsets of the prediction loss: the metric with all modalities says nothing of the others."""
        return "val/loss", "min"

    @torch.no_grad()
    def center_output(self, center: Tensor) -> None:
        """Let every head's bias start at the labels' median."""
        for head in self.predictors.heads:
            bias = cast(nn.Linear, cast(nn.Sequential, head)[-1]).bias
            bias.copy_(center.to(bias))

    def predict_label(self, batch: AffectBatch) -> Tensor:
        """(B, output_dim) for a batch in the file's units, each sample by the network of the modalities it has."""
        features = self.normalizer(batch.features, batch.lengths)
        prediction: Tensor = self.predictors(features, batch.lengths, batch.present)
        return prediction

    def step(self, batch: AffectBatch) -> StepOutput:
        """Mean over subsets of the prediction loss, and each subset's."""
        if not self._labelled():
            raise ConfigurationError("a purely discriminative model is trained with labels: leave --data.labels true")
        if not self.training and self._data_option("missing", []):
            return _prediction_alone(batch, self.predict_label(batch), self.corpus.task, self.prediction_loss)
        features = self.normalizer(batch.features, batch.lengths)
        observed = self.predictors.observe(features, batch.lengths, batch.present)
        prediction = torch.zeros(len(batch.ids), self.corpus.output_dim, device=self.device)
        parts = {}
        for index, subset in enumerate(self.predictors.subsets):
            own = self.predictors.of_subset(index, observed)
            prediction = torch.where(observed.has_exactly(subset)[:, None], own, prediction.to(own.dtype))
            mask = batch.target_mask & _like(observed.has(subset), batch.target_mask)
            parts[f"prediction/{subset_name(subset)}"] = prediction_loss(
                own, batch.target, mask, task=self.corpus.task, loss=self.prediction_loss
            )
        return StepOutput(torch.stack(list(parts.values())).mean(), parts, prediction)

    def predict_step(self, batch: AffectBatch, batch_idx: int) -> Prediction:
        """Predictions of one batch."""
        return Prediction(batch.ids, self.predict_label(batch).float(), batch.target, batch.target_mask, {}, {})


class MissingReferenceModule(MFMModule):
    """References that infer what is missing and leave the label to an MFM, with one network for every subset.

    `generative`, the paper's purely generative model: an LSTM over the observed modalities and a decoder of its own for
    each missing one, trained to reconstruct it. The label is what the frozen MFM of `init_from` reads from the
    completed input. Loss: mean over subsets and missing modalities of the reconstruction loss.

    `authors_surrogate`, the surrogates of the authors' code: for each subset an LSTM over the observed modalities for
    Z_y and one for each missing Z_ai. With `init_from` they are trained on that frozen MFM; without, along with it as
    the authors do, and then gradients reach the full encoder's codes through the latent losses too. Loss: the sum over
    subsets of latent, prediction and reconstruction losses, and MFM's own objective where it is trained along.

    All subsets are trained at once and are in one checkpoint; a sample with all modalities is the MFM's own. The
    validation loss chooses the epoch. See `mfm.models.missing_references`.

    Sizes, parts and weights are those of `MFMModule`, and must be those of `init_from`: a run's `config.yaml` has them.

    Args:
        reference: `generative` or `authors_surrogate`.
        reference_hidden: Width of each LSTM over the concatenated modalities.
        reference_code: Width of the codes and decoders of `generative`.
        init_from: Checkpoint of a trained MFM, which stays frozen; needed for training only.
        **kwargs: As in `MFMModule`; `surrogate` is null.
    """

    def __init__(
        self,
        reference: Literal["generative", "authors_surrogate"] = "authors_surrogate",
        reference_hidden: int = 128,
        reference_code: int = 64,
        init_from: str | None = None,
        **kwargs: Any,
    ) -> None:
        if reference not in REFERENCES:
            raise ConfigurationError(f"--model.reference is {reference!r}: {nearest(str(reference), REFERENCES)}")
        if kwargs.get("surrogate") is not None:
            raise ConfigurationError("a reference takes the surrogate's place: add --model.surrogate null")
        if reference == "generative" and init_from is None:
            raise ConfigurationError(
                "--model.reference generative completes the input of a trained MFM: give its checkpoint with "
                "--model.init_from"
            )
        super().__init__(**kwargs)
        self.reference, self.init_from = reference, init_from
        self.generators: SubsetGenerators | None = None
        self.surrogates: SubsetSurrogates | None = None
        if reference == "generative":
            self.generators = SubsetGenerators(
                self.feature_dims, hidden=reference_hidden, code=reference_code, aligned=self.aligned
            )
        else:
            z = {name: cast(int, network[0].in_features) for name, network in self.model.factors.items()}
            z_y = cast(int, self.model.factor_y[0].in_features)
            self.surrogates = SubsetSurrogates(self.feature_dims, z_y, z, hidden=reference_hidden, aligned=self.aligned)
        if init_from is not None:
            self.model.requires_grad_(False)

    # ------------------------------------------------------------------ fitting
    def on_fit_start(self) -> None:
        """As `AffectModule`; a frozen model comes with the statistics that it was trained with."""
        if self.init_from is None:
            AffectModule.on_fit_start(self)
        elif not self._resumed:
            load_parts(self, self.init_from, ("model", "normalizer"))

    def train(self, mode: bool = True) -> MissingReferenceModule:
        """As `nn.Module`, but a frozen model stays without dropout and noise: it is a target."""
        super().train(mode)
        if self.init_from is not None:
            self.model.eval()
        return self

    def selection_metric(self) -> tuple[str, Literal["min", "max"]]:
        """The loss: the metric with all modalities says nothing of the others."""
        return "val/loss", "min"

    # ---------------------------------------------------------------- inference
    def forward(self, batch: AffectBatch) -> tuple[MFMOutput, dict[str, Tensor]]:
        """Run the model on a batch in the file's units.

        While training, the MFM alone; otherwise what is missing from a sample is inferred by the reference.

        Returns:
            The model's output (reconstructions in normalised units; what `generative` made of a missing modality stands
            there as it was made) and the normalised features it saw.
        """
        if self.training:
            return super().forward(batch)
        features = self.normalizer(batch.features, batch.lengths)
        if self.generators is not None:
            filled, lengths = self.generators(features, batch.lengths, batch.present)
            output: MFMOutput = self.model(filled, lengths, {name: own > 0 for name, own in lengths.items()})
            given = self.generators.observe(features, batch.lengths, batch.present).lengths
            made = {name: ((given[name] == 0) & (lengths[name] > 0))[:, None, None] for name in filled}
            shown = {name: torch.where(made[name], filled[name], x) for name, x in output.reconstruction.items()}
            kept = {name: x[:, : features[name].shape[1]] if name in features else x for name, x in shown.items()}
            return output._replace(reconstruction=kept), features
        assert self.surrogates is not None
        codes = self.model.encode(features, batch.lengths, batch.present)
        codes = self.surrogates(codes, features, batch.lengths, batch.present)
        return generate(self.model, codes, features), features

    def predict_label(self, batch: AffectBatch, *, surrogate: bool = True) -> Tensor:
        """The head's raw output (B, output_dim) for a batch in the file's units, without decoding more than needed.

        Args:
            batch: The batch.
            surrogate: Whether the reference infers what is missing; otherwise the MFM as it is does.
        """
        features, lengths, present = self.normalizer(batch.features, batch.lengths), batch.lengths, batch.present
        if surrogate and self.generators is not None:
            features, lengths = self.generators(features, lengths, present)
            present = {name: own > 0 for name, own in lengths.items()}
        codes = self.model.encode(features, lengths, present)
        if surrogate and self.surrogates is not None:
            codes = self.surrogates(codes, features, lengths, present)
        return self.model.predict(self.model.factorize(codes).f_y)

    # ---------------------------------------------------------------- objective
    def step(self, batch: AffectBatch) -> StepOutput:
        """Loss over all subsets; where evaluation takes modalities away, that of the prediction alone."""
        if not self.training and self._data_option("missing", []):
            prediction = self.predict_label(batch)
            return _prediction_alone(batch, prediction, self.corpus.task, self.objective.prediction_loss)
        features = self.normalizer(batch.features, batch.lengths)
        if self.generators is not None:
            return self._generation(self.generators, batch, features)
        assert self.surrogates is not None
        return self._authors(self.surrogates, batch, features)

    def _generation(self, generators: SubsetGenerators, batch: AffectBatch, features: dict[str, Tensor]) -> StepOutput:
        observed = generators.observe(features, batch.lengths, batch.present)
        steps = {name: x.shape[1] for name, x in observed.features.items()}
        costs: dict[str, list[Tensor]] = {name: [] for name in observed.features}
        for index, subset in enumerate(generators.subsets):
            shown = observed.has(subset)
            for name, x in generators.of_subset(index, observed, steps).items():
                real = observed.lengths[name].masked_fill(~shown, 0)
                cost = reconstruction_loss(x, observed.features[name], real, loss=self.objective.reconstruction_loss)
                costs[name].append(cost)
        with torch.no_grad():
            prediction = self.predict_label(batch, surrogate=not self.training)
        parts = {f"generated/{name}": torch.stack(own).mean() for name, own in costs.items()}
        return StepOutput(torch.stack([cost for own in costs.values() for cost in own]).mean(), parts, prediction)

    def _authors(self, surrogates: SubsetSurrogates, batch: AffectBatch, features: dict[str, Tensor]) -> StepOutput:
        observed = surrogates.observe(features, batch.lengths, batch.present)
        full = self.model.encode(features, batch.lengths, batch.present)
        passes = []
        for index, subset in enumerate(surrogates.subsets):
            codes = surrogates.of_subset(index, full, observed)
            inferred = generate(self.model, codes, observed.features)
            passes.append(
                authors_surrogate_loss(
                    self.objective,
                    inferred.prediction,
                    batch.target,
                    batch.target_mask,
                    inferred.reconstruction,
                    observed.features,
                    observed.lengths,
                    subset=subset,
                    z_y=codes.z_y,
                    z=codes.z,
                    full_z_y=full.z_y,
                    full_z=full.z,
                )
            )
        total = torch.stack([one.total for one in passes]).sum()
        parts = {
            f"surrogate/{name}": torch.stack([one.parts[name] for one in passes]).sum() for name in passes[0].parts
        }
        if self.init_from is not None:
            return StepOutput(total, parts, self.predict_label(batch, surrogate=not self.training))
        own = super().step(batch)
        return StepOutput(own.loss + total, {**own.parts, **parts}, own.prediction)


def _like(rows: Tensor, mask: Tensor) -> Tensor:
    """(B,) as the shape of a target's mask, (B,) or (B, K)."""
    return rows.reshape(-1, *[1] * (mask.ndim - 1))


def _prediction_alone(batch: AffectBatch, prediction: Tensor, task: str, loss: str | None) -> StepOutput:
    """There is nothing to compare what was taken away with."""
    cost = prediction_loss(prediction, batch.target, batch.target_mask, task=task, loss=loss)
    return StepOutput(cost, {"prediction": cost}, prediction)
