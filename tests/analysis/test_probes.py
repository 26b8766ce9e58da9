"""Probes against scikit-learn and against answers that are known."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from mfm.analysis.probes import PENALTIES, PROBES, fold_numbers, held_out, mlp, r2, ridge
from mfm.errors import ConfigurationError


def data(seed=0, samples=120, inputs=6):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((samples, inputs)) * 3.0 + 1.0
    noise = generator.standard_normal((samples, 3)) * np.array([0.01, 2.0, 30.0])
    return x, x @ generator.standard_normal((inputs, 3)) + noise


def test_ridge_is_scikit_learns_with_a_penalty_an_output():
    x, y = data()
    new, _ = data(1, 40)
    scaler = StandardScaler().fit(x)
    reference = RidgeCV(PENALTIES, alpha_per_target=True).fit(scaler.transform(x), y)
    np.testing.assert_allclose(ridge(x, y, new), reference.predict(scaler.transform(new)), rtol=1e-8, atol=1e-8)
    assert len(set(reference.alpha_)) > 1  # outputs of different noise do choose different penalties


def test_ridge_with_fewer_samples_than_inputs_and_constant_inputs():
    generator = np.random.default_rng(0)
    x = np.c_[generator.standard_normal((15, 40)), np.ones(15)]
    y = x[:, :1] + 5.0
    new = np.c_[generator.standard_normal((4, 40)), np.full(4, 1e6)]
    read = ridge(x, y, new)
    assert np.isfinite(read).all()
    assert np.abs(read - 5.0).max() < 10.0  # the constant, huge elsewhere, says nothing


@pytest.mark.parametrize("probe", list(PROBES))
def test_affine_changes_of_the_inputs_change_nothing(probe):
    x, y = data()
    np.testing.assert_allclose(
        PROBES[probe](x, y, x, 0), PROBES[probe](x * np.arange(1, 7) - 4.0, y, x * np.arange(1, 7) - 4.0, 0), atol=1e-3
    )


def test_r2_is_scikit_learns_and_a_constant_has_none():
    generator = np.random.default_rng(0)
    y = generator.standard_normal((50, 3))
    read = y + generator.standard_normal((50, 3)) * np.array([0.1, 1.0, 3.0])
    np.testing.assert_allclose(r2(y, read), r2_score(y, read, multioutput="raw_values"))
    assert np.isnan(r2(np.full((5, 1), 0.3), np.zeros((5, 1)))).all()
    np.testing.assert_array_equal(r2(y, y), 1.0)


def test_the_perceptron_sees_what_the_linear_probe_does_not():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1500, 5))
    y = np.stack([x[:, 0] * x[:, 1], np.abs(x[:, 2]), generator.standard_normal(1500)], axis=1)
    fit, new = slice(0, 1000), slice(1000, None)
    linear, curved = (r2(y[new], probe(x[fit], y[fit], x[new], 0)) for probe in (ridge, mlp))
    assert linear.max() < 0.05
    assert curved[:2].min() > 0.9
    assert -0.05 < curved[2] < 0.05  # nothing to read ends near the mean, not overfitted


def test_the_perceptron_is_repeatable_and_draws_nothing_global():
    x, y = data()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, again, other = mlp(x, y, x, 4), mlp(x, y, x, 4), mlp(x, y, x, 5)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_samples_are_read_by_probes_that_never_saw_them():
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((60, 80)), generator.standard_normal((60, 1))  # could be learnt by heart
    assert r2(y, held_out(x, y, "ridge"))[0] < 0.1
    part = fold_numbers(60, 5)
    expected = np.empty_like(y)
    for fold in range(5):
        expected[part == fold] = ridge(x[part != fold], y[part != fold], x[part == fold])
    np.testing.assert_allclose(held_out(x, y, "ridge"), expected)


def test_groups_are_never_torn():
    groups = [f"v{index // 3}" for index in range(30)]
    part = fold_numbers(30, 5, groups=groups, seed=2)
    assert all(len(set(part[start : start + 3])) == 1 for start in range(0, 30, 3))
    assert np.bincount(part).tolist() == [6] * 5
    assert np.bincount(fold_numbers(33, 4)).tolist() == [9, 8, 8, 8]
    # what only the group tells is not read
    x = np.repeat(np.random.default_rng(0).standard_normal((40, 60)), 3, axis=0)
    y = np.repeat(np.random.default_rng(1).standard_normal((40, 1)), 3, axis=0)
    assert r2(y, held_out(x, y, "ridge", groups=list(np.repeat(np.arange(40), 3))))[0] < 0.1
    assert r2(y, held_out(x, y, "ridge"))[0] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probe": "rigde"}, "did you mean 'ridge'"),
        ({"probe": "ridge", "folds": 1}, "at least 2 parts"),
        ({"probe": "ridge", "folds": 100}, "cannot be read in 100 parts"),
        ({"probe": "ridge", "groups": ["a"] * 60 + ["b"] * 60}, "in 2 groups cannot be read in 5 parts"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments, message):
    x, y = data()
    with pytest.raises(ConfigurationError, match=message):
        held_out(x, y, **arguments)
