"""A generated corpus with known factors through the whole product, and its scores from what `predict` wrote."""

import json
from pathlib import Path

import h5py
import pytest

from mfm.analysis.factorization import separation
from mfm.cli import main
from mfm.data.factor_files import read_true_factors, write_factor_corpus
from mfm.data.factor_world import FactorWorld


# that pickles hold what stores hold is proved, fast, in tests/data/test_factor_world.py
@pytest.mark.parametrize("ending", [".h5", pytest.param(".pkl", marks=pytest.mark.slow)])
def test_from_the_generator_to_scores(tmp_path, monkeypatch, ending, capsys):
    monkeypatch.chdir(tmp_path)
    world = FactorWorld({"text": 5, "timing": 3}, steps=4, private=2, missing=0.2)
    path = write_factor_corpus(world.draw((48, 12, 60)), Path(f"corpus{ending}"))
    quick = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--run_dir", "run"]
    assert main(["fit", "--config", "factors.yaml", "--data.path", str(path), *quick]) == 0
    checkpoint = "run/checkpoints/last.ckpt"
    assert main(["test", "--ckpt_path", checkpoint, "--output", "t.json"]) == 0
    scores = json.loads(Path("t.json").read_text())
    assert 0.0 <= scores["test/independence/text"] <= 2.0  # two terms
    assert 0.0 <= scores["test/independence/timing"] <= 2.0
    assert main(["predict", "--ckpt_path", checkpoint, "--output", "p.csv", "--factors", "f.h5"]) == 0
    truth = read_true_factors(path)["test"]
    with h5py.File("f.h5") as file:
        assert tuple(file["ids"].asstr()[:]) == truth.ids
        blocks = {name: values[:].astype(float) for name, values in file["f"].items()}
    found = separation(blocks, truth.factors, probe="ridge")
    assert set(found.r2) == {"y", "text", "timing"}
    assert all(score <= 1.0 for row in found.r2.values() for score in row.values())
