"""Images through the commands: as a user runs them."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfm.analysis.generation import choose_pairs, encode, realise, swap
from mfm.analysis.image_figures import image_shapes
from mfm.analysis.image_scores import ImageClassifier
from mfm.cli import main
from mfm.cli.loading import load_run
from mfm.data.readers import read_corpus

pytest.importorskip("sklearn")
FIT = ("fit", "--config", "digits.yaml", "--trainer.accelerator", "cpu")
SHORT = ("--trainer.max_epochs", "1", "--data.pairs", "1", "--data.limit", "60")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "run"
    assert main([*FIT, *SHORT, "--run_dir", str(folder)]) == 0
    return folder


def best(run):
    return str(run / "checkpoints/best.ckpt")


def test_no_path_is_needed_and_the_checkpoint_stands_alone(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["test", "--ckpt_path", best(run), "--data.missing", "[styled]", "--output", "m.json"]) == 0
    assert main(["predict", "--ckpt_path", best(run), "--output", "p.csv"]) == 0
    assert len(Path("p.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize("mode", ["swap", "prior", "traverse", "interpolate"])
def test_generated_images_are_a_store_that_the_model_tests_on(mode, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--ckpt_path", best(run), "--mode", mode, "--count", "3", "--output", "g.h5"]) == 0
    assert sorted(file.name for file in Path().iterdir()) == ["g.h5", "g.json", "g.png"]
    split = read_corpus("g.h5").splits["test"]
    assert {name: one.dim for name, one in split.sequences.items()} == {"plain": 64, "styled": 768}
    if mode == "swap":
        assert main(["test", "--ckpt_path", best(run), "--data.path", "g.h5", "--output", "m.json"]) == 0


def test_a_missing_image_is_completed_with_a_figure(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reconstruct", "--ckpt_path", best(run), "--missing", "styled", "--output", "r.h5"]) == 0
    assert sorted(file.name for file in Path().iterdir()) == ["r.h5", "r.json", "r.png"]
    with h5py.File("r.h5") as file:
        assert file["features/styled"].shape == (60, 1, 768)
    scores = json.loads(Path("r.json").read_text())["scores"]["styled"]
    assert scores["train_mean"]["r2"] <= 0  # the training mean is what the normalised 0 stands for


@pytest.mark.slow
def test_exchanged_codes_draw_the_contents_digit(tmp_path):
    assert main([*FIT, "--run_dir", str(tmp_path / "run")]) == 0
    runs = {name: load_run(best(tmp_path / "run"), [], split=name, command="test") for name in ("train", "valid")}
    module = runs["train"].module
    encoded = encode(module.model, None, module.normalizer, runs["valid"].data.predict_dataloader())
    recipe = swap(encoded, choose_pairs(encoded, 300, seed=0))
    made = realise(module.model, module.normalizer, recipe)
    for name, shape in image_shapes(module.model).items():
        batches = list(runs["train"].data.predict_dataloader())
        real = np.concatenate([batch.features[name].numpy().reshape(-1, *shape) for batch in batches])
        reader = ImageClassifier(real, np.concatenate([batch.target.numpy() for batch in batches]), 10, seed=7)
        images = np.clip(np.stack(made[name]).reshape(-1, *shape), 0, 1)
        assert reader.accuracy(images, encoded.target[recipe.content].numpy()) > 0.8
        assert reader.accuracy(images, encoded.target[recipe.style].numpy()) < 0.25  # chance is .1
