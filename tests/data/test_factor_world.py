"""Corpora with known factors: the truth is what it says, and the files are read like any other."""

import h5py
import numpy as np
import pytest

from mfm.corpora import get_corpus
from mfm.data.factor_files import read_true_factors, truth_path, write_factor_corpus
from mfm.data.factor_world import FactorWorld
from mfm.data.labels import decode_labels
from mfm.data.readers import read_corpus
from mfm.errors import ConfigurationError, DataFormatError

DIMS = {"text": 8, "timing": 5}
SAMPLES = (600, 20, 30)


def linear_r2(x, y):
    """R^2 on the second half of a least-squares fit on the first."""
    half = len(x) // 2
    x = np.c_[x, np.ones(len(x))]
    fitted = x[half:] @ np.linalg.lstsq(x[:half], y[:half], rcond=None)[0]
    return 1 - ((fitted - y[half:]) ** 2).mean(0) / y[half:].var(0)


def flat(split, name):
    return np.stack(split.features[name]).reshape(len(split), -1)


def test_a_world_is_repeatable_and_splits_and_modalities_are_their_own():
    one, again = FactorWorld(DIMS, seed=3).draw(SAMPLES), FactorWorld(DIMS, seed=3).draw(SAMPLES)
    other = FactorWorld({**DIMS, "video": 2}, seed=3).draw((5, 4, 30))
    for name in DIMS:
        np.testing.assert_array_equal(flat(one.splits["test"], name), flat(again.splits["test"], name))
        np.testing.assert_array_equal(flat(one.splits["test"], name), flat(other.splits["test"], name))
    assert not np.array_equal(one.splits["train"].label_factor[:20], one.splits["valid"].label_factor)
    assert not np.array_equal(one.splits["train"].label_factor, FactorWorld(DIMS).draw(SAMPLES).splits["train"].labels)


def test_nothing_global_is_drawn():
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    FactorWorld(DIMS).draw((10, 5, 5))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_linear_mixing_holds_all_factors_and_features_have_unit_scale():
    split = FactorWorld({"text": 20, "timing": 12}, depth=0, noise=0.05).draw((3000, 0, 0)).splits["train"]
    for name in ("text", "timing"):
        assert linear_r2(flat(split, name), np.c_[split.label_factor, split.private[name]]).min() > 0.97
        assert np.abs(np.concatenate(split.features[name]).std(axis=0) - 1).max() < 0.1
    assert linear_r2(flat(split, "text"), split.private["timing"]).max() < 0.02


def test_deeper_is_less_linear_and_still_there():
    shallow, deep = (
        linear_r2(flat(split, "text"), split.private["text"]).mean()
        for split in (FactorWorld({"text": 20}, depth=d).draw((3000, 0, 0)).splits["train"] for d in (1, 4))
    )
    assert shallow > 0.9
    assert deep < shallow - 0.05


def test_rendering_is_the_features_without_noise():
    world = FactorWorld(DIMS, noise=0.0, depth=2)
    split = world.draw((12, 0, 0)).splits["train"]
    for name in DIMS:
        rendered = world.render(name, split.label_factor, split.private[name])
        np.testing.assert_allclose(np.stack(split.features[name]), rendered, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigurationError, match="did you mean 'text'"):
        world.render("txt", split.label_factor, split.private["text"])


def test_a_modality_may_carry_no_evidence():
    world = FactorWorld(DIMS, evidence={"text": 1.0, "timing": 0.0})
    split = world.draw((3000, 0, 0)).splits["train"]
    assert linear_r2(flat(split, "text"), split.label_factor).min() > 0.9
    assert linear_r2(flat(split, "timing"), split.label_factor).max() < 0.02
    assert world.known_r2()["label_factor_from_view"] == {"text": 1.0, "timing": 0.0}


@pytest.mark.parametrize("disagreement", [0.0, 2**0.5, 4.0])
def test_views_share_the_evidence_as_said(disagreement):
    world = FactorWorld({"a": 3, "b": 3, "c": 3}, disagreement=disagreement)
    split = world.draw((6000, 0, 0)).splits["train"]
    views = np.stack(list(split.views.values()), axis=1)
    assert np.abs(views.std(axis=0) - 1).max() < 0.05
    alone = linear_r2(views[:, :1], split.label_factor)[0]
    assert alone == pytest.approx(world.known_r2()["label_factor_from_view"]["a"], abs=0.04)
    assert linear_r2(views, split.label_factor)[0] == pytest.approx(1.0)
    if disagreement == 2**0.5:  # independent parts
        assert np.abs(np.corrcoef(views.T) - np.eye(3)).max() < 0.05


def test_correlation_and_label_noise_are_those_given():
    world = FactorWorld(DIMS, correlation={"text": 0.6, "timing": 0.0}, label_noise=0.75)
    split = world.draw((8000, 0, 0)).splits["train"]
    assert np.corrcoef(split.label_factor[:, 0], split.private["text"][:, 0])[0, 1] == pytest.approx(0.6, abs=0.03)
    assert np.abs(np.corrcoef(split.label_factor[:, 0], split.private["text"][:, 1:].T)[0, 1:]).max() < 0.05
    known = world.known_r2()
    assert known["label_factor_from_private"] == pytest.approx({"text": 0.36, "timing": 0.0})
    found = np.corrcoef(split.label_factor[:, 0], split.labels[:, 0])[0, 1] ** 2
    assert found == pytest.approx(known["label_from_label_factor"]["y"], abs=0.03)


