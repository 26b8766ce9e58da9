"""What surrogate inference is compared with where modalities are missing, as LightningModules."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, nearest
from mfm.losses.missing_references import authors_surrogate_loss
from mfm.losses.prediction import choose_prediction_loss, prediction_loss
from mfm.losses.reconstruction import reconstruction_loss
from mfm.models.mfm import Codes, MFMOutput
from mfm.models.missing_references import (
    BestOfSubsets,
    SubsetGenerators,
    SubsetNetworks,
    SubsetPredictors,
    SubsetSurrogates,
)
from mfm.models.subsets import Subset, subset_name
from mfm.models.surrogate import generate
from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.initialisation import load_parts
from mfm.modules.mfm import MFMModule

REFERENCES = ("generative", "authors_surrogate")


class DiscriminativeReferenceModule(AffectModule):
    """The paper's purely discriminative reference: one LSTM from every subset of observed modalities to the label.

    All subsets' networks are trained at once, each on all samples that have its modalities, and are in one checkpoint.
    A sample is predicted by the network of what it has. The loss is the mean over subsets of their prediction losses.
    Each subset's network is kept as it was in its own best epoch by that loss on validation, as if trained alone; the
    mean over subsets of these, `val/best_of_subsets`, chooses the checkpoint. It needs no trained model.
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
        self.best = BestOfSubsets(self.predictors)

    def selection_metric(self) -> tuple[str, Literal["min", "max"]]:
        """The mean over subsets of their best losses: the metric with all modalities says nothing of the others."""
        return _selection(self, self.best)

    def on_validation_epoch_end(self) -> None:
        """Keep what was best for each subset."""
        _keep_best(self, self.best, self.predictors)
        super().on_validation_epoch_end()

    @torch.no_grad()
    def center_output(self, center: Tensor) -> None:
        """Let every head's bias start at the labels' median."""
        for head in self.predictors.heads:
            bias = cast(nn.Linear, cast(nn.Sequential, head)[-1]).bias
            bias.copy_(center.to(bias))

    def predict_label(self, batch: AffectBatch) -> Tensor:
        """(B, output_dim) for a batch in the file's units, each sample by the network of the modalities it has."""
        features = self.normalizer(batch.features, batch.lengths)
        prediction: Tensor = self._predictors()(features, batch.lengths, batch.present)
        return prediction

    def _predictors(self) -> SubsetPredictors:
        return cast(SubsetPredictors, _in_use(self, self.best, self.predictors))

    def step(self, batch: AffectBatch) -> StepOutput:
        """Mean over subsets of the prediction loss, and each subset's."""
        if not self._labelled():
            raise ConfigurationError("a purely discriminative model is trained with labels: leave --data.labels true")
        if not self.training and self._data_option("missing", []):
            return _prediction_alone(batch, self.predict_label(batch), self.corpus.task, self.prediction_loss)
        features = self.normalizer(batch.features, batch.lengths)
        predictors = self._predictors()
        observed = predictors.observe(features, batch.lengths, batch.present)
        prediction = torch.zeros(len(batch.ids), self.corpus.output_dim, device=self.device)
        parts = {}
        for index, subset in enumerate(predictors.subsets):
            own = predictors.of_subset(index, observed)
            prediction = torch.where(observed.has_exactly(subset)[:, None], own, prediction.to(own.dtype))
            mask = batch.target_mask & _like(observed.has(subset), batch.target_mask)
            parts[_part(subset)] = prediction_loss(
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
    completed input. Loss: mean over subsets of the mean over missing modalities of the reconstruction loss.

    `authors_surrogate`, the surrogates of the authors' code: for each subset an LSTM over the observed modalities for
    Z_y and one for each missing Z_ai. With `init_from` they are trained on that frozen MFM; without, along with it as
    the authors do, and then gradients reach the full encoder's codes through the latent losses too. Loss: the sum over
    subsets of latent, prediction and reconstruction losses, and MFM's own objective where it is trained along.

    All subsets are trained at once and are in one checkpoint; a sample with all modalities is the MFM's own. On a
    frozen MFM, each subset's networks are kept as they were in their own best epoch by its loss on validation, and the
    mean over subsets of these, `val/best_of_subsets`, chooses the checkpoint; otherwise the whole loss does.

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
        self.best: BestOfSubsets | None = None
        if init_from is not None:
            self.model.requires_grad_(False)
            self.best = BestOfSubsets(self._trained())

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
        """Losses, by subset where MFM is frozen: the metric with all modalities says nothing of the others."""
        return _selection(self, self.best)

    def on_validation_epoch_end(self) -> None:
        """Keep what was best for each subset."""
        _keep_best(self, self.best, self._trained())
        super().on_validation_epoch_end()

    def _trained(self) -> SubsetGenerators | SubsetSurrogates:
        return self.generators or cast(SubsetSurrogates, self.surrogates)

    def _networks(self) -> SubsetGenerators | SubsetSurrogates:
        return cast(SubsetGenerators | SubsetSurrogates, _in_use(self, self.best, self._trained()))

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
        features, networks = self.normalizer(batch.features, batch.lengths), self._networks()
        if isinstance(networks, SubsetSurrogates):
            codes = self.model.encode(features, batch.lengths, batch.present)
            return generate(self.model, networks(codes, features, batch.lengths, batch.present), features), features
        filled, lengths = networks(features, batch.lengths, batch.present)
        output: MFMOutput = self.model(filled, lengths, {name: own > 0 for name, own in lengths.items()})
        given = networks.observe(features, batch.lengths, batch.present).lengths
        made = {name: ((given[name] == 0) & (lengths[name] > 0))[:, None, None] for name in filled}
        shown = {name: torch.where(made[name], filled[name], x) for name, x in output.reconstruction.items()}
        kept = {name: x[:, : features[name].shape[1]] if name in features else x for name, x in shown.items()}
        return output._replace(reconstruction=kept), features

    def infer_codes(self, batch: AffectBatch, *, surrogate: bool = True) -> Codes:
        """The codes of a batch in the file's units; `generative` completes the input instead of guessing codes.

        Args:
            batch: The batch.
            surrogate: Whether the reference infers what is missing; otherwise the MFM as it is does.
        """
        features, lengths, present = self.normalizer(batch.features, batch.lengths), batch.lengths, batch.present
        networks = self._networks() if surrogate else None
        if isinstance(networks, SubsetGenerators):
            features, lengths = networks(features, lengths, present)
            present = {name: own > 0 for name, own in lengths.items()}
        codes = self.model.encode(features, lengths, present)
        return networks(codes, features, lengths, present) if isinstance(networks, SubsetSurrogates) else codes

    def predict_label(self, batch: AffectBatch, *, surrogate: bool = True) -> Tensor:
        """The head's raw output (B, output_dim), without decoding anything; arguments as in `infer_codes`."""
        if not surrogate:
            return super().predict_label(batch, surrogate=False)
        return self.model.predict_from(self.model.factorize(self.infer_codes(batch)))

    # ---------------------------------------------------------------- objective
    def step(self, batch: AffectBatch) -> StepOutput:
        """Loss over all subsets; where evaluation takes modalities away, that of the prediction alone."""
        if not self.training and self._data_option("missing", []):
            prediction = self.predict_label(batch)
            return _prediction_alone(batch, prediction, self.corpus.task, self.objective.prediction_loss)
        features, networks = self.normalizer(batch.features, batch.lengths), self._networks()
        if isinstance(networks, SubsetGenerators):
            return self._generation(networks, batch, features)
        return self._authors(networks, batch, features)

    def _generation(self, generators: SubsetGenerators, batch: AffectBatch, features: dict[str, Tensor]) -> StepOutput:
        observed = generators.observe(features, batch.lengths, batch.present)
        steps = {name: x.shape[1] for name, x in observed.features.items()}
        parts = {}
        for index, subset in enumerate(generators.subsets):
            shown = observed.has(subset)
            costs = [
                reconstruction_loss(
                    x,
                    observed.features[name],
                    observed.lengths[name].masked_fill(~shown, 0),
                    loss=self.objective.reconstruction_loss,
                )
                for name, x in generators.of_subset(index, observed, steps).items()
            ]
            parts[_part(subset)] = torch.stack(costs).mean()
        with torch.no_grad():
            prediction = self.predict_label(batch, surrogate=not self.training)
        return StepOutput(torch.stack(list(parts.values())).mean(), parts, prediction)

    def _authors(self, surrogates: SubsetSurrogates, batch: AffectBatch, features: dict[str, Tensor]) -> StepOutput:
        observed = surrogates.observe(features, batch.lengths, batch.present)
        full = self.model.encode(features, batch.lengths, batch.present)
        passes = []
        for index, subset in enumerate(surrogates.subsets):
            codes = surrogates.of_subset(index, full, observed)
            inferred = generate(self.model, codes, observed.features, observed.lengths)
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
        parts |= {_part(subset): one.total for subset, one in zip(surrogates.subsets, passes, strict=True)}
        if self.init_from is not None:
            return StepOutput(total, parts, self.predict_label(batch, surrogate=not self.training))
        own = super().step(batch)
        return StepOutput(own.loss + total, {**own.parts, **parts}, own.prediction)


def _part(subset: Subset) -> str:
    """What a subset's loss is logged as."""
    return f"subset/{subset_name(subset)}"


def _fitting(module: AffectModule) -> bool:
    return module._trainer is not None and module._trainer.state.fn == TrainerFn.FITTING


def _judged(module: AffectModule, best: BestOfSubsets | None) -> bool:
    """Whether validation tells subsets apart, which it cannot where it takes modalities away itself."""
    return best is not None and not module._data_option("missing", [])


def _selection(module: AffectModule, best: BestOfSubsets | None) -> tuple[str, Literal["min", "max"]]:
    return ("val/best_of_subsets" if _judged(module, best) else "val/loss"), "min"


def _in_use(module: AffectModule, best: BestOfSubsets | None, trained: SubsetNetworks) -> SubsetNetworks:
    """The networks that are trained, also where validation judges them; after training, the best of each subset."""
    return trained if best is None or module.training or _fitting(module) or not best.known() else best.networks


def _keep_best(module: AffectModule, best: BestOfSubsets | None, trained: SubsetNetworks) -> None:
    if best is None or not _judged(module, best) or not _fitting(module):
        return
    found = module.stage_losses["val"]
    losses = torch.stack([found[f"val/{_part(subset)}"].to(module.device).compute() for subset in trained.subsets])
    best.update(trained, losses.to(best.loss))
    module.log("val/best_of_subsets", best.loss.mean(), sync_dist=True)


def _like(rows: Tensor, mask: Tensor) -> Tensor:
    """(B,) as the shape of a target's mask, (B,) or (B, K)."""
    return rows.reshape(-1, *[1] * (mask.ndim - 1))


def _prediction_alone(batch: AffectBatch, prediction: Tensor, task: str, loss: str | None) -> StepOutput:
    """There is nothing to compare what was taken away with."""
    cost = prediction_loss(prediction, batch.target, batch.target_mask, task=task, loss=loss)
    return StepOutput(cost, {"prediction": cost}, prediction)
