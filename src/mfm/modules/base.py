"""What all LightningModules of the collection share: optimisation, metrics, logging, normalisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from mfm.corpora import get_corpus
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.metrics import WeightedMean, metrics_for
from mfm.models.normalization import Normalizer
from mfm.modules.optimisation import build_optimizer, build_schedule, check_optimisation, decay_groups

EVALUATION_SEED = (
    20190506  # evaluation draws its prior samples from this seed, so that a loss is a property of the model
)


class StepOutput(NamedTuple):
    """What a module computes for one batch.

    Attributes:
        loss: Scalar to minimise.
        parts: Unweighted parts of the loss by name, each a scalar.
        prediction: (B, output_dim), the head's raw output.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    prediction: Tensor


class Prediction(NamedTuple):
    """What `predict_step` returns for one batch.

    Attributes:
        ids: B sample names.
        prediction: (B, output_dim), the head's raw output.
        target: As in the batch.
        target_mask: As in the batch.
        codes: Block (`y` or a modality) -> (B, z), latent codes Z; empty for models without.
        factors: Block (`y` or a modality) -> (B, f), factors F; empty for models without.
    """

    ids: list[str]
    prediction: Tensor
    target: Tensor
    target_mask: Tensor
    codes: dict[str, Tensor]
    factors: dict[str, Tensor]


