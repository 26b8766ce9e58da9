"""HSIC against a re-derivation in numpy with explicit matrices, and what holds for any samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.errors import ConfigurationError
from mfm.losses.hsic import HSIC_KERNELS, hsic, is_constant, median_bandwidth, normalized_hsic


def samples(n=30, d=3, e=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = x[:, :1].square() + 0.3 * torch.randn(n, e, generator=generator, dtype=torch.float64)
    return x.to(dtype), y.to(dtype)


def plain_kernel(x, kernel, bandwidth):
    """Pair by pair, with the centring matrix written out."""
    n = len(x)
    if kernel == "linear":
        return np.array([[float(a @ b) for b in x] for a in x])
    distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    if bandwidth is None:
        pairs = np.sort(distances[np.triu_indices(n, 1)])
        bandwidth = pairs[(len(pairs) - 1) // 2]
    return np.exp(-(distances**2) / (2 * bandwidth**2))


def plain_hsic(x, y, kernel, bandwidth=None):
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n
    k, l = (plain_kernel(one.numpy(), kernel, bandwidth) for one in (x, y))  # noqa: E741
    trace = np.trace(k @ h @ l @ h)
    return trace / n**2, trace / (np.linalg.norm(h @ k @ h) * np.linalg.norm(h @ l @ h))


@pytest.mark.parametrize("kernel", HSIC_KERNELS)
@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_equals_the_definition(kernel, bandwidth):
    x, y = samples()
    raw, normalised = plain_hsic(x, y, kernel, bandwidth)
    assert hsic(x, y, kernel=kernel, bandwidth=bandwidth).item() == pytest.approx(raw, rel=1e-10)
    assert normalized_hsic(x, y, kernel=kernel, bandwidth=bandwidth).item() == pytest.approx(normalised, rel=1e-10)


@given(st.integers(2, 20), st.integers(0, 10_000), st.sampled_from(HSIC_KERNELS), st.floats(0.01, 100.0))
@settings(max_examples=30)
def test_normalised_is_in_the_unit_interval_symmetric_and_without_scale(n, seed, kernel, scale):
    x, y = samples(n=n, seed=seed)
    value = normalized_hsic(x, y, kernel=kernel).item()
    assert -1e-12 <= value <= 1 + 1e-12
    assert normalized_hsic(y, x, kernel=kernel).item() == pytest.approx(value, abs=1e-9)
    assert normalized_hsic(scale * x + 5.0, y, kernel=kernel).item() == pytest.approx(value, abs=1e-6)
    assert normalized_hsic(x, x, kernel=kernel).item() == pytest.approx(1.0, abs=1e-9)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert normalized_hsic(x[order], y[order], kernel=kernel).item() == pytest.approx(value, abs=1e-9)


def test_linear_kernel_is_blind_where_rbf_sees():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    y = x.square()
    assert normalized_hsic(x, y, kernel="rbf") > 0.2
    assert normalized_hsic(x, y, kernel="linear") < 0.05


@pytest.mark.parametrize("kernel", HSIC_KERNELS)
def test_samples_that_do_not_take_part_have_no_influence(kernel):
    x, y = samples(n=20)
    keep = torch.arange(20) % 3 != 0
    garbage = x.clone()
    garbage[~keep] = torch.nan
    for function in (hsic, normalized_hsic):
        expected = function(x[keep], y[keep], kernel=kernel)
        torch.testing.assert_close(function(garbage, y, kernel=kernel, weights=keep), expected)


@pytest.mark.parametrize("kernel", HSIC_KERNELS)
def test_gradients(kernel):
    x, y = samples(n=8)
    keep = torch.tensor([1, 1, 0, 1, 1, 1, 0, 1], dtype=torch.bool)

    def loss(a, b):
        # the heuristic's bandwidth is detached by contract, so a numerical gradient needs a fixed one
        return normalized_hsic(a, b, kernel=kernel, bandwidth=1.3, weights=keep) + hsic(a, b, bandwidth=0.9)

    assert torch.autograd.gradcheck(loss, (x.requires_grad_(), y.requires_grad_()))


def test_median_is_detached():
    x, y = samples(n=9)
    x.requires_grad_()
    (with_heuristic,) = torch.autograd.grad(hsic(x, y), x)
    scale = [median_bandwidth(one).item() for one in (x, y)]
    # the kernel of y at its own scale is the kernel of y / scale at scale 1
    (fixed,) = torch.autograd.grad(hsic(x / scale[0], y / scale[1], bandwidth=1.0), x)
    torch.testing.assert_close(with_heuristic, fixed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", HSIC_KERNELS)
@pytest.mark.parametrize("value", [0.0, 1.0 / 3.0, 1234.567])
def test_constant_samples_give_zero_and_zero_gradients(kernel, value, dtype):
    x, y = samples(n=12, dtype=dtype)
    constant = torch.full_like(x, value).requires_grad_()
    assert bool(is_constant(constant))
    for function in (hsic, normalized_hsic):
        result = function(constant, y, kernel=kernel)
        assert result.item() == 0.0
        (gradient,) = torch.autograd.grad(result, constant)
        assert not gradient.any()


def test_a_small_variation_on_a_large_offset_is_not_constant():
    x, _ = samples(n=12)
    assert not bool(is_constant(1000.0 + 1e-6 * x))


@pytest.mark.parametrize("kernel", HSIC_KERNELS)
@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples_give_zero_and_zero_gradients(kernel, n):
    x, y = samples(n=n)
    x.requires_grad_()
    result = normalized_hsic(x, y, kernel=kernel) + hsic(x, y, kernel=kernel)
    assert result.item() == 0.0
    result.backward()
    assert not x.grad.any()
    none = torch.zeros(5, dtype=torch.bool)
    a, b = samples(n=5)
    assert normalized_hsic(a, b, kernel=kernel, weights=none).item() == 0.0


def test_median_of_mostly_equal_samples_falls_back_to_the_mean():
    x = torch.zeros(10, 2, dtype=torch.float64)
    x[0] = 3.0
    assert median_bandwidth(x).item() == pytest.approx(np.sqrt(18.0 * 18 / 90))
    assert median_bandwidth(torch.zeros(5, 2)).item() == 0.0


def test_sixteen_bits_are_computed_in_32():
    x, y = samples(n=16, dtype=torch.bfloat16)
    expected = normalized_hsic(x.float(), y.float())
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = normalized_hsic(x, y)
        assert normalized_hsic(x.double(), y.double()).dtype == torch.float64
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


def test_refusals():
    x, y = samples(n=6)
    with pytest.raises(ConfigurationError, match="did you mean 'linear'"):
        hsic(x, y, kernel="liner")
    with pytest.raises(ConfigurationError, match="bandwidth"):
        hsic(x, y, bandwidth=0.0)
    with pytest.raises(ValueError, match="not \\(n, d\\)"):
        hsic(x, y[:3])
    with pytest.raises(ValueError, match="weights"):
        hsic(x, y, weights=torch.ones(3))
