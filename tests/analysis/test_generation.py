"""Recipes against plain indexing, the walk against least squares, prior check and readings against known answers."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge

from mfm.analysis import generation as g
from mfm.analysis.generation_scores import (
    agreement,
    constant_agreement,
    mmd_permutation_p,
    prior_checks,
    read_independently,
)
from mfm.corpora import MOSI, get_corpus
from mfm.errors import ConfigurationError
from mfm.losses.mmd import mmd
from mfm.models.mfm import MFM, Codes
from mfm.models.normalization import Normalizer

DIMS = {"pitch": 2, "words": 3}


def encoded(n=30, seed=0, z=4, absent=()):
    r = np.random.default_rng(seed)

    def normal(*shape):
        return torch.tensor(r.normal(size=shape), dtype=torch.float32)

    lengths = {name: torch.tensor(r.integers(1, 6, n)) for name in DIMS}
    for name, place in absent:
        lengths[name][place] = 0
    return g.Encoded(
        ids=tuple(f"s{i}" for i in range(n)),
        codes=Codes(normal(n, z), {name: normal(n, z) for name in DIMS}),
        lengths=lengths,
        pooled=r.normal(size=(n, 5)),
        prediction=normal(n, 1),
        target=normal(n, 1),
        mask=torch.ones(n, 1, dtype=torch.bool),
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    settings = {"z_y": 4, "z": 4, "f_y": 5, "f": 3, "fusion": {"name": "concat_lstm"}}
    return MFM(DIMS, 1, aligned=False, **settings).eval()


@pytest.fixture
def normalizer():
    one = Normalizer(DIMS)
    one.set_statistics({k: torch.full((d,), 100.0) for k, d in DIMS.items()},
                       {k: torch.full((d,), 7.0) for k, d in DIMS.items()})  # fmt: skip
    return one


def test_pairs_are_different_and_none_comes_twice():
    one = encoded(6, absent=[("pitch", 2), ("words", 2)])
    pairs = g.choose_pairs(one, 20)  # all there are of five usable samples
    assert len(set(pairs)) == 20
    assert all(a != b and 2 not in (a, b) for a, b in pairs)
    assert pairs == g.choose_pairs(one, 20)
    assert g.choose_pairs(one, 9) != g.choose_pairs(one, 9, seed=1)
    with pytest.raises(ConfigurationError, match="--count 21 is more than the 20 pairs"):
        g.choose_pairs(one, 21)
    assert g.choose_pairs(one, 5, content="s1", style="s3") == [(1, 3)]
    assert {a for a, _ in g.choose_pairs(one, 4, content="s1")} == {1}
    assert sorted(a for a, _ in g.choose_pairs(one, 4, style="s1")) == [0, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "style", "said"),
    [
        ("x1", "s2", "--content.*'x1'"),
        ("s1", "s1", "different"),
        ("s1", "s2 ", "did you mean 's2'"),
        ("s2", "s0", "--content: nothing"),
    ],
)
def test_names_that_cannot_be_paired(content, style, said):
    one = encoded(3, absent=[("pitch", 2), ("words", 2)])
    with pytest.raises(ConfigurationError, match=said):
        g.choose_pairs(one, 1, content=content, style=style)


def test_a_swap_decodes_as_content_and_style_say_in_file_units(model, normalizer):
    one = encoded(8, absent=[("pitch", 4)])
    pairs = [(0, 3), (5, 1), (2, 4)]
    recipe = g.swap(one, pairs)
    found = g.realise(model, normalizer, recipe)
    for place, (content, style) in enumerate(pairs):
        assert recipe.ids[place] == f"swap[content=s{content},style=s{style}]"
        codes = Codes(one.codes.z_y[[content]], {name: z[[style]] for name, z in one.codes.z.items()})
        for name in DIMS:
            steps = int(one.lengths[name][style])
            assert found[name][place].shape == (steps, DIMS[name])
            if steps:
                with torch.no_grad():
                    alone = model.decode(model.factorize(codes), {name: steps})[name][0] * 7 + 100
                np.testing.assert_allclose(found[name][place], alone, rtol=1e-5)
    assert torch.equal(g.head_on(model, recipe.codes), model.predict(model.factor_y(one.codes.z_y[[0, 5, 2]])))


def test_interpolation_starts_and_ends_at_the_samples():
    one = encoded(8, absent=[("pitch", 4)])
    recipe = g.interpolate(one, [(0, 1), (2, 4)], 3)
    z, length = one.codes.z["words"], one.lengths["words"]
    assert torch.allclose(
        recipe.codes.z["words"], torch.stack([z[0], (z[0] + z[1]) / 2, z[1], z[2], (z[2] + z[4]) / 2, z[4]])
    )
    assert recipe.lengths["words"][[0, 2, 3, 5]].tolist() == length[[0, 1, 2, 4]].tolist()
    assert recipe.lengths["pitch"][3:].tolist() == [0, 0, 0]


def test_the_walk_is_least_squares_from_the_lowest_to_the_highest_output():
    one = encoded(50)
    output = one.codes.z_y @ torch.tensor([1.0, -2.0, 0.0, 0.5])
    walk = g.walk_of(one, output)
    values, z_y = output.double().numpy(), one.codes.z_y.double().numpy()
    slopes = [stats.linregress(values, column).slope for column in z_y.T]
    np.testing.assert_allclose(walk.direction, slopes, rtol=1e-4, atol=1e-5)
    recipe = g.traverse(one, output, walk, [3, 7], 5)
    reached = (recipe.codes.z_y @ torch.tensor([1.0, -2.0, 0.0, 0.5])).reshape(2, 5)
    # of a linear head, the pattern's own output is 1 a unit
    np.testing.assert_allclose(
        reached, np.tile(np.linspace(output.min(), output.max(), 5), (2, 1)), rtol=1e-3, atol=1e-3
    )
    assert torch.equal(recipe.codes.z["pitch"][:5], one.codes.z["pitch"][[3] * 5])
    with pytest.raises(ConfigurationError, match="no direction"):
        g.walk_of(one, torch.ones(50))


def test_draws_are_standard_normal_with_lengths_of_complete_samples():
    one = encoded(30, absent=[("pitch", place) for place in range(25)])
    recipe = g.draw_prior(one, 3000, seed=1)
    for z in (recipe.codes.z_y, *recipe.codes.z.values()):
        assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    there = set(zip(one.lengths["pitch"][25:].tolist(), one.lengths["words"][25:].tolist(), strict=True))
    assert set(zip(recipe.lengths["pitch"].tolist(), recipe.lengths["words"].tolist(), strict=True)) == there


def test_what_was_generated_is_encoded_as_the_model_would(model, normalizer):
    one = encoded(70, absent=[("pitch", 4)])
    recipe = g.swap(one, [(place, (place + 1) % 70) for place in range(70)])  # more than one batch
    sequences = g.realise(model, normalizer, recipe)
    again = g.encode(model, None, normalizer, g.as_batches(recipe.ids, sequences))
    assert again.ids == tuple(recipe.ids)
    for place in (0, 3, 69):  # the third's style is the fourth, without pitch
        parts = {name: torch.from_numpy(x[place])[None] for name, x in sequences.items() if len(x[place])}
        lengths = {name: torch.tensor([x.shape[1]]) for name, x in parts.items()}
        with torch.no_grad():
            alone = model(normalizer(parts, lengths), lengths, {name: torch.tensor([True]) for name in parts})
        torch.testing.assert_close(again.prediction[place], alone.prediction[0], rtol=1e-4, atol=1e-5)
        means = [((sequences[n][place] - 100) / 7).mean(0) if n in parts else np.zeros(d) for n, d in DIMS.items()]
        np.testing.assert_allclose(again.pooled[place], np.concatenate(means), atol=1e-4)
    assert int(again.lengths["pitch"][3]) == 0


# -------------------------------------------------------------------------------------------------------- scores
def test_permutation_p_is_uniform_under_the_null_and_small_otherwise():
    generator = torch.Generator().manual_seed(0)

    def p(shift):
        a, b = (torch.randn(25, 3, generator=generator) for _ in range(2))
        return mmd_permutation_p(a + shift, b, permutations=99, generator=generator)

    assert stats.kstest([p(0.0) for _ in range(60)], "uniform").pvalue > 1e-3
    assert max(p(2.0) for _ in range(5)) <= 0.02


def test_permutation_p_counts_unbiased_mmds():
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(12, 2, generator=generator).double(), 0.5 + torch.randn(12, 2, generator=generator).double()
    found = mmd_permutation_p(a, b, permutations=40, generator=torch.Generator().manual_seed(5))
    pooled, again, own = torch.cat([a, b]), torch.Generator().manual_seed(5), mmd(a, b, unbiased=True)
    count = 1
    first = torch.tensor([True] * 12 + [False] * 12)
    for _ in range(40):
        side = first[torch.randperm(24, generator=again)]
        count += bool(mmd(pooled[side], pooled[~side], unbiased=True) >= own)
    assert found == count / 41


def test_prior_checks_find_the_block_that_is_off():
    one = encoded(200, absent=[("pitch", place) for place in range(185)])
    one.codes.z["words"].mul_(0.3)
    found = {check.block: check for check in prior_checks(one, permutations=99)}
    assert list(found) == ["joint", "y", "pitch", "words"]
    assert found["y"].p > 0.02
    assert abs(found["y"].deviation - 1) < 0.1
    assert found["words"].p == 0.01
    assert found["words"].deviation == pytest.approx(0.3, abs=0.05)
    assert found["pitch"].samples == 15
    assert np.isnan(found["pitch"].p)


def test_the_independent_regressor_is_a_ridge_on_real_features():
    train = encoded(300, seed=1)
    weights = np.array([1.0, -1.0, 0.5, 0.0, 2.0])
    train.target[:, 0] = torch.tensor(train.pooled @ weights)
    train.target[:20] = 1e6  # unlabelled: whatever is written there
    train.mask[:20] = False
    new = np.random.default_rng(2).normal(size=(9, 5))
    read = read_independently(MOSI, train, new)
    expected = Ridge(1e-3).fit(train.pooled[20:], train.target[20:, 0]).predict(new)
    np.testing.assert_allclose(read[:, 0], expected, atol=1e-3)
    train.mask[15:] = False
    assert read_independently(MOSI, train, new) is None


def test_classes_are_read_by_the_largest_output():
    corpus = get_corpus("youtube")
    base = encoded(300, seed=1)
    classes = torch.tensor(base.pooled[:, : len(corpus.classes)].argmax(axis=1))
    train = g.Encoded(base.ids, base.codes, base.lengths, base.pooled, base.prediction, classes, classes >= 0)
    read = read_independently(corpus, train, base.pooled)
    assert agreement(corpus, read, classes, classes >= 0)["acc"] > 0.8
    assert agreement(corpus, torch.eye(len(corpus.classes))[classes], classes, classes >= 0) == {"acc": 1.0}
    counts = np.bincount(classes)
    assert constant_agreement(corpus, classes, classes >= 0) == {"acc": pytest.approx(counts.max() / 300)}


def test_agreement_of_regression_skips_unlabelled():
    truth, known = torch.tensor([[0.0], [1.0], [2.0], [9.0]]), torch.tensor([[True], [True], [True], [False]])
    found = agreement(MOSI, torch.tensor([[0.5], [1.0], [2.5], [0.0]]), truth, known)
    assert found["mae"] == pytest.approx(1 / 3)
    assert found["corr"] == pytest.approx(stats.pearsonr([0.5, 1, 2.5], [0, 1, 2]).statistic)
    assert constant_agreement(MOSI, truth, known) == {"mae": pytest.approx(2 / 3)}
    assert np.isnan(agreement(MOSI, torch.ones(4, 1), truth, known)["corr"])
