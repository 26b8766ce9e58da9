"""Prediction and reconstruction costs against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from mfm.errors import ConfigurationError
from mfm.losses import PREDICTION_LOSSES, prediction_loss, reconstruction_loss

torch.manual_seed(0)
P, Y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1]], dtype=torch.bool)


def as_loss(task, name, error):
    e = error.numpy()
    if name == "mse":
        return (e**2).mean()
    if name == "huber":
        return np.where(abs(e) < 1, 0.5 * e**2, abs(e) - 0.5).mean()
    return abs(e).mean()


@pytest.mark.parametrize("name", ["l1", "mse", "huber", None])
def test_regression(name):
    target = Y.masked_fill(~MASK, float("nan"))
    value = prediction_loss(P, target, MASK, task="regression", loss=name)
    assert value.item() == pytest.approx(as_loss("regression", name, (P - Y)[MASK]), rel=1e-12)


@pytest.mark.parametrize(("task", "columns"), [("binary", 1), ("multilabel", 3)])
def test_binary_and_multilabel(task, columns):
    p, mask = P[:, :columns], MASK[:, :columns]
    labels = (Y[:, :columns] > 0).double()
    value = prediction_loss(p, labels.masked_fill(~mask, float("nan")), mask, task=task)
    expected = log_loss(labels[mask].numpy(), torch.sigmoid(p[mask]).numpy(), labels=[0, 1])
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_multiclass():
    labels, mask = torch.tensor([0, 2, 1, -1, 2, 0]), torch.tensor([1, 1, 1, 0, 1, 1], dtype=torch.bool)
    value = prediction_loss(P, labels, mask, task="multiclass")
    expected = log_loss(labels[mask].numpy(), P[mask].softmax(dim=1).numpy(), labels=[0, 1, 2])
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("task", sorted(PREDICTION_LOSSES))
def test_without_labels_the_loss_is_zero_and_has_a_gradient(task):
    for name in PREDICTION_LOSSES[task]:
        p = P.float().requires_grad_()
        shape = (6,) if task == "multiclass" else (6, 3)
        target = torch.full(shape, -7) if task == "multiclass" else torch.full(shape, float("nan"))
        value = prediction_loss(p, target, torch.zeros(shape, dtype=torch.bool), task=task, loss=name)
        assert value == 0
        value.backward()
        assert p.grad.eq(0).all()


@pytest.mark.parametrize("task", sorted(PREDICTION_LOSSES))
def test_prediction_gradients(task):
    p = P.clone().requires_grad_()
    if task == "multiclass":
        target, mask = torch.tensor([0, 2, 1, 0, 2, 0]), MASK[:, 0]
    else:
        target, mask = (Y > 0).double(), MASK
    for name in PREDICTION_LOSSES[task]:
        call = lambda x, name=name: prediction_loss(x, target, mask, task=task, loss=name)  # noqa: E731
        assert torch.autograd.gradcheck(call, (p,))


def test_shapes_never_broadcast():
    mask = torch.ones(6, dtype=torch.bool)
    with pytest.raises(ConfigurationError, match=r"predicts \(6, 3\) .* shape \(6,\)"):
        prediction_loss(P, torch.zeros(6), mask, task="regression")
    with pytest.raises(ConfigurationError, match="check the corpus' task"):
        prediction_loss(P, torch.zeros(6, 1), mask[:, None], task="regression")
    with pytest.raises(ConfigurationError, match="multiclass"):
        prediction_loss(P, torch.zeros(6, 3), MASK, task="multiclass")
    with pytest.raises(ConfigurationError, match="their mask"):
        prediction_loss(P, Y, mask, task="regression")
    with pytest.raises(ValueError, match="differ"):
        reconstruction_loss(torch.zeros(2, 3, 1), torch.zeros(2, 3, 4), torch.tensor([3, 3]))


def test_unknown_names_are_refused():
    with pytest.raises(ConfigurationError, match="unknown task 'regresion': did you mean 'regression'"):
        prediction_loss(P, Y, MASK, task="regresion")
    with pytest.raises(ConfigurationError, match="unknown prediction loss 'hubr' for task 'regression'"):
        prediction_loss(P, Y, MASK, task="regression", loss="hubr")
    with pytest.raises(ConfigurationError, match="unknown prediction loss 'l1' for task 'binary'"):
        prediction_loss(P, Y, MASK, task="binary", loss="l1")
    with pytest.raises(ConfigurationError, match="unknown reconstruction loss 'mes': did you mean 'mse'"):
        reconstruction_loss(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.tensor([3, 3]), loss="mes")


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_reconstruction_is_averaged_over_real_steps_and_features(name):
    x, r = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64)
    lengths = [5, 2, 0]
    errors = np.concatenate([(x - r)[i, :n].numpy().ravel() for i, n in enumerate(lengths)])
    expected = (errors**2).mean() if name == "mse" else abs(errors).mean()
    for garbage in (0.0, float("nan"), float("inf")):
        dirty, own = x.clone(), r.clone().requires_grad_()
        for i, n in enumerate(lengths):
            dirty[i, n:] = garbage
        value = reconstruction_loss(own, dirty, torch.tensor(lengths), loss=name)
        assert value.item() == pytest.approx(expected, rel=1e-12)
        value.backward()
        assert own.grad.isfinite().all()
        assert own.grad[1, 2:].eq(0).all()
    call = lambda a: reconstruction_loss(a, x, torch.tensor(lengths), loss=name)  # noqa: E731
    assert torch.autograd.gradcheck(call, (r.requires_grad_(),))


def test_reconstruction_of_nothing_is_zero_with_a_gradient():
    r = torch.randn(2, 3, 4, requires_grad=True)
    value = reconstruction_loss(r, torch.full((2, 3, 4), float("nan")), torch.tensor([0, 0]))
    assert value == 0
    value.backward()
    assert r.grad.eq(0).all()


def test_sixteen_bit_inputs_are_summed_in_float32():
    r = torch.full((64, 50, 8), 3.0, dtype=torch.float16)  # a float16 sum would overflow
    value = reconstruction_loss(r, torch.zeros(64, 50, 8), torch.full((64,), 50))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(9.0)
    p = torch.full((6, 1), 2.0, dtype=torch.bfloat16)
    assert prediction_loss(p, torch.zeros(6, 1), torch.ones(6, 1, dtype=torch.bool), task="regression").dtype == (
        torch.float32
    )
