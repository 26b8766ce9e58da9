"""MISA's losses against derivations in numpy, and what absent modalities mean to them."""

import itertools

import numpy as np
import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.losses.misa import MISAObjective, central_moment_discrepancy, orthogonality

RNG = np.random.default_rng(3)
X, Y = RNG.uniform(size=(7, 3)), RNG.uniform(size=(7, 3)) ** 2
X_KNOWN = np.array([1, 1, 0, 1, 1, 0, 1], dtype=bool)
Y_KNOWN = np.array([1, 0, 1, 1, 1, 1, 1], dtype=bool)


def tensors(*arrays):
    return [torch.tensor(array) for array in arrays]


def plain_cmd(x, y, moments):
    found = np.linalg.norm(x.mean(0) - y.mean(0))
    for k in range(2, moments + 1):
        a, b = (np.mean((one - one.mean(0)) ** k, axis=0) for one in (x, y))
        found += np.linalg.norm(a - b)
    return found


def plain_orthogonality(x, y):
    rows = [one - one.mean(0) for one in (x, y)]
    rows = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in rows]
    return sum((rows[0][:, i] @ rows[1][:, j]) ** 2 for i in range(x.shape[1]) for j in range(y.shape[1])) / (
        x.shape[1] * y.shape[1]
    )


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_cmd_is_the_papers(moments):
    found = central_moment_discrepancy(*tensors(X, Y, X_KNOWN, Y_KNOWN), moments=moments)
    assert float(found) == pytest.approx(plain_cmd(X[X_KNOWN], Y[Y_KNOWN], moments))


def test_cmd_of_one_sample_with_itself_is_zero_with_finite_gradients():
    x = torch.rand(6, 2, requires_grad=True)
    everything = torch.ones(6, dtype=torch.bool)
    found = central_moment_discrepancy(x, x.clone(), everything, everything)
    found.backward()
    assert float(found.detach()) == 0
    assert bool(x.grad.isfinite().all())


def test_cmd_of_shifted_points_is_the_shift():
    x = torch.tensor([[0.1], [0.3]], dtype=torch.float64)
    everything = torch.ones(2, dtype=torch.bool)
    assert float(central_moment_discrepancy(x, x + 0.5, everything, everything)) == pytest.approx(0.5)


def test_orthogonality_is_the_squared_frobenius_norm():
    found = orthogonality(*tensors(X, Y, X_KNOWN & Y_KNOWN))
    both = X_KNOWN & Y_KNOWN
    assert float(found) == pytest.approx(plain_orthogonality(X[both], Y[both]), rel=1e-4)


def test_orthogonal_representations_cost_nothing():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    everything = torch.ones(4, dtype=torch.bool)
    assert float(orthogonality(x, y, everything)) == pytest.approx(0, abs=1e-9)
    assert float(orthogonality(x, x, everything)) == pytest.approx(16 / 4, rel=1e-4)


def some_blocks(names=("a", "b", "c")):
    generator = torch.Generator().manual_seed(0)

    def draw():
        return {name: torch.rand(5, 4, generator=generator, dtype=torch.float64) for name in names}

    known = {name: torch.tensor([True, True, place > 0, True, place != 1]) for place, name in enumerate(names)}
    return draw(), draw(), draw(), draw(), known


def test_the_objective_is_the_weighted_sum_of_its_parts():
    vectors, shared, private, rebuilt, known = some_blocks()
    prediction, target = torch.zeros(5, 1), torch.arange(5.0)[:, None]
    mask = torch.ones(5, 1, dtype=torch.bool)
    objective = MISAObjective("regression", similarity=2.0, difference=3.0, reconstruction=5.0)
    total, parts = objective(prediction, target, mask, vectors, shared, private, rebuilt, known)
    own = {name: one.numpy() for name, one in known.items()}
    s, p = ({name: one.numpy() for name, one in block.items()} for block in (shared, private))
    pairs = list(itertools.combinations("abc", 2))
    similarity = np.mean([plain_cmd(s[m][own[m]], s[n][own[n]], 5) for m, n in pairs])
    difference = sum(plain_orthogonality(p[m][own[m]], s[m][own[m]]) for m in "abc")
    difference += sum(plain_orthogonality(p[m][own[m] & own[n]], p[n][own[m] & own[n]]) for m, n in pairs)
    errors = {m: ((rebuilt[m] - vectors[m]).numpy() ** 2)[own[m]].mean() for m in "abc"}
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(
        {
            "prediction": 2.0,
            "similarity": similarity,
            "difference": difference,
            "reconstruction": np.mean(list(errors.values())),
        },
        rel=1e-4,
    )
    assert float(total) == pytest.approx(
        2.0 + 2 * similarity + 3 * difference + 5 * np.mean(list(errors.values())), rel=1e-4
    )


@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=len)
def test_what_was_not_observed_has_no_influence(names):
    blocks = some_blocks(names)
    *representations, known = blocks
    label = torch.zeros(5, 1), torch.ones(5, 1), torch.ones(5, 1, dtype=torch.bool)
    expected = MISAObjective("regression")(*label, *blocks)
    assert ("similarity" in expected.parts) == (len(names) > 1)
    spoiled = [
        {name: one.masked_fill(~known[name][:, None], float("nan")).requires_grad_() for name, one in block.items()}
        for block in representations
    ]
    total, parts = MISAObjective("regression")(*label, *spoiled, known)
    torch.testing.assert_close(parts, expected.parts)
    total.backward()
    assert all(bool(one.grad.isfinite().all()) for block in spoiled for one in block.values())


def test_a_batch_with_nothing_in_it_costs_nothing_but_its_prediction():
    *representations, known = some_blocks()
    nothing = {name: torch.zeros(5, dtype=torch.bool) for name in known}
    label = torch.zeros(5, 1), torch.zeros(5, 1), torch.zeros(5, 1, dtype=torch.bool)
    assert float(MISAObjective("regression")(*label, *representations, nothing).total) == 0


def test_losses_are_float32_under_autocast():
    *representations, known = some_blocks()
    half = [{name: one.bfloat16() for name, one in block.items()} for block in representations]
    label = torch.zeros(5, 1), torch.zeros(5, 1), torch.ones(5, 1, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts = MISAObjective("regression")(*label, *half, known)
    assert {part.dtype for part in (total, *parts.values())} == {torch.float32}


def test_a_negative_weight_is_refused():
    with pytest.raises(ConfigurationError, match="weight of difference is -1"):
        MISAObjective("regression", difference=-1)
