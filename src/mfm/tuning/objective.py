"""What a trial is worth: a training with its values, scored on validation or on folds."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Trainer

from mfm.data.folds import video_folds, without_test
from mfm.data.records import CorpusData
from mfm.datamodules import AffectDataModule
from mfm.errors import MFMError
from mfm.modules.base import AffectModule
from mfm.tuning.curve import ValidationCurve
from mfm.tuning.space import SearchSpace, with_values
from mfm.tuning.study import ERROR, RECORD, WORKER, worker_name

if TYPE_CHECKING:
    from optuna import Trial


class Training(NamedTuple):
    """A training that is ready to begin."""

    module: AffectModule
    data: AffectDataModule
    trainer: Trainer


Build = Callable[[Mapping[str, Any], ValidationCurve], Training]
"""Makes a training of a configuration, seeded as `mfm fit` seeds it; the callback is to be among the trainer's."""


class Objective:
    """The objective of a study: the best epoch's validation value, or the mean of that over folds.

    Args:
        build: Makes a training.
        config: The configuration that trials vary.
        space: What they vary.
        folds: Number of folds over the videos of training and validation; 0 trains and validates as the file says.
        seed: Of the folds.
    """

    def __init__(self, build: Build, config: Mapping[str, Any], space: SearchSpace, *, folds: int, seed: int) -> None:
        self._build, self._config, self._space = build, config, space
        self._folds, self._seed = folds, seed

    def __call__(self, trial: Trial) -> float:
        """Run a trial and record how it went.

        Raises:
            TrialPruned: The pruner ended it.
            KeyboardInterrupt: The user did.
            Exception: It failed; why is among the trial's attributes.
        """
        from optuna import TrialPruned

        trial.set_user_attr(WORKER, worker_name())
        record: dict[str, Any] = {}
        start = time.monotonic()
        try:
            return self._score(self._space.suggest(trial), trial, record)
        except TrialPruned:
            raise
        except SystemExit as error:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from error
        except Exception as error:
            trial.set_user_attr(ERROR, describe(error))
            raise
        finally:
            trial.set_user_attr(RECORD, {**record, "seconds": round(time.monotonic() - start, 2)})
            if torch.cuda.is_available():  # trainers and modules refer to each other, and hold the device's memory
                gc.collect()
                torch.cuda.empty_cache()

    def _score(self, values: Mapping[str, Any], trial: Trial, record: dict[str, Any]) -> float:
        from optuna import TrialPruned

        config = with_values(self._config, values)

        def go_on(step: int, value: float) -> bool:
            trial.report(value, step)
            return not trial.should_prune()

        if not self._folds:
            curve = self.train(config, None, record, go_on)
            if curve.pruned:
                raise TrialPruned
            return curve.best[1]
        scores: list[float] = []
        for fold in range(self._folds):
            scores.append(self.train(config, fold, record).best[1])
            mean = math.fsum(scores) / len(scores)
            if not go_on(fold, mean) and fold < self._folds - 1:
                raise TrialPruned
        return mean

    def train(
        self,
        config: Mapping[str, Any],
        fold: int | None,
        record: dict[str, Any],
        go_on: Callable[[int, float], bool] | None = None,
    ) -> ValidationCurve:
        """Train once.

        Args:
            config: The whole configuration.
            fold: Which fold to validate on; None for the file's own validation split.
            record: Takes the number of parameters and, for each training, epochs and the best one's number.
            go_on: See `ValidationCurve`.
        """
        min_delta = (config.get("checkpoint") or {}).get("min_delta") or 0.0
        curve = ValidationCurve(own_monitor(config), min_delta, go_on)
        module, data, trainer = self.prepared(config, curve, fold)
        trainer.fit(module, datamodule=data)
        record["parameters"] = sum(parameter.numel() for parameter in module.parameters())
        record.setdefault("epochs", []).append(len(curve.values))
        record.setdefault("best_epoch", []).append(curve.best[0])
        return curve

    def prepared(self, config: Mapping[str, Any], curve: ValidationCurve, fold: int | None) -> Training:
        """A training that has no test split to look at."""
        training = self._build(config, curve)
        training.data.corpus_data = self.seen(training.data.corpus_data, fold)
        return training

    def seen(self, data: CorpusData, fold: int | None) -> CorpusData:
        """What of a corpus a training may see."""
        return without_test(data) if fold is None else video_folds(data, self._folds, self._seed)[fold]


def own_monitor(config: Mapping[str, Any]) -> Any:
    """Name and direction of the value that the configuration selects epochs by; None for the corpus' own."""
    selection = config.get("checkpoint") or {}
    return (selection["monitor"], selection["mode"]) if selection.get("monitor") else None


def describe(error: BaseException) -> str:
    """An error in one line: our own sentences as they are, others with their type."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, MFMError) else f"{type(error).__name__}: {text}"
