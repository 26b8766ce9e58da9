"""`mfm generate` where samples lack modalities or labels, where there are several targets, and where lengths differ."""

import dataclasses
import json

import numpy as np
import pytest

from mfm.cli import main
from mfm.data.arrays import ArraySequences
from mfm.data.readers import read_corpus
from mfm.data.store import write_store
from mfm.data.synthetic import write_corpus

FAST = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.max_lengths", "6")
MODES = ("swap", "prior", "traverse", "interpolate")
SOME_MODES = [pytest.param(mode, marks=[] if mode in ("swap", "traverse") else [pytest.mark.slow]) for mode in MODES]
NAMES = ("audio", "text", "vision")


def with_gaps(split):
    """Sample i lacks modality i mod 4, if there is one of that number; every modality has lengths of its own."""
    sequences = {}
    for place, (name, own) in enumerate(sorted(split.sequences.items())):
        steps = [0 if i % 4 == place else 1 + place + i % 3 for i in range(len(split))]
        sequences[name] = ArraySequences([own.steps(i)[:one] for i, one in enumerate(steps)], dim=own.dim)
    return dataclasses.replace(split, sequences=sequences)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("edges")
    for corpus in ("mosi", "pom", "iemocap"):
        write_corpus(corpus, place / f"{corpus}.pkl", samples=(40, 8, 12), seed=3)
    corpus = read_corpus(place / "mosi.pkl")
    splits = {name: with_gaps(split) for name, split in corpus.splits.items()}
    for aligned, name in ((True, "gaps"), (False, "unaligned")):
        write_store(dataclasses.replace(corpus, splits=splits, aligned=aligned), place / f"{name}.h5")
    bare = {name: dataclasses.replace(split, labels={}) for name, split in corpus.splits.items()}
    write_store(dataclasses.replace(corpus, splits=bare), place / "unlabelled.h5")
    apart = {
        name: ArraySequences([own.steps(i)[: 3 * (i % 3 == k)] for i in range(12)], dim=own.dim)
        for k, (name, own) in enumerate(sorted(corpus.splits["test"].sequences.items()))
    }
    test = dataclasses.replace(corpus.splits["test"], sequences=apart)
    write_store(dataclasses.replace(corpus, splits={**corpus.splits, "test": test}), place / "apart.h5")
    for run, data, options in (
        ("plain", "mosi.pkl", []),
        ("joint", "mosi.pkl", ["--model.surrogate", "joint"]),
        ("posthoc", "mosi.pkl", ["--model.surrogate", "posthoc", "--model.init_from", str(best(place, "plain"))]),
        ("without", "mosi.pkl", ["--data.labels", "false"]),
        ("pom", "pom.pkl", ["--data", "POMDataModule"]),
        ("iemocap", "iemocap.pkl", ["--data", "IEMOCAPDataModule"]),
    ):
        config = ["--config", "demo.yaml", *options[: 2 * (options[:1] == ["--data"])]]
        rest = options[2 * (options[:1] == ["--data"]) :]
        given = [*config, "--data.path", str(place / data), *FAST, *rest, "--run_dir", str(place / run)]
        assert main(["fit", *given]) == 0
    return place


def best(folder, run):
    return folder / run / "checkpoints/best.ckpt"


def generate(folder, run, mode, output, *options):
    return main(
        ["generate", "--ckpt_path", str(best(folder, run)), "--mode", mode, *options, "--output", str(output / "g.h5")]
    )


def lengths(path):
    split = read_corpus(path / "g.h5").splits["test"]
    return {name: split.sequences[name].lengths for name in NAMES}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("run", ["joint", pytest.param("posthoc", marks=pytest.mark.slow)])
def test_a_surrogate_generates_what_samples_lack(run, mode, folder, tmp_path):
    assert generate(folder, run, mode, tmp_path, "--count", "5", "--data.path", str(folder / "gaps.h5")) == 0
    assert all((found > 0).all() for found in lengths(tmp_path).values())
    readers = json.loads((tmp_path / "g.json").read_text())["scores"]
    assert {"own head", "independent ridge"} <= set(readers)
    split = read_corpus(tmp_path / "g.h5").splits["test"]
    assert all(np.isfinite(split.sequences[name].steps(i)).all() for name in NAMES for i in range(len(split)))


