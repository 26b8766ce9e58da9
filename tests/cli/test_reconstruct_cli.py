"""`mfm reconstruct`, as a user runs it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfm.cli import main
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus

FAST = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_corpus("mosi", folder / "mosi.pkl", samples=(24, 12, 13), seed=3)
    shared = ["--config", "demo.yaml", "--data.path", str(folder / "mosi.pkl"), *FAST]
    for name, options in (("plain", []), ("joint", ["--model.surrogate", "joint"])):
        assert main(["fit", *shared, "--run_dir", str(folder / name), *options]) == 0
    return folder


def test_file_units_lengths_and_scores(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    best = str(runs / "joint/checkpoints/best.ckpt")
    assert main(["reconstruct", "--ckpt_path", best, "--missing", "text", "vision", "--output", "r.h5"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "r.json"
    split = read_corpus(runs / "mosi.pkl").splits["test"]
    scores = json.loads(Path("r.json").read_text())["scores"]
    with h5py.File("r.h5") as file:
        assert list(file["ids"].asstr()) == list(split.ids)
        assert set(file["features"]) == {"text", "vision"}
        for name in ("text", "vision"):
            lengths = file[f"lengths/{name}"][:]
            own = np.asarray(split.sequences[name].lengths)
            assert (lengths[own > 0] == own[own > 0]).all()
            assert np.isfinite(file[f"features/{name}"][:]).all()
            assert set(scores[name]) == {"surrogate", "train_mean", "ridge"}
            assert scores[name]["train_mean"]["r2"] <= 0
            assert len(scores[name]["ridge"]["r2_per_feature"]) == file[f"features/{name}"].shape[2]
            assert scores[name]["surrogate"]["steps"] == own.sum()


@pytest.mark.parametrize(
    ("run", "options", "named"),
    [
        ("plain", ["--missing", "text"], "--model.surrogate posthoc"),
        ("joint", [], "--missing"),
        ("joint", ["--missing", "txt"], "did you mean 'text'"),
        ("joint", ["--missing", "text", "audio", "vision"], "nothing is observed"),
    ],
)
def test_refusals(run, options, named, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    best = str(runs / run / "checkpoints/best.ckpt")
    assert main(["reconstruct", "--ckpt_path", best, "--output", "r.h5", *options]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
