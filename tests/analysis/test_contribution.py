"""Shapley values against their definition over all orders, and against games with known answers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error

from mfm.analysis.contribution import constant_prediction, modality_contributions, shapley_values, subsets
from mfm.corpora import IEMOCAP, MOSI, YOUTUBE
from mfm.errors import ConfigurationError
from mfm.metrics.conventions import definitions_for


@st.composite
def games(draw):
    players = [f"m{i}" for i in range(draw(st.integers(1, 4)))]
    worth = {one: draw(st.floats(-10, 10)) for one in subsets(players)}
    return players, worth


def over_orders(players, worth):
    """The definition: the mean marginal value over all orders in which players can join."""
    total = dict.fromkeys(players, 0.0)
    orders = list(itertools.permutations(players))
    for order in orders:
        there = frozenset()
        for name in order:
            total[name] += worth[there | {name}] - worth[there]
            there = there | {name}
    return {name: value / len(orders) for name, value in total.items()}


@given(games())
def test_equals_the_mean_over_orders_and_is_efficient(game):
    players, worth = game
    values = shapley_values(players, worth.__getitem__)
    assert values == pytest.approx(over_orders(players, worth), abs=1e-9)
    assert sum(values.values()) == pytest.approx(worth[frozenset(players)] - worth[frozenset()], abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=5), st.floats(-3, 3))
def test_additive_game_gives_each_its_own(shares, base):
    own = {f"m{i}": share for i, share in enumerate(shares)}
    values = shapley_values(list(own), lambda one: base + sum(own[name] for name in one))
    assert values == pytest.approx(own, abs=1e-9)


@given(games(), st.permutations(range(4)))
def test_symmetry_dummy_and_linearity(game, order):
    players, worth = game
    names = {name: f"m{order[i]}" for i, name in enumerate(players)}
    renamed = shapley_values(list(names.values()), lambda one: worth[frozenset(n for n in players if names[n] in one)])
    values = shapley_values(players, worth.__getitem__)
    assert {name: renamed[names[name]] for name in players} == pytest.approx(values, abs=1e-9)
    by_size = shapley_values(players, lambda one: len(one) ** 2)
    assert len({round(value, 9) for value in by_size.values()}) == 1
    with_dummy = shapley_values([*players, "zero"], lambda one: worth[one - {"zero"}])
    assert with_dummy["zero"] == pytest.approx(0.0, abs=1e-9)
    assert {name: with_dummy[name] for name in players} == pytest.approx(values, abs=1e-9)


def test_too_many_players():
    with pytest.raises(ConfigurationError, match="at most 12"):
        shapley_values([str(i) for i in range(13)], len)


def test_metric_of_subsets_with_intervals():
    generator = np.random.default_rng(0)
    parts = {"b": generator.normal(size=200), "a": 0.5 * generator.normal(size=200)}
    truth = parts["a"] + parts["b"]
    target = torch.as_tensor(truth)[:, None]
    predictions = {
        one: torch.as_tensor(sum((parts[name] for name in one), np.zeros(200)))[:, None] for one in subsets(["a", "b"])
    }
    found = modality_contributions(
        predictions, target, torch.ones_like(target, dtype=torch.bool), "mae", definitions_for(MOSI)["mae"]
    )
    worth = {one: -mean_absolute_error(truth, prediction[:, 0].numpy()) for one, prediction in predictions.items()}
    assert found.shapley == pytest.approx(over_orders(["a", "b"], worth))
    assert {one: -score for one, score in found.scores.items()} == pytest.approx(worth)
    assert found.shapley["b"] > found.shapley["a"] > 0
    for name in "ab":
        assert found.low[name] < found.shapley[name] < found.high[name]
        assert found.high[name] - found.low[name] < 0.4
    again = modality_contributions(
        predictions, target, torch.ones_like(target, dtype=torch.bool), "mae", definitions_for(MOSI)["mae"]
    )
    assert again == found


def test_metric_that_a_constant_does_not_have():
    target = torch.arange(6.0)[:, None]
    predictions = {frozenset(): torch.zeros(6, 1), frozenset({"a"}): target}
    with pytest.raises(ConfigurationError, match="'corr' is not defined for the constant prediction"):
        modality_contributions(predictions, target, target > -1, "corr", definitions_for(MOSI)["corr"])


def test_constant_predictions():
    target = torch.tensor([[1.0], [2.0], [7.0], [float("nan")]])
    mask = torch.tensor([[True], [True], [True], [False]])
    assert constant_prediction(MOSI, target, mask).tolist() == [2.0]
    classes = torch.tensor([2, 1, 2, 0])
    assert constant_prediction(YOUTUBE, classes, torch.tensor([True, True, True, False])).argmax() == 2
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
    assert (constant_prediction(IEMOCAP, labels, labels >= 0) > 0).tolist() == [True, False, False, True]
    with pytest.raises(ConfigurationError, match="no label at all"):
        constant_prediction(MOSI, target, torch.zeros_like(mask))
