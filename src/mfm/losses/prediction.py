"""c_Y(Y, Y^): the cost of a prediction, by task."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from mfm.errors import ConfigurationError, nearest
from mfm.losses.precision import at_least_float32, without_autocast

_ElementwiseLoss = Callable[[Tensor, Tensor], Tensor]


def _l1(prediction: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(prediction, target, reduction="none")


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(prediction, target, reduction="none")


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return F.huber_loss(prediction, target, reduction="none")


def _bce(prediction: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(prediction, target, reduction="none")


def _cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(prediction, target, reduction="none")


_REGRESSION: dict[str, _ElementwiseLoss] = {"l1": _l1, "mse": _mse, "huber": _huber}
_BINARY: dict[str, _ElementwiseLoss] = {"bce": _bce}

PREDICTION_LOSSES: dict[str, dict[str, _ElementwiseLoss]] = {
    "regression": _REGRESSION,
    "binary": _BINARY,
    "multilabel": _BINARY,
    "multiclass": {"cross_entropy": _cross_entropy},
}
"""Losses of each task by name, the task's default first (L1 and cross-entropy are the paper's)."""


def choose_prediction_loss(task: str, name: str | None = None) -> _ElementwiseLoss:
    """Look up an element-wise loss.

    Args:
        task: `regression`, `binary`, `multiclass` or `multilabel`.
        name: One of the task's losses; its default where None.

    Raises:
        ConfigurationError: Unknown task, or a loss that the task does not have; the nearest is named.
    """
    if task not in PREDICTION_LOSSES:
        raise ConfigurationError(f"unknown task {task!r}: {nearest(task, PREDICTION_LOSSES)}")
    losses = PREDICTION_LOSSES[task]
    if name is None:
        return next(iter(losses.values()))
    if name not in losses:
        raise ConfigurationError(f"unknown prediction loss {name!r} for task {task!r}: {nearest(name, losses)}")
    return losses[name]


def prediction_loss(
    prediction: Tensor, target: Tensor, target_mask: Tensor, *, task: str, loss: str | None = None
) -> Tensor:
    """Mean loss over the labels that exist.

    Args:
        prediction: (B, K), logits for classification.
        target: (B, K) float; for `multiclass` (B,) int64 in [0, K). Missing labels may hold anything, NaN included.
        target_mask: Same shape as `target`, bool, False where the label is missing.
        task: See `choose_prediction_loss`.
        loss: See `choose_prediction_loss`.

    Returns:
        Scalar, at least float32; 0, with zero gradients, where every label is missing.

    Raises:
        ConfigurationError: Unknown task or loss, or shapes that do not belong together.
    """
    measure = choose_prediction_loss(task, loss)
    wanted = prediction.shape[:1] if task == "multiclass" else prediction.shape
    if target.shape != wanted or target_mask.shape != wanted:
        raise ConfigurationError(
            f"the model predicts {tuple(prediction.shape)} for task {task!r}, but targets have shape "
            f"{tuple(target.shape)} and their mask {tuple(target_mask.shape)}; "
            "check the corpus' task and the model's output_dim"
        )
    target = target.masked_fill(~target_mask, 0)
    with without_autocast(prediction):
        logits = at_least_float32(prediction)
        losses = measure(logits, target if task == "multiclass" else target.to(logits.dtype))
        return losses.masked_fill(~target_mask, 0.0).sum() / target_mask.sum().clamp(min=1)
