"""Properties of damaged input."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfm.analysis.corruption import add_noise, drop_span, drop_steps, fill_absent, only
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError

NAMES = ("audio", "text", "vision")


def build(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    own = {name: torch.tensor(values) for name, values in lengths.items()}
    rows = len(next(iter(lengths.values())))
    features = {}
    for name, length in own.items():
        steps = max(int(length.max()), 1)
        x = torch.randn(rows, steps, 2, generator=generator)
        features[name] = x * (torch.arange(steps) < length[:, None])[..., None]
    present = {name: length > 0 for name, length in own.items()}
    target = torch.zeros(rows, 1)
    return AffectBatch(features, own, present, target, target.bool(), [str(row) for row in range(rows)])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def batches(draw):
    rows = draw(st.integers(1, 5))
    return build({name: draw(st.lists(st.integers(0, 6), min_size=rows, max_size=rows)) for name in NAMES})


def same(one, other):
    return all(
        torch.equal(torch.nan_to_num(a, 99.0), torch.nan_to_num(b, 99.0))
        for part, whole in zip(one[:3], other[:3], strict=True)
        for a, b in zip(part.values(), whole.values(), strict=True)
    )


hits = st.sets(st.sampled_from(NAMES), min_size=1)
DROPS = {"span": drop_span, "steps": drop_steps}


@given(batches(), hits)
def test_only_takes_the_others_away(batch, kept):
    result = only(batch, kept)
    for name in NAMES:
        if name in kept:
            assert torch.equal(result.features[name], batch.features[name])
            assert torch.equal(result.present[name], batch.present[name])
        else:
            assert not result.present[name].any()
            assert not result.lengths[name].any()


@given(batches(), st.sampled_from([0.0, math.nan]))
def test_filled_modalities_are_as_long_as_the_longest(batch, value):
    result = fill_absent(batch, value)
    for row in range(len(batch.ids)):
        longest = max(int(batch.lengths[name][row]) for name in NAMES)
        for name in NAMES:
            had = int(batch.lengths[name][row])
            length = int(result.lengths[name][row])
            assert length == (had or longest)
            assert bool(result.present[name][row]) == (longest > 0)
            x = result.features[name][row]
            if had:
                assert torch.equal(x[:had], batch.features[name][row, :had])
            elif math.isnan(value):
                assert x[:length].isnan().all()
            else:
                assert not x[:length].any()
            assert not x[length:].any()


@pytest.mark.parametrize("kind", DROPS)
@given(batch=batches(), share=st.floats(0, 1), hit=hits, seed=st.integers(0, 99))
def test_lost_steps_are_real_ones_of_what_is_hit_and_one_stays(kind, batch, share, hit, seed):
    before = build({name: batch.lengths[name].tolist() for name in NAMES})
    result = DROPS[kind](batch, share, hit, seeded(seed))
    assert same(batch, before)  # the argument is left alone
    for name in NAMES:
        assert torch.equal(result.lengths[name], batch.lengths[name])
        assert torch.equal(result.present[name], batch.present[name])
        for row, length in enumerate(batch.lengths[name].tolist()):
            lost = result.features[name][row].isnan().all(dim=1)
            kept = result.features[name][row][~lost]
            assert torch.equal(kept, batch.features[name][row][~lost])
            assert not lost[length:].any()
            if name not in hit or length == 0:
                assert not lost.any()
            else:
                assert lost.sum() < length
            if kind == "span" and name in hit and length:
                places = lost.nonzero().flatten().tolist()
                assert places == list(range(places[0], places[-1] + 1)) if places else True
                assert len(places) == min(round(share * length), length - 1)


@pytest.mark.parametrize("kind", DROPS)
def test_nothing_is_lost_at_level_0_and_one_seed_loses_the_same(kind):
    batch = build({"audio": [6, 3], "text": [4, 4]})
    assert same(DROPS[kind](batch, 0.0, ["audio", "text"], seeded()), batch)
    one, other = (DROPS[kind](batch, 0.5, ["text"], seeded(3)) for _ in range(2))
    assert same(one, other)
    together = DROPS[kind](batch, 0.5, ["audio", "text"], seeded(3))
    assert torch.equal(one.features["text"].isnan(), together.features["text"].isnan())


@pytest.mark.parametrize("kind", DROPS)
def test_a_larger_level_loses_what_a_smaller_one_did(kind):
    batch = build({"audio": [50] * 20})
    lost = [DROPS[kind](batch, rate, ["audio"], seeded(1)).features["audio"].isnan() for rate in (0.2, 0.6, 1.0)]
    assert (lost[0] <= lost[1]).all()
    assert (lost[1] <= lost[2]).all()
    assert lost[0].float().mean() == pytest.approx(0.2, abs=0.03)
    assert lost[1].float().mean() == pytest.approx(0.6, abs=0.03)
    assert (lost[2].all(dim=2).sum(dim=1) == 49).all()


def test_spans_begin_anywhere():
    batch = build({"audio": [5] * 2000})
    lost = drop_span(batch, 0.4, ["audio"], seeded()).features["audio"].isnan().all(dim=2)
    starts = lost.float().argmax(dim=1)
    shares = [(starts == start).float().mean().item() for start in range(5)]
    assert shares[:4] == pytest.approx([0.25] * 4, abs=0.04)
    assert shares[4] == 0


@pytest.mark.parametrize("snr", [20.0, 0.0, -10.0])
def test_noise_has_the_power_that_the_ratio_says(snr):
    batch = build({"audio": [200] * 100, "text": [3] * 100})
    std = {"audio": torch.tensor([2.0, 0.5]), "text": torch.ones(2)}
    noisy = add_noise(batch, snr, std, ["audio"], seeded())
    added = noisy.features["audio"] - batch.features["audio"]
    ratio = 10 * torch.log10(std["audio"] ** 2 / added.flatten(0, 1).var(dim=0))
    assert ratio.tolist() == pytest.approx([snr, snr], abs=0.2)
    assert torch.equal(noisy.features["text"], batch.features["text"])


def test_noise_leaves_padding_and_absent_modalities_alone():
    batch = build({"audio": [2, 0, 4]})
    noisy = add_noise(batch, 0.0, {"audio": torch.ones(2)}, ["audio"], seeded())
    assert not noisy.features["audio"][1].any()
    assert not noisy.features["audio"][0, 2:].any()
    assert noisy.features["audio"][2].ne(batch.features["audio"][2]).all()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda batch: drop_steps(batch, 1.5, ["text"], seeded()), "1.5"),
        (lambda batch: drop_span(batch, -0.1, ["text"], seeded()), "-0.1"),
        (lambda batch: drop_steps(batch, 0.5, ["txt"], seeded()), "text"),
        (lambda batch: add_noise(batch, math.nan, {}, ["text"], seeded()), "decibels"),
        (lambda batch: only(batch, ["txt"]), "text"),
    ],
)
def test_levels_and_names_that_cannot_be_used(damage, named):
    with pytest.raises(ConfigurationError, match=named):
        damage(build({"text": [2]}))
