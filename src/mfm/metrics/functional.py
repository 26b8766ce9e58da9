"""Definitions of the field's metrics as plain functions of tensors.

Published numbers of this field differ by definition more than by model: whether a label of zero is kept, how a
rounding treats 0.5, whether F1 is weighted. So each function here is one definition, with the inequality it uses.

Every function takes predictions and targets of all samples at once and gives a 0-d float64 tensor on their device.
Rules that hold for all of them:

* `preds` and `target` have N elements each, as (N,) or (N, 1); only `class_*` take logits (N, C).
* `target_mask`, same shape as `target`, is False where a label is missing; those samples do not exist.
* NaN among the predictions or labels that count makes the result NaN, with an `UndefinedMetricWarning`: every
  inequality is false for NaN, so a diverged model would otherwise get the score of a constant one.
* No sample left gives NaN with an `UndefinedMetricWarning`. Labels of one class only are no special case.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ParamSpec

import torch
from torch import Tensor

SIMS_THREE = (-0.1, 0.1)
SIMS_FIVE = (-0.7, -0.1, 0.1, 0.7)


class UndefinedMetricWarning(UserWarning):
    """A metric has no value for these predictions and labels; NaN was given."""


class _Undefined(Exception):
    """Why there is no value; never leaves this module."""


Inputs = ParamSpec("Inputs")


def _nan_where_undefined(function: Callable[Inputs, Tensor]) -> Callable[Inputs, Tensor]:
    @functools.wraps(function)
    def defined(*args: Inputs.args, **kwargs: Inputs.kwargs) -> Tensor:
        try:
            return function(*args, **kwargs)
        except _Undefined as reason:
            message = f"{function.__name__} is undefined and NaN was given: {reason}"
            warnings.warn(message, UndefinedMetricWarning, stacklevel=2)
            return torch.tensor(float("nan"), dtype=torch.float64, device=next(_tensors(args, kwargs)).device)

    return defined


def _tensors(args: Iterable[object], kwargs: Mapping[str, object]) -> Iterator[Tensor]:
    return (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


# ------------------------------------------------------------------------------------------------ regression
@_nan_where_undefined
def mae(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    r"""Mean absolute error, :math:`\frac1N\sum_i|\hat y_i-y_i|`; >= 0, in the labels' unit.

    >>> mae(torch.tensor([1.0, -2.0]), torch.tensor([1.5, -3.0]))
    tensor(0.7500, dtype=torch.float64)
    """
    scores, labels = _valid(preds, target, target_mask)
    return (scores - labels).abs().mean()


@_nan_where_undefined
def pearson(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    r"""Pearson's r, :math:`\frac{\sum_i(\hat y_i-\bar{\hat y})(y_i-\bar y)}{\|\hat y-\bar{\hat y}\|\,\|y-\bar y\|}`.

    In [-1, 1]. NaN, with a warning, where it is undefined: constant predictions, constant labels (one sample
    included), or infinite values.

    >>> pearson(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0]))
    tensor(1., dtype=torch.float64)
    """
    scores, labels = _valid(preds, target, target_mask)
    unit: list[Tensor] = []
    for values, which in zip((scores, labels), ("predictions", "labels"), strict=True):
        if not bool(values.isfinite().all()):
            raise _Undefined(f"the {which} hold infinite values")
        low, high = values.min(), values.max()
        if bool(low == high):
            raise _Undefined(f"the {which} are constant")
        # scaled by a power of two, which rounds nothing: squares of very large or small values stay finite and non-zero
        exponent = math.frexp(max(abs(low.item()), abs(high.item())))[1]
        scaled = values * 2.0 ** min(max(-exponent, -1000), 1000)
        centred = scaled - scaled.mean()
        centred = centred / centred.abs().max()
        unit.append(centred / torch.linalg.vector_norm(centred))
    return (unit[0] * unit[1]).sum().clamp(-1.0, 1.0)


# --------------------------------------------------------------------------- MOSI and MOSEI: sentiment in [-3, 3]
@_nan_where_undefined
def accuracy2_has0(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Two-class accuracy, negative (y < 0) against non-negative (y >= 0), over all samples ("has0").

    Source: evaluation code of MulT (Tsai et al., ACL 2019) and MMSA (Mao et al., ACL 2022), `Has0_acc_2`.

    >>> accuracy2_has0(torch.tensor([-1.0, 0.2, -0.1]), torch.tensor([-2.0, 0.0, 1.0]))
    tensor(0.6667, dtype=torch.float64)
    """
    scores, labels = _valid(preds, target, target_mask)
    return _equality(scores >= 0, labels >= 0)


