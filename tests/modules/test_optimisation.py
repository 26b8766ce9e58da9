"""Optimisers and schedules by name."""

import math

import pytest
import torch
from torch import nn

from mfm.errors import ConfigurationError
from mfm.modules.optimisation import OPTIMIZERS, build_optimizer, build_schedule, decay_groups


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))


def test_only_matrices_decay():
    model = network()
    decayed, free = decay_groups(model, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert len(free["params"]) == 4


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_lowers_a_quadratic(name):
    weight = nn.Parameter(torch.tensor([[1.0]]))
    optimizer = build_optimizer(name, [{"params": [weight]}], lr=0.05, weight_decay=0.0)
    for _ in range(60):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert abs(weight.item()) < 0.5


def test_settings_reach_the_optimizer():
    optimizer = build_optimizer({"name": "adam", "betas": [0.5, 0.6]}, decay_groups(network(), 0.0), 0.1, 0.0)
    assert list(optimizer.param_groups[0]["betas"]) == [0.5, 0.6]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_fused_optimizer_takes_the_same_steps(name):
    weights = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = network().double()
        optimizer = build_optimizer(name, decay_groups(model, 0.1), lr=0.05, weight_decay=0.1, fused=fused)
        assert bool(optimizer.defaults.get("fused")) == (fused and name in ("adam", "adamw", "sgd"))
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-12)


def test_a_choice_in_the_settings_is_kept():
    model = network()
    optimizer = build_optimizer({"name": "adam", "foreach": True}, decay_groups(model, 0), 0.1, 0, fused=True)
    assert not optimizer.defaults["fused"]


@pytest.mark.parametrize(
    ("spec", "lr", "word"),
    [
        ("adma", 0.1, "adam"),
        ({"name": "adam", "beta": 1}, 0.1, "betas"),
        ("adam", -1.0, "lr"),
        ({"lr": 1}, 0.1, "name"),
    ],
)
def test_mistakes_are_named(spec, lr, word):
    with pytest.raises(ConfigurationError, match=word):
        build_optimizer(spec, decay_groups(network(), 0.0), lr, 0.0)


def rates(spec, warmup, total):
    optimizer = build_optimizer("sgd", decay_groups(network(), 0.0), lr=2.0, weight_decay=0.0)
    entry = build_schedule(spec, optimizer, warmup_steps=warmup, total_steps=total, monitor="val/mae", mode="min")
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if entry is not None:
            entry["scheduler"].step()
    return seen


def test_schedules_follow_their_formulas():
    assert rates("constant", 0, 5) == [2.0] * 5
    warm = rates("constant", 3, 6)
    assert warm == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    cosine = rates({"name": "cosine", "floor": 0.1}, 0, 10)
    assert cosine == pytest.approx([2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * t / 10))) for t in range(10)])
    assert rates("linear", 2, 12)[2:] == pytest.approx([2 * (1 - t / 10) for t in range(10)])


def test_plateau_watches_the_corpus_metric():
    optimizer = build_optimizer("sgd", decay_groups(network(), 0.0), lr=1.0, weight_decay=0.0)
    entry = build_schedule(
        {"name": "plateau", "patience": 0, "factor": 0.5},
        optimizer,
        warmup_steps=0,
        total_steps=0,
        monitor="val/acc",
        mode="max",
    )
    assert entry["monitor"] == "val/acc"
    for value in (0.5, 0.4, 0.3):
        entry["scheduler"].step(value)
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("spec", "warmup", "word"),
    [
        ("cosin", 0, "cosine"),
        ("plateau", 3, "warm"),
        ({"name": "plateau", "patiense": 1}, 0, "patience"),
        ("linear", -1, "warmup"),
    ],
)
def test_schedule_mistakes_are_named(spec, warmup, word):
    optimizer = build_optimizer("sgd", decay_groups(network(), 0.0), lr=1.0, weight_decay=0.0)
    with pytest.raises(ConfigurationError, match=word):
        build_schedule(spec, optimizer, warmup_steps=warmup, total_steps=9, monitor="val/mae", mode="min")
