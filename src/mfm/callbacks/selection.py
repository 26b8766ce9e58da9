"""Model selection and early stopping on the corpus' own validation metric."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from mfm.errors import ConfigurationError, nearest
from mfm.modules.base import AffectModule


def selection_metric(pl_module: LightningModule) -> tuple[str, Literal["min", "max"]]:
    """Name and direction of the value that chooses between epochs; the loss for modules that name none."""
    return pl_module.selection_metric() if isinstance(pl_module, AffectModule) else ("val/loss", "min")


class BestCheckpoint(ModelCheckpoint):
    """Keep the best epoch by a validation metric as `best.ckpt`, and the last one as `last.ckpt`.

    Args:
        monitor: Logged value that chooses, e.g. `val/mae`; null takes the corpus' own (`val/mae`, `val/acc`, ...).
        mode: Whether `monitor` is better small (`min`) or large (`max`).
        save_top_k: How many of the best epochs to keep; with more than 1, files carry the epoch's number.
        every_n_epochs: Epochs between checkpoints.
        min_delta: By how much a later epoch has to be better to take the place of an earlier one. The standard error of
            the metric on the validation split makes it the one-standard-error rule (Breiman et al., "Classification and
            Regression Trees", 1984): of what cannot be told apart, the least fitted.

    Raises:
        ConfigurationError: A `min_delta` that is negative, or together with several epochs to keep.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        save_top_k: int = 1,
        every_n_epochs: int = 1,
        min_delta: float = 0.0,
    ) -> None:
        if not 0 <= min_delta < float("inf"):
            raise ConfigurationError(f"--checkpoint.min_delta is {min_delta}, but must be a number >= 0")
        if min_delta and save_top_k != 1:
            raise ConfigurationError(
                "--checkpoint.min_delta is about one best epoch: leave --checkpoint.save_top_k at 1"
            )
        self.min_delta = min_delta
        super().__init__(
            monitor=monitor,
            mode=mode,
            filename="best" if save_top_k == 1 else "best-{epoch:03d}",
            auto_insert_metric_name=False,
            save_last=True,
            save_top_k=save_top_k,
            every_n_epochs=every_n_epochs,
            # after validation and everything else of the epoch, so that a resumed run starts at a clean boundary
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fill in the corpus' metric."""
        if self.monitor is None:
            self.monitor, self.mode = selection_metric(pl_module)
            self.kth_value = torch.tensor(float("inf") if self.mode == "min" else float("-inf"))
        super().setup(trainer, pl_module, stage)

    def check_monitor_top_k(self, trainer: Trainer, current: torch.Tensor | None = None) -> bool:
        """Whether an epoch takes the place of the best so far."""
        if current is not None and self.min_delta and self.best_k_models:
            current = current + (self.min_delta if self.mode == "min" else -self.min_delta)
        return super().check_monitor_top_k(trainer, current)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch whether or not it was the best: Lightning's `save_last` copies only what it saved."""
        super().on_train_epoch_end(trainer, pl_module)
        due = (trainer.current_epoch + 1) % self._every_n_epochs == 0
        if due and not self._should_skip_saving_checkpoint(trainer):  # skipped where this step is saved already
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a run whose directory may have moved since."""
        before, now = str(state_dict.get("dirpath")), str(self.dirpath)

        def moved(value: Any) -> Any:
            if isinstance(value, str) and value.startswith(before):
                return now + value.removeprefix(before)
            if isinstance(value, dict):
                return {moved(key): moved(item) for key, item in value.items()}
            return value

        super().load_state_dict({key: moved(value) for key, value in state_dict.items()})


class PatientStopping(EarlyStopping):
    """Stop when a validation metric has not improved for `patience` epochs.

    Args:
        patience: Validations without improvement before training stops; null trains to `max_epochs`.
        monitor: Logged value to watch; null takes the corpus' own.
        mode: Whether `monitor` is better small (`min`) or large (`max`).
        min_delta: Smallest change that counts as an improvement.
    """

    def __init__(
        self,
        patience: int | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
    ) -> None:
        self._own_metric = monitor is None
        self._limit = patience
        super().__init__(
            monitor=monitor or "val/loss",
            mode=mode,
            patience=patience if patience is not None else 0,
            min_delta=min_delta,
            check_on_train_epoch_end=True,  # the same moment as the checkpoint, so that its state is in there
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fill in the corpus' metric."""
        if self._own_metric:
            self.monitor, self.mode = selection_metric(pl_module)
            self.min_delta = abs(self.min_delta) * (1 if self.monitor_op == torch.gt else -1)
            self.best_score = torch.tensor(float("inf") if self.mode == "min" else float("-inf"))
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was counted; the patience is what this run was given."""
        super().load_state_dict(state_dict)
        self.patience = self._limit if self._limit is not None else 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run that had stopped already stays stopped."""
        if self._limit is not None and self.wait_count >= self._limit:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check after a validation, unless stopping is off."""
        every = trainer.check_val_every_n_epoch
        if self._limit is None or (every is not None and (trainer.current_epoch + 1) % every):
            return
        if self.monitor not in trainer.callback_metrics:
            known = nearest(self.monitor, trainer.callback_metrics)
            raise ConfigurationError(
                f"--early_stopping.monitor: {self.monitor!r} is not logged ({known}); "
                "name another, or set --early_stopping.patience null"
            )
        super().on_train_epoch_end(trainer, pl_module)