@_nan_where_undefined
def accuracy2_non0(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Two-class accuracy, y > 0 against the rest, over the samples whose label is not zero ("non0").

    Only the label decides what is dropped; a prediction of exactly zero counts as negative.
    Source: as `accuracy2_has0`, `Non0_acc_2`.

    >>> accuracy2_non0(torch.tensor([-1.0, 0.2, -0.1]), torch.tensor([-2.0, 0.0, 1.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    scores, labels = _non_zero(preds, target, target_mask)
    return _equality(scores > 0, labels > 0)


@_nan_where_undefined
def f1_has0(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """F1 of y < 0 and of y >= 0, weighted by how often each is the label; all samples. See `weighted_f1`."""
    scores, labels = _valid(preds, target, target_mask)
    return weighted_f1(scores >= 0, labels >= 0)


@_nan_where_undefined
def f1_non0(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """F1 of y < 0 and of y > 0, weighted by how often each is the label; samples labelled zero dropped."""
    scores, labels = _non_zero(preds, target, target_mask)
    return weighted_f1(scores > 0, labels > 0)


@_nan_where_undefined
def accuracy7(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Equality after clipping to [-3, 3] and rounding half to even (numpy's rule): 0.5 is 0, 1.5 is 2, -2.5 is -2.

    Micro: every sample weighs the same. Source: `Mult_acc_7` of MMSA, `multiclass_acc` of MulT.

    >>> accuracy7(torch.tensor([0.5, 1.5, 9.0]), torch.tensor([0.0, 2.0, 2.6]))
    tensor(1., dtype=torch.float64)
    """
    return _rounded(preds, target, target_mask, -3, 3)


@_nan_where_undefined
def accuracy5(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Equality after clipping to [-2, 2] and rounding half to even. Source: `Mult_acc_5` of MMSA."""
    return _rounded(preds, target, target_mask, -2, 2)


@_nan_where_undefined
def accuracy3(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Equality after clipping to [-1, 1] and rounding half to even. Source: `Mult_acc_3` of MMSA."""
    return _rounded(preds, target, target_mask, -1, 1)


@_nan_where_undefined
def accuracy7_away(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Equality of MOSEI's own seven classes, which round away from zero: sign(y) * ceil(|y|), at most 3.

    y < -2 is -3; -2 <= y < -1 is -2; -1 <= y < 0 is -1; 0 is 0; 0 < y <= 1 is 1; 1 < y <= 2 is 2; y > 2 is 3.
    A regressor almost never gives exactly 0, so it cannot reach the neutral class under this rule.
    Source: labelling rule published with CMU-MOSEI (Zadeh et al., ACL 2018) in the CMU-Multimodal SDK.

    >>> accuracy7_away(torch.tensor([-0.2, 0.1]), torch.tensor([-0.9, 0.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    scores, labels = _valid(preds, target, target_mask)
    classes = [(values.sign() * values.abs().ceil()).clamp(-3, 3) for values in (scores, labels)]
    return _equality(*classes)


# ------------------------------------------------------------------------------- CH-SIMS: sentiment in [-1, 1]
@_nan_where_undefined
def sims_accuracy2(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Two-class accuracy at y <= 0 against y > 0, all samples (zero is negative, unlike has0).

    Source, as for all `sims_*`: evaluation code of CH-SIMS (Yu et al., ACL 2020) in MMSA.
    """
    return _binned_accuracy(preds, target, target_mask, (0.0,))


@_nan_where_undefined
def sims_accuracy3(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Three-class accuracy: y <= -0.1, -0.1 < y <= 0.1, y > 0.1."""
    return _binned_accuracy(preds, target, target_mask, SIMS_THREE)


@_nan_where_undefined
def sims_accuracy5(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Five-class accuracy: y <= -0.7, (-0.7, -0.1], (-0.1, 0.1], (0.1, 0.7], y > 0.7.

    >>> sims_accuracy5(torch.tensor([-0.7, 0.1]), torch.tensor([-0.8, 0.2]))
    tensor(0.5000, dtype=torch.float64)
    """
    return _binned_accuracy(preds, target, target_mask, SIMS_FIVE)


@_nan_where_undefined
def sims_f1(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """F1 of y <= 0 and of y > 0, weighted by how often each is the label."""
    scores, labels = _valid(preds, target, target_mask)
    return weighted_f1(scores > 0, labels > 0)


def sims_mae(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Mean absolute error after clipping predictions and labels to [-1, 1]."""
    return mae(preds.clamp(-1, 1), target.clamp(-1, 1), target_mask)


def sims_pearson(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Pearson's r after clipping predictions and labels to [-1, 1]."""
    return pearson(preds.clamp(-1, 1), target.clamp(-1, 1), target_mask)


# ------------------------------------------------------------------------- two classes divided by a number
@_nan_where_undefined
def threshold_accuracy(preds: Tensor, target: Tensor, target_mask: Tensor | None = None, *, threshold: float) -> Tensor:
    """Two-class accuracy at y > `threshold` against y <= `threshold`, both for predictions and for labels.

    Source: ICT-MMMO in MFN and MFM (Zadeh et al., AAAI 2018; Tsai et al., ICLR 2019), threshold 3.5.

    >>> threshold_accuracy(torch.tensor([3.5, 4.0]), torch.tensor([4.0, 5.0]), threshold=3.5)
    tensor(0.5000, dtype=torch.float64)
    """
    return _binned_accuracy(preds, target, target_mask, (threshold,))


@_nan_where_undefined
def threshold_f1(preds: Tensor, target: Tensor, target_mask: Tensor | None = None, *, threshold: float) -> Tensor:
    """F1 of y > `threshold` and of the rest, weighted by how often each is the label."""
    scores, labels = _valid(preds, target, target_mask)
    return weighted_f1(_bins(scores, (threshold,)), _bins(labels, (threshold,)))


# --------------------------------------------------------------------------------------------------- classes
@_nan_where_undefined
def class_accuracy(logits: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Share of samples whose largest logit is the label's (micro; the first of equal logits wins).

    Args:
        logits: (N, C).
        target: (N,) or (N, 1) class indices.
        target_mask: Same shape as `target`, or None.

    >>> class_accuracy(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    tensor(0.5000, dtype=torch.float64)
    """
    return _equality(*_valid_classes(logits, target, target_mask))


@_nan_where_undefined
def class_f1(logits: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """F1 of each class (largest logit), weighted by how often it is the label. Shapes as `class_accuracy`."""
    return weighted_f1(*_valid_classes(logits, target, target_mask))


@_nan_where_undefined
def binary_accuracy(logits: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Two-class accuracy of one logit: class 1 when logit > 0, that is probability > 0.5; labels are 0 or 1.

    >>> binary_accuracy(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]))
    tensor(1., dtype=torch.float64)
    """
    scores, labels = _valid(logits, target, target_mask)
    return _equality(scores > 0, labels > 0.5)


@_nan_where_undefined
def binary_f1(logits: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """F1 of class 0 and of class 1 (logit > 0), weighted by how often each is the label.

    Source: per-emotion F1 of IEMOCAP in MulT's evaluation code.
    """
    scores, labels = _valid(logits, target, target_mask)
    return weighted_f1(scores > 0, labels > 0.5)


# ------------------------------------------------------------------------------------------ POM: ratings 1 to 7
@_nan_where_undefined
def trait_accuracy7(preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> Tensor:
    """Equality of ratings after clipping to [1, 7] and rounding half to even.

    Source: POM in MFN and MFM (seven classes per speaker trait).

    >>> trait_accuracy7(torch.tensor([0.2, 4.5]), torch.tensor([1.0, 5.0]))
    tensor(0.5000, dtype=torch.float64)
    """
    return _rounded(preds, target, target_mask, 1, 7)


# ------------------------------------------------------------------------------------------- shared definitions
def weighted_f1(preds: Tensor, target: Tensor) -> Tensor:
    r"""Mean of the classes' F1, weighted by support: :math:`\sum_c \frac{n_c}{N}\frac{2TP_c}{2TP_c+FP_c+FN_c}`.

    :math:`n_c` counts the labels of class c. Equal to `sklearn.metrics.f1_score(average="weighted")`: a class that is
    predicted and never a label weighs nothing, one that is a label and never predicted scores 0.

    Args:
        preds: (N,) class indices or booleans, N >= 1.
        target: (N,), the same.

    >>> weighted_f1(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    tensor(0.6667, dtype=torch.float64)
    """
    total = torch.zeros((), dtype=torch.float64, device=preds.device)
    for label in torch.tensor(sorted(set(target.tolist())), device=target.device):
        predicted, actual = preds == label, target == label
        hits = (predicted & actual).sum().double()
        support = actual.sum().double()
        total = total + support * 2 * hits / (predicted.sum() + support)  # 2TP + FP + FN = predicted + support
    return total / target.numel()


def _equality(preds: Tensor, target: Tensor) -> Tensor:
    return (preds == target).double().mean()


def _rounded(preds: Tensor, target: Tensor, mask: Tensor | None, low: int, high: int) -> Tensor:
    scores, labels = _valid(preds, target, mask)
    return _equality(*(values.clamp(low, high).round() for values in (scores, labels)))  # torch rounds half to even


def _bins(values: Tensor, boundaries: tuple[float, ...]) -> Tensor:
    """Index of the right-closed interval of each value, compared in float32.

    Labels are float32 in most files and in every batch, and 0.1 as float32 is greater than 0.1 as float64: compared
    in double precision a label on a boundary would change its class.
    """
    return torch.bucketize(values.float(), torch.tensor(boundaries, dtype=torch.float32, device=values.device))


def _binned_accuracy(preds: Tensor, target: Tensor, mask: Tensor | None, boundaries: tuple[float, ...]) -> Tensor:
    scores, labels = _valid(preds, target, mask)
    return _equality(_bins(scores, boundaries), _bins(labels, boundaries))


def _valid(preds: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The samples that count as two (n,) float64 tensors, neither empty nor NaN."""
    for what, values in (("preds", preds), ("target", target), ("target_mask", mask)):
        if values is not None and (values.ndim == 0 or values.numel() != values.shape[0]):
            raise ValueError(f"{what} must be (N,) or (N, 1), got {tuple(values.shape)}")
        if values is not None and values.numel() != target.numel():
            raise ValueError(f"{what} has {values.numel()} elements and target {target.numel()}")
    scores, labels = preds.detach().reshape(-1).double(), target.detach().reshape(-1).double()
    if mask is not None:
        kept = mask.reshape(-1).bool()
        scores, labels = scores[kept], labels[kept]
    if labels.numel() == 0:
        raise _Undefined("there is no labelled sample")
    if bool(scores.isnan().any()):
        raise _Undefined(f"{int(scores.isnan().sum())} of {len(scores)} predictions are NaN")
    if bool(labels.isnan().any()):
        raise _Undefined(f"{int(labels.isnan().sum())} of {len(labels)} labels are NaN")
    return scores, labels


def _non_zero(preds: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    scores, labels = _valid(preds, target, mask)
    kept = labels != 0
    if not bool(kept.any()):
        raise _Undefined("every label is zero")
    return scores[kept], labels[kept]


def _valid_classes(logits: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `_valid` for logits (N, C): predicted and actual class index, each (n,)."""
    if logits.ndim != 2:
        raise ValueError(f"logits must be (N, C), got {tuple(logits.shape)}")
    if logits.shape[0] == 0:
        raise _Undefined("there is no labelled sample")
    largest = logits.detach().amax(dim=1)  # NaN wherever a logit is
    _, labels = _valid(largest, target, mask)
    chosen = logits.detach().argmax(dim=1)
    return (chosen if mask is None else chosen[mask.reshape(-1).bool()]), labels.long()
