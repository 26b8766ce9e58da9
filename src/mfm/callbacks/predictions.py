"""Collect what a module predicts over a whole split, on any number of processes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mfm.modules.base import Prediction


class PredictionCollector(Callback):
    """Keep the outputs of evaluation steps and hand them over in the file's order.

    Attributes:
        collected: Predictions of the last finished evaluation, on every process; None before.
    """

    def __init__(self) -> None:
        self._batches: list[Prediction] = []
        self.collected: Prediction | None = None

    def _start(self) -> None:
        self._batches = []

    def _add(self, outputs: Any) -> None:
        output = outputs.get("output") if isinstance(outputs, Mapping) else outputs
        if isinstance(output, Prediction):
            self._batches.append(_on_cpu(output))

    def _finish(self, trainer: Trainer) -> None:
        batches = self._batches
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, batches)
            batches = [batch for part in gathered for batch in part]
        self._batches = []
        data = getattr(trainer, "datamodule", None)
        order = [] if data is None else data.evaluation_ids(trainer.state.stage)
        self.collected = _in_order(_joined(batches), order) if batches else None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._start()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch."""
        self._add(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather all batches."""
        self._finish(trainer)

    # the other evaluations do the same
    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end


def _on_cpu(output: Prediction) -> Prediction:
    target = output.target.float() if output.target.is_floating_point() else output.target
    return Prediction(
        list(output.ids),
        output.prediction.detach().float().cpu(),
        target.cpu(),  # 16 bits in training of that precision, which numpy does not have
        output.target_mask.cpu(),
        {name: value.detach().cpu() for name, value in output.codes.items()},
        {name: value.detach().cpu() for name, value in output.factors.items()},
    )


def _joined(batches: list[Prediction]) -> Prediction:
    def cat(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return Prediction(
        [name for batch in batches for name in batch.ids],
        torch.cat([batch.prediction for batch in batches]),
        torch.cat([batch.target for batch in batches]),
        torch.cat([batch.target_mask for batch in batches]),
        cat([batch.codes for batch in batches]),
        cat([batch.factors for batch in batches]),
    )


def _in_order(output: Prediction, order: list[str]) -> Prediction:
    """Sort by the place of each id in `order`; a doubled id keeps its places in the order of appearance."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(order):
        places[name].append(place)
    if len(order) != len(output.ids):
        return output
    ranks = torch.tensor([places[name].pop(0) for name in output.ids])
    index = ranks.argsort()
    return Prediction(
        [output.ids[i] for i in index.tolist()],
        output.prediction[index],
        output.target[index],
        output.target_mask[index],
        {name: value[index] for name, value in output.codes.items()},
        {name: value[index] for name, value in output.factors.items()},
    )