def test_missing_modalities_leave_one():
    split = FactorWorld(DIMS, missing=0.6).draw((4000, 0, 0)).splits["train"]
    there = np.stack(list(split.present.values()), axis=1)
    assert there.any(axis=1).all()
    # alone with probability .6 * .4, and half of the .36 that would have lost both
    assert there[:, 0].mean() == pytest.approx(0.4 + 0.18, abs=0.03)
    assert all(len(row) == n for row, n in zip(split.features["text"], split.lengths["text"], strict=True))


def test_lengths_dynamics_and_nuisance():
    world = FactorWorld(DIMS, steps={"text": 9, "timing": 20}, shortest=0.3, aligned=False, nuisance=2)
    split = world.draw((500, 0, 0)).splits["train"]
    assert split.lengths["text"].min() == 3
    assert split.lengths["text"].max() == 9
    assert set(split.lengths["timing"]) == set(range(7, 21))
    clean = world.render("text", split.label_factor, split.private["text"])
    longest = split.lengths["text"] == 9
    shown = np.stack([row for row, keep in zip(split.features["text"], longest, strict=True) if keep])
    assert 0.2 < (shown - clean[longest]).std() < 1.2  # what nuisance adds
    still = FactorWorld({"text": 4}, dynamics=0.0, noise=0.0)
    low, high = still.render("text", np.array([-1.0, 1.0]), np.zeros((2, 4)))
    moving = FactorWorld({"text": 4}, dynamics=2.0, noise=0.0)
    low2, high2 = moving.render("text", np.array([-1.0, 1.0]), np.zeros((2, 4)))
    assert np.ptp(high2 - low2, axis=0).max() > np.ptp(high - low, axis=0).max()


@pytest.mark.parametrize("corpus", ["mosi", "sims", "mmmo", "moud", "mustard"])
def test_labels_suit_the_corpus(corpus):
    records = FactorWorld(DIMS, corpus=corpus).draw((200, 0, 0)).records()
    values, mask = decode_labels(records.splits["train"], get_corpus(corpus), None)
    assert mask.all()
    assert len(np.unique(values)) > 1


@pytest.mark.parametrize("options", [{}, {"missing": 0.3, "shortest": 0.5}, {"aligned": False, "shortest": 0.4}])
@pytest.mark.parametrize("ending", [".h5", ".pkl"])
def test_files_come_back_through_the_readers(tmp_path, ending, options):
    corpus = FactorWorld(DIMS, **options).draw((12, 4, 6))
    path = write_factor_corpus(corpus, tmp_path / f"corpus{ending}")
    found, expected = read_corpus(path), corpus.records()
    truth = read_true_factors(path)
    for name, split in corpus.splits.items():
        assert tuple(found.splits[name].ids) == split.ids == truth[name].ids
        np.testing.assert_allclose(found.splits[name].labels["regression_labels"], split.labels, rtol=1e-6)
        for modality in DIMS:
            theirs, ours = found.splits[name].sequences[modality], expected.splits[name].sequences[modality]
            np.testing.assert_array_equal(theirs.lengths, ours.lengths)
            for index in range(len(split)):
                np.testing.assert_array_equal(theirs.steps(index), ours.steps(index))
            np.testing.assert_array_equal(truth[name].factors[modality], split.private[modality])
        np.testing.assert_array_equal(truth[name].factors["y"], split.label_factor)


def test_nothing_is_replaced_unasked_and_other_files_are_refused(tmp_path):
    corpus = FactorWorld(DIMS).draw((4, 2, 2))
    path = write_factor_corpus(corpus, tmp_path / "corpus.h5")
    for file in (path, truth_path(path)):
        kept = file.read_bytes()
        with pytest.raises(ConfigurationError, match="exists already"):
            write_factor_corpus(corpus, path)
        assert file.read_bytes() == kept
    write_factor_corpus(corpus, path, overwrite=True)
    with pytest.raises(ConfigurationError, match="no known ending"):
        write_factor_corpus(corpus, tmp_path / "corpus.csv")
    with pytest.raises(ConfigurationError, match="hold ratings"):
        write_factor_corpus(FactorWorld(DIMS, corpus="moud").draw((4, 2, 2)), tmp_path / "moud.pkl")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["corpus.factors.h5", "corpus.h5"]
    with pytest.raises(DataFormatError, match="does not exist"):
        read_true_factors(tmp_path / "other.h5")
    with h5py.File(tmp_path / "fake.factors.h5", "w"):
        pass
    with pytest.raises(DataFormatError, match="no true factors"):
        read_true_factors(tmp_path / "fake.h5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {}}, "at least one modality"),
        ({"dims": {"text": 0}}, "D >= 1"),
        ({"dims": {"y": 3}}, "cannot be called 'y'"),
        ({"depth": -1}, r"depth is -1, but must be in \[0, inf\)"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"shortest": 0.0}, r"shortest is 0, but must be in \(0, 1\]"),
        ({"missing": 1.0}, r"missing is 1, but must be in \[0, 1\)"),
        ({"correlation": -1.0}, r"correlation is -1, but must be in \(-1, 1\)"),
        ({"evidence": {"txt": 1.0}}, "evidence names an unknown modality 'txt': did you mean 'text'"),
        ({"evidence": {"text": 1.0}}, "evidence lacks audio, vision"),
        ({"steps": {"text": 3, "audio": 4, "vision": 3}}, "aligned modalities have one number of steps"),
        ({"private": 0, "correlation": 0.5}, "no private factor that could correlate"),
        ({"corpus": "pom"}, "targets and the world one label factor"),
        ({"corpus": "mosy"}, "did you mean 'mosi'"),
    ],
)
def test_impossible_worlds_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        FactorWorld(**options)


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="three numbers"):
        FactorWorld(DIMS).draw((1, 2))
