"""The shared clock of modalities with rates of their own."""

import math

import torch
from batches import make_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.models.alignment import on_one_clock, pool_to_clock

DIMS = {"a": 2, "b": 1}


def plain_pool(x, length, clock):
    """Step t falls into clock step floor(t K / L); plain lists."""
    bins = [[] for _ in range(clock)]
    for t in range(length):
        bins[math.floor(t * clock / length)].append(x[t])
    return torch.stack([torch.stack(b).mean(dim=0) for b in bins])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(1, 8)),
)
def test_equals_plain_pooling_per_sample(pairs, limit):
    features, lengths, _ = make_batch(
        DIMS, {"a": [p[0] for p in pairs], "b": [p[1] for p in pairs]}, dtype=torch.float64
    )
    pooled, clocks = pool_to_clock(features, lengths, limit=limit)
    for row, pair in enumerate(pairs):
        present = [length for length in pair if length]
        clock = min(present, default=0)
        clock = min(clock, limit) if limit else clock
        for name, length in zip(DIMS, pair, strict=True):
            assert clocks[name][row] == (clock if length else 0)
            assert pooled[name][row, (clock if length else 0) :].eq(0).all()
            if length:
                expected = plain_pool(features[name][row], length, clock)
                torch.testing.assert_close(pooled[name][row, :clock], expected, rtol=1e-12, atol=1e-12)


def test_the_shortest_modality_is_kept_as_it_is():
    features, lengths, _ = make_batch(DIMS, {"a": [5, 3], "b": [20, 7]})
    pooled, _ = pool_to_clock(features, lengths)
    torch.testing.assert_close(pooled["a"][:, :5], features["a"], rtol=0, atol=0)


def test_aligned_features_are_padded_to_one_axis():
    features, lengths, _ = make_batch(DIMS, {"a": [5, 3], "b": [2, 0]})
    features["b"][1] = float("nan")
    same, same_lengths = on_one_clock(features, lengths, aligned=True, limit=3)
    assert same["a"].shape[1] == same["b"].shape[1] == 5
    assert same["b"][0, 2:].eq(0).all()
    assert same["b"][1].eq(0).all()
    assert same_lengths == lengths
