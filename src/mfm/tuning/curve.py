"""The monitored value of every epoch of a trial, and the end of trials that are not worth going on with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from mfm.callbacks.selection import selection_metric
from mfm.errors import ConfigurationError, MFMError, nearest

VALIDATION = "val/"


class ValidationCurve(Callback):
    """Collect what `mfm fit` would select the epoch by, and stop early.

    Training stops when `go_on` says so, and when the value is no longer a number, from which nothing recovers.

    Args:
        monitor: Logged validation value, and whether it is better small (`min`) or large (`max`); the corpus' own by
            default.
        min_delta: By how much a later epoch has to be better to be kept instead; see `BestCheckpoint`.
        go_on: Called with an epoch and its value; False stops the trial as pruned.

    Attributes:
        values: Epoch -> value.
        pruned: Whether `go_on` stopped the trial.
    """

    def __init__(
        self,
        monitor: tuple[str, Literal["min", "max"]] | None = None,
        min_delta: float = 0.0,
        go_on: Callable[[int, float], bool] | None = None,
    ) -> None:
        self._given, self._min_delta, self._go_on = monitor, min_delta, go_on
        self.monitor, self.mode = monitor or ("", "min")
        self.values: dict[int, float] = {}
        self.pruned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out what is monitored.

        Raises:
            ConfigurationError: Not a validation value, or a trial on several devices.
        """
        self.monitor, self.mode = self._given or selection_metric(pl_module)
        if not self.monitor.startswith(VALIDATION):
            raise ConfigurationError(f"trials are compared on validation, but --checkpoint.monitor is {self.monitor!r}")
        if trainer.world_size > 1:
            raise ConfigurationError(
                "a trial runs on one device: give --trainer.devices 1, and --jobs for several trials"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the epoch's value, where there was a validation."""
        every = trainer.check_val_every_n_epoch
        if every is not None and (trainer.current_epoch + 1) % every:
            return
        if self.monitor not in trainer.callback_metrics:
            known = nearest(self.monitor, [name for name in trainer.callback_metrics if name.startswith(VALIDATION)])
            raise ConfigurationError(
                f"{self.monitor!r} is not logged, so that trials cannot be compared by it ({known})"
            )
        value = float(trainer.callback_metrics[self.monitor])
        self.values[trainer.current_epoch] = value
        if not math.isfinite(value):
            trainer.should_stop = True
        elif self._go_on is not None and not self._go_on(trainer.current_epoch, value):
            self.pruned = trainer.should_stop = True

    @property
    def best(self) -> tuple[int, float]:
        """The epoch that `mfm fit` would keep, and its value.

        Raises:
            MFMError: No epoch has a number.
        """
        sign = 1 if self.mode == "min" else -1
        kept: tuple[int, float] | None = None
        for epoch, value in self.values.items():
            if math.isfinite(value) and (kept is None or sign * value + self._min_delta < sign * kept[1]):
                kept = epoch, value
        if kept is None:
            raise MFMError(f"{self.monitor} is not a number after {len(self.values)} epochs: training diverged")
        return kept