class AffectModule(LightningModule):
    """Base of all modules: give it `step` (and `predict_step`) and it trains, evaluates and logs.

    Logged are `<stage>/loss`, `<stage>/<part of the loss>` and, for validation and test, the corpus' metrics.

    Args:
        feature_dims: Modality -> feature dimension D. Filled from the data by the command line; a value given
            there is replaced.
        corpus: Name of the `Corpus` record: task, metrics, monitored value. Filled from the data by the command line.
        aligned: Whether step t of all modalities is the same moment. Filled from the data by the command line.
        optimizer: `adam`, `adamw`, `nadam`, `radam`, `rmsprop` or `sgd`; or a mapping with `name` and that optimiser's
            settings, e.g. `{name: adam, betas: [0.9, 0.99]}`.
        lr: Learning rate, > 0.
        weight_decay: Decay of weight matrices, >= 0; biases and gains never decay.
        schedule: `constant`, `cosine`, `linear` (setting `floor`), or `plateau` (settings `factor`, `patience`, ...).
        warmup_steps: Optimiser steps of linear warm-up.
        clip_features: Standardised features are clipped to this many deviations either way; null does not clip.
    """

    def __init__(
        self,
        feature_dims: dict[str, int],
        corpus: str,
        aligned: bool = True,
        optimizer: str | dict[str, Any] = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: str | dict[str, Any] = "constant",
        warmup_steps: int = 0,
        clip_features: float | None = 10.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # the whole config reaches the loggers through a callback
        if not feature_dims:
            raise ConfigurationError("a model needs at least one modality: feature_dims is empty")
        check_optimisation(optimizer, schedule, lr=lr, weight_decay=weight_decay, warmup=warmup_steps)
        self.feature_dims = dict(feature_dims)
        self.corpus = get_corpus(corpus)
        self.aligned = aligned
        self.optimizer_spec, self.lr, self.weight_decay = optimizer, lr, weight_decay
        self.schedule_spec, self.warmup_steps = schedule, warmup_steps
        self.normalizer = Normalizer(feature_dims, clip_features)
        self.stage_metrics = {stage: metrics_for(self.corpus) for stage in ("val", "test")}
        self.stage_losses: dict[str, dict[str, WeightedMean]] = {"val": {}, "test": {}}
        self._resumed = False

    @abstractmethod
    def step(self, batch: AffectBatch) -> StepOutput:
        """Loss, its parts and the prediction for one batch."""

    # ------------------------------------------------------------------ fitting
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A run that goes on has its weights: nothing is initialised again."""
        self._resumed = True

    @property
    def output_bias(self) -> Tensor | None:
        """Bias (K,) of the layer that makes the raw output; None for a model that reads no label."""
        return None

    @torch.no_grad()
    def center_output(self, center: Tensor) -> None:
        """Let predictions start at the training labels' median (K,): from 0, ratings in [1, 7] cost epochs to reach."""
        if self.output_bias is not None:
            self.output_bias.copy_(center)

    def on_fit_start(self) -> None:
        """Take over what the data module knows of the training split."""
        statistics: Mapping[str, Any] | None = getattr(getattr(self.trainer, "datamodule", None), "statistics", None)
        if statistics and not self._resumed:
            self.normalizer.set_statistics(
                {name: torch.as_tensor(value.mean, dtype=torch.float32) for name, value in statistics.items()},
                {name: torch.as_tensor(value.std, dtype=torch.float32) for name, value in statistics.items()},
            )

        center = self._data_option("target_center", None)
        if center is not None and not self._resumed:
            self.center_output(torch.as_tensor(center))

    def training_step(self, batch: AffectBatch, batch_idx: int) -> Tensor:
        """One optimiser step."""
        output = self.step(batch)
        for name, value in _named_losses("train", output).items():
            # gathered once an epoch: one process' losses are not the run's
            self.log(name, value, on_step=False, on_epoch=True, batch_size=len(batch.ids), sync_dist=True)
        return output.loss

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule as named in the hyperparameters."""
        # On a CPU one operation for all parameters is several times as fast. Elsewhere PyTorch's own choice is as good,
        # and in mixed precision Lightning clips no gradients of a fused optimiser.
        fused = self.device.type == "cpu" and str(self.trainer.precision) in ("32-true", "64-true")
        optimizer = build_optimizer(
            self.optimizer_spec, self.parameter_groups(), self.lr, self.weight_decay, fused=fused
        )
        monitor, mode = self.selection_metric()
        schedule = build_schedule(
            self.schedule_spec,
            optimizer,
            warmup_steps=self.warmup_steps,
            total_steps=int(self.trainer.estimated_stepping_batches) if self.schedule_spec != "constant" else 0,
            monitor=monitor,
            mode=mode,
        )
        return optimizer if schedule is None else {"optimizer": optimizer, "lr_scheduler": schedule}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser trains, in groups of one weight decay each."""
        return decay_groups(self, self.weight_decay)

    def selection_metric(self) -> tuple[str, Literal["min", "max"]]:
        """Name and direction of the value that chooses between epochs: the corpus' own, or the loss without labels."""
        return (self.corpus.monitor, self.corpus.mode) if self._labelled() else ("val/loss", "min")

    def _labelled(self) -> bool:
        return bool(self._data_option("labels", True))

    def _data_option(self, name: str, default: Any) -> Any:
        return getattr(getattr(self._trainer, "datamodule", None), name, default)

    # --------------------------------------------------------------- evaluation
    def validation_step(self, batch: AffectBatch, batch_idx: int) -> dict[str, Any]:
        """Loss and metrics of one validation batch."""
        return {"output": self._evaluate("val", batch, batch_idx)}

    def test_step(self, batch: AffectBatch, batch_idx: int) -> dict[str, Any]:
        """Loss and metrics of one test batch."""
        return {"output": self._evaluate("test", batch, batch_idx)}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, computed over all samples of all processes."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, computed over all samples of all processes."""
        self._log_metrics("test")

    def _evaluate(self, stage: str, batch: AffectBatch, batch_idx: int) -> Prediction:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(EVALUATION_SEED + batch_idx)
            output = self.step(batch)
        # Lightning's own mean over processes divides by a batch size rounded down to an integer
        gone = {f"{stage}/reconstruction/{name}" for name in self._data_option("missing", [])}
        weights = _averaged_over(batch)
        for name, value in _named_losses(stage, output).items():
            if name in gone:  # nothing to compare with, and 0 would look like a perfect one
                continue
            weight = weights.get(name.partition("/")[2].removeprefix("surrogate/"), len(batch.ids))
            self.stage_losses[stage].setdefault(name, WeightedMean()).to(self.device).update(value, weight)
        prediction = output.prediction.detach().float()
        if prediction.shape[1] and self._labelled():
            self.stage_metrics[stage].to(self.device).update(prediction, batch.target, batch.target_mask)
        return Prediction(batch.ids, prediction, batch.target, batch.target_mask, {}, {})

    def _log_metrics(self, stage: str) -> None:
        for name, mean in self.stage_losses[stage].items():
            self.log(name, mean.to(self.device).compute(), sync_dist=True)
            mean.reset()
        if not self._labelled() or not self.corpus.output_dim:
            return
        metrics = self.stage_metrics[stage].to(self.device)  # also where this process had no batch
        values = metrics.compute()
        metrics.reset()
        for name, value in values.items():
            self.log(
                f"{stage}/{name}",
                value.to(self.device),
                sync_dist=True,
                prog_bar=f"{stage}/{name}" == self.corpus.monitor,
            )


def _named_losses(stage: str, output: StepOutput) -> dict[str, Tensor]:
    """The loss and its parts under the names they are logged by."""
    named = {f"{stage}/loss": output.loss, **{f"{stage}/{name}": part for name, part in output.parts.items()}}
    return {name: value.detach() for name, value in named.items()}


def _averaged_over(batch: AffectBatch) -> dict[str, Tensor]:
    """Part of the loss -> what its batch value is a mean over, so that the mean over batches is that over the split.

    The whole objective and MMD have no such number: MMD is a property of a batch, and their means are over samples.
    """
    steps = {f"reconstruction/{name}": lengths.sum() for name, lengths in batch.lengths.items()}
    return {"prediction": batch.target_mask.sum(), **steps}
