"""Separation and leaks: known answers for blocks that are made up, and one small trained model."""

import numpy as np
import pytest
import torch

from mfm.analysis.factorization import (
    choose_swaps,
    collect_blocks,
    leakage,
    modality_identity,
    same_group,
    separation,
    swaps_right,
)
from mfm.data.collate import collate
from mfm.data.dataset import AffectDataset
from mfm.data.factor_world import FactorWorld
from mfm.errors import ConfigurationError, DataFormatError
from mfm.models.mfm import MFM

SIZE = 400


def truth(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "y": generator.standard_normal((SIZE, 1)),
        "a": generator.standard_normal((SIZE, 2)),
        "b": generator.standard_normal((SIZE, 3)),
    }


def turned(values, seed=1):
    """A rotation into more dimensions: the same information, in no single one of them."""
    return values @ np.random.default_rng(seed).standard_normal((values.shape[1], 6))


@pytest.mark.parametrize("probe", ["ridge", "mlp"])
def test_perfect_blocks_score_one(probe):
    factors = truth()
    found = separation({name: turned(values) for name, values in factors.items()}, factors, probe=probe)
    summary = found.summary()
    assert summary["label"] > 0.95
    assert summary["private"] > 0.95
    assert summary["label_leak"] < 0.05
    assert summary["private_leak"] < 0.05
    assert summary["separation"] > 0.9
    assert list(found.r2) == ["y", "a", "b"]
    assert list(found.r2["a"]) == ["y", "a", "b"]


def test_swapped_blocks_score_minus_one_and_everything_everywhere_zero():
    factors = truth()
    blocks = {"y": factors["a"], "a": factors["y"], "b": factors["b"]}
    found = separation(blocks, factors, probe="ridge")
    assert found.separation() == pytest.approx(-1 / 3, abs=0.02)  # two factors at -1, one at 1
    whole = np.concatenate(list(factors.values()), axis=1)
    everything = separation(dict.fromkeys(factors, whole), factors, probe="ridge")
    assert everything.separation() == pytest.approx(0.0, abs=1e-6)
    assert everything.summary()["label_leak"] > 0.99


def test_a_known_share_of_leak_is_found():
    factors = truth()
    blocks = dict(factors)
    noise = np.random.default_rng(5).standard_normal((SIZE, 1))
    blocks["b"] = np.c_[factors["b"], 0.5 * factors["y"] + np.sqrt(0.75) * noise]
    summary = separation(blocks, factors, probe="ridge").summary()
    assert summary["label_leak"] == pytest.approx(0.25, abs=0.08)


def test_a_hidden_leak_is_seen_by_the_perceptron_only():
    factors = truth()
    sign = np.sign(np.random.default_rng(3).standard_normal((SIZE, 1)))
    blocks = {**factors, "a": np.c_[factors["a"], sign, sign * factors["y"]]}
    linear, curved = (separation(blocks, factors, probe=p).summary()["label_leak"] for p in ("ridge", "mlp"))
    assert linear < 0.1
    assert curved > 0.6


def test_absent_samples_do_not_count():
    factors = truth()
    present = {"a": np.arange(SIZE) % 2 == 0, "b": np.ones(SIZE, dtype=bool)}
    blocks = {**factors, "a": np.where(present["a"][:, None], factors["a"], 0.0)}
    train = np.arange(SIZE) < SIZE // 2
    kept = separation(blocks, factors, probe="ridge", present=present, train=train)
    assert kept.r2["a"]["a"] > 0.99
    assert separation(blocks, factors, probe="ridge", train=train).r2["a"]["a"] < 0.8
    few = {"a": np.arange(SIZE) < 5, "b": present["b"]}
    nothing = separation(blocks, factors, probe="ridge", present=few)
    assert np.isnan(nothing.r2["a"]["a"])
    assert nothing.summary()["private"] == pytest.approx(1.0, abs=0.01)  # of b


def test_blocks_and_factors_must_have_the_same_names():
    factors = truth()
    with pytest.raises(ConfigurationError, match="same modalities"):
        separation({"y": factors["y"], "a": factors["a"]}, factors, probe="ridge")
    with pytest.raises(ConfigurationError, match="did you mean 'mlp'"):
        separation(factors, factors, probe="mlpp")


# --------------------------------------------------------------------------------------------------------- swaps
def rendered(evidence=1.0):
    world = FactorWorld({"a": 6}, evidence=evidence)
    split = world.draw((200, 0, 0)).splits["train"]
    pairs = choose_swaps(split.label_factor)
    s, p = split.label_factor, split.private["a"]
    looks = {(i, j): world.render("a", s[pairs[:, i]], p[pairs[:, j]]) for i in (0, 1) for j in (0, 1)}
    return split, pairs, looks


def test_the_oracle_tells_right_from_wrong():
    split, pairs, looks = rendered()
    assert (np.abs(split.label_factor[pairs[:, 0]] - split.label_factor[pairs[:, 1]]) >= 0.5).all()
    others = [looks[0, 0], looks[1, 1], looks[1, 0]]
    noise = 0.1 * np.random.default_rng(0).standard_normal(looks[0, 1].shape)
    assert swaps_right(looks[0, 1] + noise, looks[0, 1], others).mean() > 0.97
    for wrong in others:  # content not taken over, style not taken over, both the wrong way round
        assert swaps_right(wrong + noise, looks[0, 1], others).mean() < 0.03
    blurred = np.zeros_like(looks[0, 1])  # a decoder that ignores its factors
    assert swaps_right(blurred, looks[0, 1], others).mean() < 0.5


