"""Models of the collection on the commands that examine checkpoints: each works, or says what is not there."""

import csv

import h5py
import pytest
import torch

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.data.synthetic import write_corpus

QUICK = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.max_lengths", "4")
MODELS = ("misa", "mult")
OURS = [name for name in shipped_configs() if name.endswith(("_misa.yaml", "_mult.yaml", "_modern.yaml"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small file with the structure of MMSA's MOSI, and a run of each model on it."""
    place = tmp_path_factory.mktemp("collection")
    write_corpus("mosi", place / "mosi.pkl", samples=(12, 6, 6), seed=4)
    for model in MODELS:
        given = ["--data.path", str(place / "mosi.pkl"), "--run_dir", str(place / model), *QUICK]
        assert main(["fit", "--config", f"collection/mosi_{model}.yaml", *given]) == 0
    return place


def checkpoint(folder, model):
    return str(folder / model / "checkpoints/best.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_every_configuration_from_file_to_scores(name, tmp_path):
    corpus = name.partition("/")[2].partition("_")[0]
    path, run = tmp_path / f"{corpus}.pkl", tmp_path / "run"
    write_corpus(corpus, path, samples=(10, 5, 5), seed=1)
    assert main(["fit", "--config", name, "--data.path", str(path), "--run_dir", str(run), *QUICK]) == 0
    best = str(run / "checkpoints/best.ckpt")
    assert torch.load(best, weights_only=True)["state_dict"]
    assert main(["test", "--ckpt_path", best]) == 0
    some = ["--data.modalities", "[text, audio]", "--run_dir", str(tmp_path / "two"), *QUICK]
    assert main(["fit", "--config", name, "--data.path", str(path), *some]) == 0


def test_robustness_compares_models_of_any_kind(folder, tmp_path):
    given = ["--protocols", "subsets", "--subsets", "text", "audio+text+vision", "--draws", "1"]
    for model, other in (MODELS, MODELS[::-1]):
        output = tmp_path / model
        compared = ["--compare", f"{other}={checkpoint(folder, other)}", "--output", str(output)]
        assert main(["robustness", "--ckpt_path", checkpoint(folder, model), *given, *compared]) == 0
        with (output / "robustness.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["observed"] == "text"]
        assert {"own", "zero_fill", other} <= {row["method"] for row in rows}


def test_predictions_of_misa_bring_its_representations(folder, tmp_path):
    given = ["--output", str(tmp_path / "p.csv"), "--factors", str(tmp_path / "f.h5")]
    assert main(["predict", "--ckpt_path", checkpoint(folder, "misa"), *given]) == 0
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["z/y"].shape == (6, 3 * 128)
        assert file["z/text"].shape == (6, 128)


@pytest.mark.parametrize(
    ("model", "command", "reason"),
    [
        ("misa", ["interpret"], "MISAModule generates no sequences"),
        ("misa", ["generate", "--mode", "swap"], "MISAModule generates no sequences"),
        ("mult", ["reconstruct", "--missing", "text"], "NetworkModule is not made of factors"),
    ],
    ids=["interpret", "generate", "reconstruct"],
)
def test_what_a_model_has_not_is_said(model, command, reason, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--ckpt_path", checkpoint(folder, model)]) == 2
    said = capsys.readouterr().err.strip()
    assert reason in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())
