"""`mfm interpret` as a user runs it, on a small corpus, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import torch

from mfm.analysis.contribution import constant_prediction
from mfm.cli import main
from mfm.corpora import MOSI
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus

FEW = ("--resamples", "10", "--permutations", "9", "--flow_samples", "4")


def fit(folder, corpus="mosi", samples=(24, 8, 13), name="run", config="demo.yaml"):
    path = folder / f"{name}.pkl"
    write_corpus(corpus, path, samples=samples, seed=3)
    trainer = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")
    data = ("--config", config, "--data.path", str(path), "--data.max_lengths", "6", "--run_dir", str(folder / name))
    assert main(["fit", *data, *trainer]) == 0
    return path, folder / name / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("interpret"))


def interpret(checkpoint, *options):
    return main(["interpret", "--ckpt_path", str(checkpoint), *FEW, *map(str, options)])


def test_everything_is_written(trained, capsys):
    path, checkpoint = trained
    assert interpret(checkpoint) == 0
    folder = checkpoint.parents[1] / "interpretation"
    assert sorted(file.name for file in folder.iterdir()) == [
        "contribution.png",
        "gradient_flow.png",
        "interpretation.csv",
        "interpretation.json",
        "interpretation.txt",
        "ratios.png",
    ]
    out = capsys.readouterr().out
    assert (folder / "interpretation.txt").read_text() in out
    assert out.splitlines()[-1].endswith("interpretation.json")
    found = json.loads((folder / "interpretation.json").read_text())
    names = {"audio", "text", "vision"}
    assert set(found["information"]) == set(found["flow"]) == set(found["contribution"]["shapley"]) == names
    assert found["samples"] == 13
    assert found["options"]["seed"] == 0
    with (folder / "interpretation.csv").open() as file:
        assert {row["modality"] for row in csv.DictReader(file) if row["analysis"] == "shapley"} == names
    labels = {name: split.labels["regression_labels"] for name, split in read_corpus(path).splits.items()}
    median = float(np.median(labels["train"]))
    assert found["contribution"]["scores"]["none"] == pytest.approx(np.abs(labels["test"] - median).mean(), rel=1e-5)
    worth = torch.tensor(labels["train"])
    assert constant_prediction(MOSI, worth, worth.isfinite()).item() == pytest.approx(median)


def test_metric_of_all_modalities_is_what_test_reports(trained, tmp_path):
    _, checkpoint = trained
    assert interpret(checkpoint, "--output", tmp_path / "a") == 0
    assert main(["test", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "test.json")]) == 0
    assert main([
        *("test", "--ckpt_path", str(checkpoint), "--data.missing", "[text]"),
        *("--output", str(tmp_path / "without.json")),
    ]) == 0  # fmt: skip
    scores = json.loads((tmp_path / "a" / "interpretation.json").read_text())["contribution"]["scores"]
    for file, subset in (("test", "audio+text+vision"), ("without", "audio+vision")):
        expected = json.loads((tmp_path / f"{file}.json").read_text())["test/mae"]
        assert scores[subset] == pytest.approx(expected, rel=1e-5)


def test_options_and_repeatability(trained, tmp_path):
    _, checkpoint = trained
    options = ("--split", "train", "--samples", "12", "--kernel", "linear", "--summary", "mean", "--seed", "5")
    options = (*options, "--metric", "acc2_has0", "--data.batch_size", "5")
    results = []
    for name in "ab":
        assert interpret(checkpoint, "--output", tmp_path / name, *options) == 0
        results.append(json.loads((tmp_path / name / "interpretation.json").read_text()))
    for one in results:
        one.pop("command")
    assert results[0] == results[1]
    assert results[0]["samples"] == 24
    assert results[0]["contribution"]["metric"] == "acc2_has0"
    assert {one["samples"] for one in results[0]["information"].values()} == {12}
    assert {one["kernel"] for one in results[0]["information"].values()} == {"linear"}


def test_a_modality_taken_away(trained):
    _, checkpoint = trained
    assert interpret(checkpoint, "--data.missing", "[text]") == 0
    found = json.loads((checkpoint.parents[1] / "interpretation_without_text" / "interpretation.json").read_text())
    assert set(found["information"]) == {"audio", "vision"} == set(found["contribution"]["shapley"])


def test_other_modalities_and_classes(tmp_path):
    _, checkpoint = fit(tmp_path, corpus="iemocap", samples=(12, 8, 9), config="iemocap.yaml")
    assert interpret(checkpoint, "--output", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "interpretation.json").read_text())["contribution"] is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--kernel", "rfb"), "did you mean 'rbf'"),
        (("--summary", "mea"), "did you mean 'mean'"),
        (("--split", "tset"), "did you mean 'test'"),
        (("--metric", "mea"), "did you mean 'mae'"),
        (("--ids", "nobody"), "no sample is called 'nobody'"),
        (("--data.limit", "3"), "HSIC needs at least 4 samples that have a modality, and there are: audio 3"),
        (("--data.limt", "3"), "data.limit"),
        (("--trainer.max_epochs", "3"), "unknown option '--trainer.max_epochs'"),
        (("--permutations", "0"), "permutations is 0"),
        (("--segments", "-1"), "segments is -1"),
        (("--device", "abacus"), "--device 'abacus' cannot be used here"),
        (("--metric", "corr"), "'corr' is not defined for the constant prediction"),
    ],
)
def test_refusals(trained, tmp_path, capsys, options, sentence):
    _, checkpoint = trained
    status = interpret(checkpoint, "--output", tmp_path / "out", *options)
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert sentence in error
    assert error.startswith("mfm interpret: ")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_checkpoints_that_are_none(tmp_path, capsys):
    assert main(["interpret"]) == 2
    assert "needs --ckpt_path" in capsys.readouterr().err
    assert interpret(tmp_path / "no.ckpt") == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "bad.ckpt").write_bytes(b"nothing")
    assert interpret(tmp_path / "bad.ckpt") == 1
    assert "not a readable checkpoint" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["interpret", "--help"])
    assert exit_.value.code == 0
    assert "gradient flow" in capsys.readouterr().out