def test_without_a_surrogate_what_the_style_lacks_is_left_out(folder, tmp_path):
    source = read_corpus(folder / "gaps.h5").splits["test"]
    options = ["--content", source.ids[3], "--style", source.ids[1], "--data.path", str(folder / "gaps.h5")]
    assert generate(folder, "plain", "swap", tmp_path, *options) == 0
    found = lengths(tmp_path)
    assert {name: int(one[0]) for name, one in found.items()} == {
        name: int(source.sequences[name].lengths[1]) for name in NAMES
    }
    assert found["text"][0] == 0


@pytest.mark.parametrize("aligned", [True, False])
def test_how_long_an_inferred_modality_is(aligned, folder, tmp_path):
    """As the longest one that was observed, or as its own median where steps are no common moments."""
    path = folder / ("gaps.h5" if aligned else "unaligned.h5")
    source = read_corpus(path).splits["test"]
    options = ["--content", source.ids[3], "--style", source.ids[1], "--data.path", str(path)]
    assert generate(folder, "joint", "swap", tmp_path, *options) == 0
    own = source.sequences["text"].lengths
    longest = max(int(source.sequences[name].lengths[1]) for name in NAMES)
    assert own[1] == 0
    median = int(np.sort(own[own > 0])[(np.count_nonzero(own) - 1) // 2])
    assert longest != median
    assert lengths(tmp_path)["text"][0] == (longest if aligned else median)


def test_nothing_lies_between_samples_that_share_no_modality(folder, tmp_path, capsys):
    ids = read_corpus(folder / "apart.h5").splits["test"].ids
    options = ["--content", ids[0], "--style", ids[1], "--data.path", str(folder / "apart.h5")]
    assert generate(folder, "plain", "interpolate", tmp_path, *options) == 2
    assert "have no modality in common" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", SOME_MODES)
def test_an_unlabelled_file_is_read_by_the_model_alone(mode, folder, tmp_path, capsys):
    options = ["--count", "3", "--data.path", str(folder / "unlabelled.h5")]
    assert generate(folder, "plain", mode, tmp_path, *options) == 0
    found = json.loads((tmp_path / "g.json").read_text())
    assert set(found["scores"]) == {"head on the code", "own head", "constant"}
    assert all(set(one) == {"generated"} for one in found["scores"].values())
    assert "No independent reader was fitted" in capsys.readouterr().out
    assert found["intended"] == "what the head says of the code"


@pytest.mark.parametrize("mode", SOME_MODES)
def test_a_model_that_reads_no_label_is_not_checked(mode, folder, tmp_path, capsys):
    status = generate(folder, "without", mode, tmp_path, "--count", "3")
    said = capsys.readouterr()
    if mode == "traverse":
        assert status == 2
        assert "MFMModule reads no label" in said.err
        assert not list(tmp_path.iterdir())
        return
    assert status == 0
    assert "No label is intended" in said.out
    found = json.loads((tmp_path / "g.json").read_text())
    assert (found["scores"], found["intended"]) == ({}, None)
    assert not read_corpus(tmp_path / "g.h5").splits["test"].labels


@pytest.mark.parametrize(
    ("run", "target", "metric", "count"),
    [("pom", "persuasive", "mae", 16), pytest.param("iemocap", "sad", "acc", 4, marks=pytest.mark.slow)],
)
def test_one_of_several_targets_is_walked_and_scored(run, target, metric, count, folder, tmp_path, capsys):
    assert generate(folder, run, "traverse", tmp_path, "--count", "2", "--target", target) == 0
    found = json.loads((tmp_path / "g.json").read_text())
    assert (found["target"], found["walk"]["along"]) == (target, target)
    asked = np.linspace(found["walk"]["lowest"], found["walk"]["highest"], 7)
    assert np.corrcoef(asked, found["walk"]["read"]["head on the code"])[0, 1] > 0.9
    assert target in capsys.readouterr().out
    labels = next(iter(read_corpus(tmp_path / "g.h5").splits["test"].labels.values()))
    assert labels.shape[1] == count  # all targets are written, whichever is scored

    assert generate(folder, run, "swap", tmp_path, "--count", "6") == 0
    everything = json.loads((tmp_path / "g.json").read_text())["scores"]["own head"]["real"]
    assert generate(folder, run, "swap", tmp_path, "--count", "6", "--target", target) == 0
    assert json.loads((tmp_path / "g.json").read_text())["scores"]["own head"]["real"][metric] != everything[metric]


def test_an_unknown_target_is_one_sentence(folder, tmp_path, capsys):
    assert generate(folder, "iemocap", "swap", tmp_path, "--target", "sda") == 2
    assert "--target: IEMOCAP has no 'sda': did you mean 'sad'?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
