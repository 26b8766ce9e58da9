"""Prediction columns, factor files and figures."""

import csv
import math

import h5py
import numpy as np
import pytest
import torch

from mfm.analysis.figures import predicted_against_true, save_figure, training_curves
from mfm.analysis.results import prediction_columns, write_factors, write_predictions
from mfm.corpora import CORPORA, IEMOCAP, MOSI, YOUTUBE


def example(corpus, count=6):
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(count, corpus.output_dim, generator=generator)
    if corpus.task == "multiclass":
        target = torch.randint(len(corpus.classes), (count,), generator=generator)
    elif corpus.task == "regression":
        target = torch.randn(count, len(corpus.targets), generator=generator)
    else:
        target = torch.randint(2, (count, len(corpus.targets)), generator=generator).float()
    return prediction, target, torch.ones_like(target, dtype=torch.bool)


def test_probabilities_are_softmax_and_sigmoid():
    prediction, target, mask = example(YOUTUBE)
    columns = prediction_columns(YOUTUBE, prediction, target, mask)
    shares = np.array([[float(cell) for cell in columns[f"p_{name}"]] for name in YOUTUBE.classes]).T
    expected = np.exp(prediction.numpy()) / np.exp(prediction.numpy()).sum(1, keepdims=True)
    assert shares == pytest.approx(expected, abs=1e-6)
    assert columns["prediction"] == [YOUTUBE.classes[i] for i in expected.argmax(1)]
    prediction, target, mask = example(IEMOCAP)
    columns = prediction_columns(IEMOCAP, prediction, target, mask)
    assert float(columns["p_sad"][0]) == pytest.approx(1 / (1 + math.exp(-prediction[0, 2].item())), abs=1e-6)
    assert list(columns)[:3] == ["target_neutral", "prediction_neutral", "p_neutral"]


def test_missing_labels_are_empty_cells(tmp_path):
    prediction, target, mask = example(MOSI)
    mask[2] = False
    columns = prediction_columns(MOSI, prediction, target, mask)
    write_predictions(tmp_path / "p.csv", [f"v{i},x" for i in range(6)], ["test"] * 6, columns)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert rows[2]["target"] == ""
    assert rows[3]["id"] == "v3,x"
    assert float(rows[3]["prediction"]) == pytest.approx(prediction[3, 0].item(), rel=1e-6)


def test_factor_file_has_names_and_shapes(tmp_path):
    blocks = {"y": torch.randn(4, 3), "text": torch.randn(4, 2)}
    write_factors(tmp_path / "f.h5", list("abcd"), ["test"] * 4, blocks, blocks, {"checkpoint": "x"})
    with h5py.File(tmp_path / "f.h5") as file:
        assert [name.decode() for name in file["ids"][:]] == list("abcd")
        assert np.array_equal(file["z/text"][:], blocks["text"].numpy())
        assert file.attrs["format"] == "mfm-factors"


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_corpus_can_be_drawn(name, tmp_path):
    corpus = CORPORA[name]
    figure = predicted_against_true(corpus, *example(corpus, 30), title=corpus.title)
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert len(visible) == len(corpus.targets)
    save_figure(figure, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_scatter_says_what_numpy_says():
    prediction, target, mask = example(MOSI, 40)
    figure = predicted_against_true(MOSI, prediction, target, mask, title="")
    text = figure.axes[0].texts[0].get_text()
    assert f"MAE {np.abs(prediction.numpy() - target.numpy()).mean():.3f}" in text
    assert f"r {np.corrcoef(prediction.ravel(), target.ravel())[0, 1]:.3f}" in text


def test_curves_mark_the_best_epoch():
    rows = [{"epoch": e, "train/loss": 2.0 - e, "val/loss": 2.0, "val/mae": m} for e, m in enumerate([0.9, 0.7, 0.8])]
    figure = training_curves(rows, "val/mae", "min")
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "kept: 0.700, epoch 1" in labels