def test_without_evidence_only_the_style_counts():
    _, _, looks = rendered(evidence=0.0)
    others = [looks[0, 0], looks[1, 1], looks[1, 0]]
    assert swaps_right(looks[1, 1], looks[0, 1], others).all()
    assert not swaps_right(looks[0, 0], looks[0, 1], others).any()


# ----------------------------------------------------------------------------------------------------- real corpora
def test_leaks_on_a_corpus_without_truth():
    generator = np.random.default_rng(0)
    videos = [f"v{index // 4}" for index in range(SIZE)]
    speaker = np.repeat(generator.standard_normal((SIZE // 4, 5)), 4, axis=0)
    label = generator.standard_normal((SIZE, 1))
    blocks = {
        "y": np.c_[label, generator.standard_normal((SIZE, 2))],
        "a": speaker + 0.01 * generator.standard_normal((SIZE, 5)),
        "b": np.c_[label + 0.5 * generator.standard_normal((SIZE, 1)), generator.standard_normal((SIZE, 1))],
    }
    found = leakage(blocks, label, np.ones((SIZE, 1), dtype=bool), videos, probes=("ridge",))
    assert found.label["ridge"]["y"] > 0.95
    assert found.label["ridge"]["a"] < 0.05
    assert found.label["ridge"]["b"] == pytest.approx(0.8, abs=0.06)
    assert found.video["a"] > 0.95
    assert found.video["y"] < 0.05
    assert found.video_chance == pytest.approx(3 / (SIZE - 1))


def test_classes_and_missing_labels():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, SIZE).astype(float)
    mask = generator.random(SIZE) > 0.2
    label[~mask] = 99.0
    blocks = {"y": np.eye(100)[label.astype(int)][:, :3], "a": generator.standard_normal((SIZE, 2))}
    found = leakage(blocks, label, mask, [str(index) for index in range(SIZE)], probes=("ridge",))
    assert found.label["ridge"]["y"] > 0.99
    assert found.label["ridge"]["a"] < 0.05
    assert np.isnan(found.video["y"])  # no video has two samples
    assert np.isnan(found.video_chance)


def test_nearest_neighbours_against_a_plain_loop():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((50, 3)) * np.array([1.0, 10.0, 0.1])
    groups = [f"g{index}" for index in generator.integers(0, 30, 50)]
    scaled = (x - x.mean(0)) / x.std(0)
    hits = []
    for index, group in enumerate(groups):
        if groups.count(group) > 1:
            distance = ((scaled - scaled[index]) ** 2).sum(1)
            distance[index] = np.inf
            hits.append(groups[int(distance.argmin())] == group)
    assert same_group(x, groups) == pytest.approx(np.mean(hits))
    # a constant block says nothing: of all neighbours, equally near, the own group's share
    assert same_group(np.ones((4, 2)), ["a", "a", "b", "b"]) == pytest.approx(1 / 3)


def test_modality_identity():
    generator = np.random.default_rng(0)
    same = generator.standard_normal((100, 4))
    accuracy, chance = modality_identity({"a": same, "b": same.copy(), "c": same.copy()})
    assert chance == pytest.approx(1 / 3)
    assert accuracy == pytest.approx(1 / 3, abs=0.1)
    shifted = {name: same + 5 * np.eye(4)[place] for place, name in enumerate("abc")}
    assert modality_identity(shifted)[0] > 0.95
    with pytest.raises(ConfigurationError, match="at least two modalities"):
        modality_identity({"a": same})
    with pytest.raises(ConfigurationError, match="parts"):
        modality_identity({"a": same[:3], "b": same[:3]})


# ------------------------------------------------------------------------------------------------------- a model
def test_blocks_of_a_model_come_with_who_was_observed():
    corpus = FactorWorld({"a": 4, "b": 3}, missing=0.4).draw((30, 0, 0))
    dataset = AffectDataset(corpus.records().splits["train"], corpus.world.record)
    batches = [collate([dataset[i] for i in rows]) for rows in (range(20), range(20, 30))]
    model = MFM({"a": 4, "b": 3}, 1, z_y=3, z={"a": 2, "b": 4}, f_y=5, f=6).eval()
    found = collect_blocks(lambda batch: model(batch.features, batch.lengths, batch.present), batches)
    assert found.ids == corpus.splits["train"].ids
    assert {name: block.shape for name, block in found.codes.items()} == {"y": (30, 3), "a": (30, 2), "b": (30, 4)}
    assert {name: block.shape for name, block in found.factors.items()} == {"y": (30, 5), "a": (30, 6), "b": (30, 6)}
    for name in "ab":
        np.testing.assert_array_equal(found.present[name], corpus.splits["train"].present[name])
    with torch.no_grad():
        alone = model(batches[1].features, batches[1].lengths, batches[1].present)
    np.testing.assert_allclose(found.codes["y"][20:], alone.codes.z_y.double().numpy())
    np.testing.assert_allclose(found.target, corpus.splits["train"].labels, rtol=1e-6)
    with pytest.raises(DataFormatError, match="no sample"):
        collect_blocks(lambda batch: model(batch.features, batch.lengths, batch.present), [])
