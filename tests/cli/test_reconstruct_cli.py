"""`mfm reconstruct`, as a user runs it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfm.cli import main
from mfm.data.readers import read_corpus


def test_file_units_lengths_and_scores(corpus_file, surrogate_run, workplace, capsys):
    best = str(surrogate_run / "checkpoints/best.ckpt")
    assert main(["reconstruct", "--ckpt_path", best, "--missing", "text", "vision", "--output", "r.h5"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "r.json"
    split = read_corpus(corpus_file).splits["test"]
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
    ("trained", "options", "named"),
    [
        ("finished_run", ["--missing", "text"], "--model.surrogate posthoc"),
        ("surrogate_run", [], "--missing"),
        ("surrogate_run", ["--missing", "txt"], "did you mean 'text'"),
        ("surrogate_run", ["--missing", "text", "audio", "vision"], "nothing is observed"),
    ],
)
def test_refusals(trained, options, named, request, workplace, capsys):
    best = str(request.getfixturevalue(trained) / "checkpoints/best.ckpt")
    capsys.readouterr()
    assert main(["reconstruct", "--ckpt_path", best, "--output", "r.h5", *options]) == 2
    assert named in capsys.readouterr().err
    assert not list(workplace.iterdir())
