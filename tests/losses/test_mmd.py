"""MMD against its definition, pair by pair."""

import numpy as np
import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.losses import KERNELS, mmd

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)


def naive_kernel(name, a, b):
    """(N, P) similarities from all N x P x d differences."""
    d = a.shape[1]
    squared = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    if name == "original":
        return np.exp(-((a[:, None, :] - b[None, :, :]) ** 2).mean(axis=2) / d)
    if name == "rbf":
        return np.mean([np.exp(-squared / (2 * s * d)) for s in SCALES], axis=0)
    return np.mean([2 * s * d / (2 * s * d + squared) for s in SCALES], axis=0)


def naive_mmd(name, z, p, *, unbiased):
    zz, zp, pp = naive_kernel(name, z, z), naive_kernel(name, z, p), naive_kernel(name, p, p)
    if not unbiased:
        return zz.mean() - 2 * zp.mean() + pp.mean()
    n, m = len(z), len(p)
    within_z = (zz.sum() - np.trace(zz)) / (n * (n - 1))
    within_p = (pp.sum() - np.trace(pp)) / (m * (m - 1))
    return within_z - 2 * zp.mean() + within_p


def draws(rows, dim, seed, dtype=torch.float64):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize(("rows", "dim", "shift"), [(2, 1, 0.0), (17, 5, 1.0), (40, 64, 0.3), (9, 3, 100.0)])
def test_equals_the_naive_formula(kernel, unbiased, rows, dim, shift):
    z, p = draws(rows, dim, 0) * 0.7 + shift, draws(rows + 3, dim, 1)
    expected = naive_mmd(kernel, z.numpy(), p.numpy(), unbiased=unbiased)
    torch.testing.assert_close(mmd(z, p, kernel=kernel, unbiased=unbiased).item(), expected, rtol=1e-10, atol=1e-12)
    single = mmd(z.float(), p.float(), kernel=kernel, unbiased=unbiased)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.item(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_rows_without_weight_are_as_if_they_were_not_there(kernel, unbiased):
    z, p = draws(9, 4, 0), draws(11, 4, 1)
    mask = torch.tensor([True, False, True, True, False, True, True, False, True])
    expected = naive_mmd(kernel, z[mask].numpy(), p.numpy(), unbiased=unbiased)
    z[~mask] = float("nan")
    z.requires_grad_()
    actual = mmd(z, p, kernel=kernel, unbiased=unbiased, weights=mask)
    torch.testing.assert_close(actual.item(), expected, rtol=1e-10, atol=1e-12)
    actual.backward()
    assert z.grad[~mask].eq(0).all()
    assert z.grad[mask].ne(0).all()


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_weights_count_as_repeated_rows(kernel):
    z, p = draws(3, 2, 0), draws(5, 2, 1)
    repeated = torch.cat([z[:1], z[1:2], z[1:2], z[2:]])
    weighted = mmd(z, p, kernel=kernel, weights=torch.tensor([1.0, 2.0, 1.0]))
    torch.testing.assert_close(weighted, mmd(repeated, p, kernel=kernel))


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_too_few_rows_give_zero_with_a_gradient(kernel):
    p = draws(4, 3, 1)
    for rows, unbiased in ((0, False), (0, True), (1, True)):
        z = draws(4, 3, 0).requires_grad_()
        value = mmd(z, p, kernel=kernel, unbiased=unbiased, weights=torch.arange(4) < rows)
        assert value == 0
        value.backward()
        assert z.grad.eq(0).all()
    one = draws(1, 3, 0).requires_grad_()
    assert mmd(one, p[:1], kernel=kernel, unbiased=True) == 0
    assert mmd(one, p[:1], kernel=kernel) > 0


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_unbiased_estimate_averages_to_zero_on_equal_distributions(kernel):
    values = np.array(
        [mmd(draws(24, 6, s), draws(24, 6, s + 1000), kernel=kernel, unbiased=True).item() for s in range(200)]
    )
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert values.min() < 0 < values.max()


def test_the_authors_kernel_is_nearly_flat_and_ours_are_not():
    """What a total collapse to one point costs at d = 64; population values in closed form."""
    d = 64
    collapsed, prior = torch.zeros(4, d, dtype=torch.float64), draws(3000, d, 0)

    def closed_form(c):  # kernel exp(-||a-b||^2 / c)
        return 1 - 2 * (1 + 2 / c) ** (-d / 2) + (1 + 4 / c) ** (-d / 2)

    assert closed_form(d * d) == pytest.approx(2.5e-4, abs=0.2e-4)
    assert closed_form(d) == pytest.approx(0.40, abs=0.01)
    original = mmd(collapsed, prior, kernel="original", unbiased=True).item()
    assert original == pytest.approx(closed_form(d * d), rel=0.05)
    rbf = mmd(collapsed, prior, kernel="rbf", unbiased=True).item()
    assert rbf == pytest.approx(np.mean([closed_form(2 * s * d) for s in SCALES]), rel=0.02)
    assert rbf > 0.1
    assert mmd(collapsed, prior, kernel="imq", unbiased=True) > 0.05


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_gradients(kernel, unbiased):
    z, p = draws(5, 3, 0).requires_grad_(), draws(6, 3, 1)
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: mmd(x, p, kernel=kernel, unbiased=unbiased), (z,))
    assert torch.autograd.gradcheck(lambda x: mmd(x, p, kernel=kernel, unbiased=unbiased, weights=weights), (z,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_in_float32(dtype):
    z, p = (draws(30, 16, 0) + 5).to(dtype), draws(30, 16, 1, torch.float32)
    expected = mmd(z.double(), p.double()).item()
    with torch.autocast("cpu", dtype=dtype):
        value = mmd(z, p)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.item(), expected, rtol=1e-5, atol=1e-6)


def test_no_tensor_of_all_pairs_times_dimensions():
    """At N = 300 and d = 200 the largest tensor that is computed with stays at N x N."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    z = draws(300, 200, 0).requires_grad_()
    with Watch():
        mmd(z, draws(300, 200, 1)).backward()
    assert largest <= 300 * 300


def test_unknown_kernels_and_shapes_are_refused():
    with pytest.raises(ConfigurationError, match="unknown MMD kernel 'rbff': did you mean 'rbf'"):
        mmd(draws(3, 2, 0), draws(3, 2, 1), kernel="rbff")
    with pytest.raises(ValueError, match=r"\(3, 2\) and prior \(3, 4\)"):
        mmd(draws(3, 2, 0), draws(3, 4, 1))
