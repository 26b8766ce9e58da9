"""NOCCO: what it sees that HSIC does not, and what holds for any samples; its value is checked in test_independence."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.errors import ConfigurationError
from mfm.losses.hsic import normalized_hsic
from mfm.losses.nocco import nocco


def draws(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_dependence_fades_more_slowly_than_with_hsic_as_its_direction_shrinks():
    label, noise, other = draws(200, 1, 0), draws(200, 6, 1), draws(200, 1, 2)

    def excess(measure, scale):
        hidden = torch.cat([noise[:, :5], scale * (label + 0.1 * noise[:, 5:])], dim=1)
        independent = torch.cat([noise[:, :5], scale * other], dim=1)
        return float(measure(label, hidden) - measure(label, independent))

    left = {measure: excess(measure, 0.3) / excess(measure, 1.0) for measure in (nocco, normalized_hsic)}
    assert left[nocco] > 2 * left[normalized_hsic] > 0


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(4, 24), d=st.integers(1, 4), e=st.integers(1, 4), seed=st.integers(0, 99), scale=st.floats(0.01, 99)
)
def test_symmetric_within_bounds_and_blind_to_scale_and_place(n, d, e, seed, scale):
    x, y = draws(n, d, seed), draws(n, 2, seed + 100)
    value = nocco(x, y)
    assert 0 <= value <= 1
    torch.testing.assert_close(value, nocco(y, x))
    torch.testing.assert_close(value, nocco(scale * x + 3.0, y), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(nocco(x, x), torch.ones((), dtype=torch.float64))


def test_what_does_not_take_part_has_no_influence():
    x, y = draws(12, 2, 0), draws(12, 3, 1)
    mask = torch.arange(12) % 3 > 0
    expected = nocco(x[mask], y[mask])
    x[~mask], y[~mask] = torch.nan, 1e30
    torch.testing.assert_close(nocco(x, y, weights=mask), expected)


@pytest.mark.parametrize("constant", [torch.zeros(8, 2), torch.full((8, 2), 3.7)])
def test_a_constant_tells_nothing(constant):
    x = draws(8, 2, 0).requires_grad_()
    value = nocco(x, constant.double())
    value.backward()
    assert value == 0
    assert x.grad.eq(0).all()


def test_gradients():
    x, y = draws(6, 2, 0).requires_grad_(), draws(6, 2, 1).requires_grad_()

    def value(a, b):  # the median heuristic has no gradient, so that it must not move
        return nocco(a, b)

    value(x, y).backward()
    step = 1e-6
    numeric = np.zeros((6, 2))
    for row in range(6):
        for column in range(2):
            moved = x.detach().clone()
            moved[row, column] += step
            numeric[row, column] = (float(_fixed(moved, x, y)) - float(_fixed(x.detach(), x, y))) / step
    np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=1e-3, atol=1e-5)


def _fixed(moved, x, y):
    """NOCCO of moved samples with the bandwidths of x and y, in plain numpy."""
    n = len(moved)
    centre = np.eye(n) - 1.0 / n

    def operator(a, like):
        pairs = np.sort(np.linalg.norm(like[:, None] - like[None], axis=2)[~np.eye(n, dtype=bool)])
        bandwidth = pairs[(len(pairs) - 1) // 2]
        squared = ((a[:, None] - a[None]) ** 2).sum(-1)
        gram = centre @ np.exp(-squared / (2 * bandwidth**2)) @ centre
        return gram @ np.linalg.inv(gram + 0.01 * n * np.eye(n))

    own, other = y.detach().numpy(), x.detach().numpy()
    r, q = operator(moved.numpy(), other), operator(own, own)
    return np.trace(r @ q) / (np.linalg.norm(r) * np.linalg.norm(q))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_an_impossible_regularization_is_refused(value):
    with pytest.raises(ConfigurationError, match="regularization of NOCCO"):
        nocco(draws(4, 1, 0), draws(4, 1, 1), regularization=value)
