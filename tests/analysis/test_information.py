"""Information ratios against plain numpy, known answers, and the same by blocks."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from mfm.analysis.information import (
    _PAIRS,
    _bootstrap,
    _centred,
    _counts,
    _linear_bootstrap,
    information_ratio,
    kernel_products,
    summarize_steps,
)
from mfm.errors import ConfigurationError, DataFormatError
from mfm.losses.hsic import kernel_matrix, median_bandwidth


def world(n=60, seed=0, share=0.5, width=5):
    """F_y, F_ai and a reconstruction that F_y feeds with weight `share`."""
    generator = torch.Generator().manual_seed(seed)
    f_y, f_i = (torch.randn(n, 3, generator=generator, dtype=torch.float64).relu() for _ in range(2))
    mix = torch.randn(3, width, generator=generator, dtype=torch.float64)
    return f_y, f_i, torch.tanh(share * f_y @ mix + (1 - share) * f_i @ mix)


def plain_kernel(x, kernel, factor=1.0):
    n = len(x)
    h = np.eye(n) - 1.0 / n
    distances = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    pairs = np.sort(distances[np.triu_indices(n, 1)])
    median = factor * pairs[(len(pairs) - 1) // 2]
    matrix = x @ x.T if kernel == "linear" else np.exp(-(distances**2) / (2 * median**2))
    return h @ matrix @ h


def plain_normalised(k, l):  # noqa: E741
    return np.trace(k @ l) / (np.linalg.norm(k) * np.linalg.norm(l))


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_equals_a_plain_derivation(kernel, factor):
    vectors = world(n=25)
    found = information_ratio(*vectors, kernel=kernel, bandwidth=factor, resamples=0, permutations=39, seed=7)
    y, i, x = (plain_kernel(one.numpy(), kernel, factor) for one in vectors)
    assert found.shared.value == pytest.approx(plain_normalised(y, x), rel=1e-9)
    assert found.own.value == pytest.approx(plain_normalised(i, x), rel=1e-9)
    assert found.ratio == pytest.approx(plain_normalised(y, x) / plain_normalised(i, x), rel=1e-9)
    generator = torch.Generator().manual_seed(7)
    torch.randperm(25, generator=generator)  # the subset for resampling comes first
    orders = [torch.randperm(25, generator=generator).numpy() for _ in range(39)]
    for factor_kernel, dependence in ((y, found.shared), (i, found.own)):
        null = np.array([plain_normalised(factor_kernel, x[np.ix_(order, order)]) for order in orders])
        assert dependence.chance == pytest.approx(null.mean(), rel=1e-9)
        assert dependence.p_value == (1 + (null >= dependence.value).sum()) / 40


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_blocks_equal_the_whole(kernel):
    vectors = world(n=150, width=40)
    blocks = information_ratio(*vectors, kernel=kernel, dense=40, memory=50_000, resamples=50, permutations=9)
    scales = blocks.bandwidths or (1.0, 1.0, 1.0)
    y, i, x = (_centred(kernel_matrix(one, one, kernel, scale)) for one, scale in zip(vectors, scales, strict=True))
    assert blocks.shared.value == pytest.approx(float((y * x).sum() / y.norm() / x.norm()), abs=1e-9)
    assert blocks.own.value == pytest.approx(float((i * x).sum() / i.norm() / x.norm()), abs=1e-9)
    assert blocks.permuted_samples == 40
    assert "of 40 of them" in blocks.notes[-1]
    whole = information_ratio(*vectors, kernel=kernel, resamples=50, permutations=99)
    assert whole.notes == ()
    # the bandwidth is of 40 samples there and of all here
    assert blocks.ratio == pytest.approx(whole.ratio, rel=0.1 if kernel == "rbf" else 1e-9)


@pytest.mark.parametrize("memory", [1, 10_000, 2**28])
def test_memory_changes_no_sum(memory):
    vectors = list(world(n=37))
    scales = [float(median_bandwidth(one)) for one in vectors]
    kernels = [_centred(kernel_matrix(one, one, "rbf", scale)) for one, scale in zip(vectors, scales, strict=True)]
    expected = torch.stack([(kernels[a] * kernels[b]).sum(dim=1) for a, b in _PAIRS])
    torch.testing.assert_close(kernel_products(vectors, scales, "rbf", memory), expected, rtol=1e-9, atol=1e-12)


def test_bootstrap_sums_equal_resampled_matrices_without_pairs_of_copies():
    kernels = [_centred(kernel_matrix(one, one, "rbf", 1.0)) for one in world(n=12)]
    counts = _counts(4, 12, torch.Generator().manual_seed(3))
    assert counts.sum(dim=1).tolist() == [12.0] * 4
    draws = _bootstrap(kernels, 4, torch.Generator().manual_seed(3))
    for weights, draw in zip(counts, draws, strict=True):
        index = np.repeat(np.arange(12), weights.int().numpy())
        drawn = [kernel.numpy()[np.ix_(index, index)] for kernel in kernels]
        h = np.eye(12) - 1.0 / 12
        copies = index[:, None] == index
        for (a, b), value in zip(_PAIRS, draw.tolist(), strict=True):
            everything = np.trace(drawn[a] @ h @ drawn[b] @ h)
            unwanted = (drawn[a] * drawn[b])[copies & ~np.eye(12, dtype=bool)].sum()
            assert value == pytest.approx(everything - unwanted, rel=1e-9)


def test_linear_bootstrap_approaches_the_exact_one():
    kernels = [_centred(kernel_matrix(one, one, "rbf", 2.0)) for one in world(n=400)]
    influence = torch.stack([(kernels[a] * kernels[b]).sum(dim=1) for a, b in _PAIRS])
    exact = _bootstrap(kernels, 300, torch.Generator().manual_seed(1))
    linear = _linear_bootstrap(influence, 300, torch.Generator().manual_seed(1), chunk=300)
    torch.testing.assert_close(linear.std(dim=0), exact.std(dim=0), rtol=0.1, atol=0.0)
    assert torch.corrcoef(torch.stack([linear[:, 0], exact[:, 0]]))[0, 1] > 0.97


def test_independent_factors_have_uniform_p_values():
    found = []
    for seed in range(150):
        f_y, f_i, _ = world(n=24, seed=seed)
        found.append(information_ratio(f_y, f_i, f_i @ torch.ones(3, 2).double(), resamples=0, permutations=99).shared)
    # p-values are multiples of 1/100: spread them evenly within their cell
    spread = np.array([one.p_value for one in found]) - np.random.default_rng(0).uniform(0, 0.01, 150)
    assert kstest(spread, "uniform").pvalue > 0.01
    values = np.array([[one.value, one.chance] for one in found]).mean(axis=0)
    assert values[0] == pytest.approx(values[1], rel=0.05)


def test_functional_dependence_has_small_p_values():
    for seed in range(5):
        f_y, f_i, _ = world(n=60, seed=seed)
        found = information_ratio(f_y, f_i, (3.0 * f_y).sin(), resamples=50, permutations=199)
        assert found.shared.p_value == 1 / 200
        assert found.own.value < 0.5 * found.shared.value
        assert found.ratio > 2


def test_ratio_grows_with_what_the_shared_factor_feeds_and_lies_in_its_interval():
    ratios = [information_ratio(*world(n=200, share=share), permutations=9) for share in (0.2, 0.5, 0.8)]
    assert ratios[0].ratio < ratios[1].ratio < ratios[2].ratio
    for one in ratios:
        assert one.low < one.ratio < one.high


def test_interval_covers_the_value_of_many_samples():
    population = information_ratio(*world(n=3000, seed=1), dense=1500, resamples=0, permutations=1).ratio
    everything = world(n=3000, seed=1)
    covered = 0
    for start in range(0, 3000, 150):
        one = information_ratio(*(part[start : start + 150] for part in everything), resamples=200, permutations=1)
        covered += one.low <= population <= one.high
    assert covered >= 16  # of 20 at 95 %


def test_interval_is_open_where_the_own_factor_feeds_nothing():
    f_y, f_i, _ = world(n=60, seed=0)
    found = information_ratio(f_y, f_i, (3.0 * f_y[:, :1]).sin(), resamples=200, permutations=99)
    assert found.own.p_value > 0.05
    assert any("divides by next to nothing" in note for note in found.notes)
    assert 0 < found.low < found.ratio < found.high == np.inf


def test_seed_decides_and_the_global_generator_is_left_alone():
    vectors = world(n=30)
    state = torch.get_rng_state()
    first = information_ratio(*vectors, resamples=20, permutations=20, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert information_ratio(*vectors, resamples=20, permutations=20, seed=4) == first
    assert information_ratio(*vectors, resamples=20, permutations=20, seed=5) != first


@pytest.mark.parametrize("dense", [1000, 10])
@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_constant_factors_are_named(kernel, dense):
    f_y, f_i, x = world(n=20)
    options = {"kernel": kernel, "dense": dense, "resamples": 20, "permutations": 9}
    nothing = information_ratio(torch.full_like(f_y, 1 / 3), f_i, x, **options)
    assert (nothing.ratio, nothing.shared.value, nothing.shared.p_value) == (0.0, 0.0, 1.0)
    assert nothing.own.value > 0
    assert "F_y is the same" in nothing.notes[0]
    undefined = information_ratio(f_y, torch.full_like(f_i, 0.7), x, **options)
    assert np.isnan([undefined.ratio, undefined.low, undefined.high]).all()
    assert (undefined.own.value, undefined.own.p_value) == (0.0, 1.0)
    assert undefined.shared.value > 0
    flat = information_ratio(f_y, f_i, torch.full_like(x, 0.1), **options)
    assert np.isnan(flat.ratio)
    assert flat.shared.value == flat.own.value == 0.0
    assert any("reconstruction is the same" in note for note in flat.notes)


def test_refusals():
    f_y, f_i, x = world(n=6)
    with pytest.raises(DataFormatError, match="at least 4 samples that have the modality, and there are 3"):
        information_ratio(f_y[:3], f_i[:3], x[:3])
    for options, match in (
        ({"kernel": "rfb"}, "did you mean 'rbf'"),
        ({"bandwidth": 0.0}, "bandwidth is 0.0"),
        ({"resamples": -1}, "bootstrap draws is -1"),
        ({"permutations": 0}, "permutations is 0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"dense": 3}, "at least 4"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            information_ratio(f_y, f_i, x, **options)


def test_summaries_have_no_padding():
    x = torch.arange(24.0).reshape(2, 4, 3)
    x[0, 2:] = torch.nan
    mean = summarize_steps(x, torch.tensor([2, 4]), "mean")
    torch.testing.assert_close(mean, torch.stack([x[0, :2].mean(dim=0), x[1].mean(dim=0)]))
    flat = summarize_steps(x, torch.tensor([2, 2]), "flatten")
    torch.testing.assert_close(flat, x[:, :2].reshape(2, 6))
    with pytest.raises(ConfigurationError, match="2 to 4 steps"):
        summarize_steps(x, torch.tensor([2, 4]), "flatten")
    with pytest.raises(ConfigurationError, match="did you mean 'flatten'"):
        summarize_steps(x, torch.tensor([2, 4]), "flaten")
