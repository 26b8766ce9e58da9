"""Subsets of modalities: names, and the frequencies with which distributions draw them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfm.errors import ConfigurationError
from mfm.models.subsets import DISTRIBUTIONS, SubsetDistribution, all_subsets, parse_subset, subset_name

NAMES = ("audio", "text", "vision")
DRAWS = 14_000


def presence(*patterns):
    return {name: torch.tensor([name in one for one in patterns]) for name in NAMES}


def frequencies(distribution, present, seed=0):
    observed = SubsetDistribution(distribution, NAMES).draw(present, torch.Generator().manual_seed(seed))
    rows = torch.stack([observed[name] for name in NAMES], dim=1).tolist()
    counts = {}
    for row in rows:
        name = subset_name(n for n, there in zip(NAMES, row, strict=True) if there)
        counts[name] = counts.get(name, 0) + 1
    return {name: count / len(rows) for name, count in counts.items()}


def everything(rows=DRAWS):
    return {name: torch.ones(rows, dtype=torch.bool) for name in NAMES}


def test_uniform_draws_every_subset_alike():
    found = frequencies("uniform", everything())
    assert found.keys() == {subset_name(one) for one in all_subsets(NAMES)}
    assert all(share == pytest.approx(1 / 7, abs=0.015) for share in found.values())


def test_per_size_draws_every_size_alike():
    found = frequencies("per_size", everything())
    for one in all_subsets(NAMES):
        assert found[subset_name(one)] == pytest.approx([1 / 9, 1 / 9, 1 / 3][len(one) - 1], abs=0.015)


def test_uniform_is_uniform_over_what_a_sample_has():
    present = {**everything(), "vision": torch.zeros(DRAWS, dtype=torch.bool)}
    found = frequencies("uniform", present)
    assert found.keys() == {"audio", "text", "audio+text"}
    assert all(share == pytest.approx(1 / 3, abs=0.015) for share in found.values())


def test_weights_are_proportions_and_others_are_never_drawn():
    found = frequencies({"text+audio": 3, "vision": 1, "text": 0}, everything())
    assert found == {"audio+text": pytest.approx(0.75, abs=0.02), "vision": pytest.approx(0.25, abs=0.02)}
    assert frequencies({"text+audio": 3}, presence({"vision"}, {"vision", "text"})) == {
        "vision": 0.5,
        "text+vision": 0.5,
    }


def test_empirical_draws_the_patterns_of_the_batch():
    present = presence(*[{"audio"}, {"audio", "text", "vision"}] * (DRAWS // 2))
    found = frequencies("empirical", present)
    # half of the samples have audio alone; of the others, half are shown as the first kind
    assert found == {"audio": pytest.approx(0.75, abs=0.02), "audio+text+vision": pytest.approx(0.25, abs=0.02)}


patterns = st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=8)


@given(patterns, st.sampled_from([*DISTRIBUTIONS, "weights"]), st.integers(0, 99))
def test_what_is_drawn_was_there_and_is_not_nothing(rows, name, seed):
    present = presence(*rows)
    distribution = SubsetDistribution({"audio": 1, "text+vision": 2} if name == "weights" else name, NAMES)
    observed = distribution.draw(present, torch.Generator().manual_seed(seed))
    again = distribution.draw(present, torch.Generator().manual_seed(seed))
    assert list(observed) == list(NAMES)
    for row, had in enumerate(rows):
        seen = {modality for modality in NAMES if observed[modality][row]}
        assert seen <= had
        assert bool(seen) == bool(had)
        assert seen == {modality for modality in NAMES if again[modality][row]}


@given(st.sets(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6))
def test_all_subsets_are_all_combinations(names):
    expected = {frozenset(c) for k in range(1, len(names) + 1) for c in itertools.combinations(names, k)}
    found = all_subsets(names)
    assert {frozenset(one) for one in found} == expected
    assert len(found) == len(expected)
    assert all(parse_subset(subset_name(one), list(names)) == one for one in found)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("unifrom", "uniform"),
        ({"txt": 1}, "text"),
        ({"": 1}, "nothing observed"),
        ({"text": -1}, "-1"),
        ({"text": float("nan")}, "nan"),
        ({"text": 0}, "above 0"),
        ({"text+audio": 1, "audio+text": 1}, "twice"),
    ],
)
def test_distributions_that_cannot_be_used(wrong, named):
    with pytest.raises(ConfigurationError, match=named):
        SubsetDistribution(wrong, NAMES)


def test_too_many_modalities_to_list():
    with pytest.raises(ConfigurationError, match="8191"):
        all_subsets([f"m{index}" for index in range(13)])
