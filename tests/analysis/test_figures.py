"""What the figures of a run show, read back from their axes."""

import numpy as np
import pytest
import torch

from mfm.analysis.figures import training_curves
from mfm.analysis.generation_figure import Shown, generation_figure
from mfm.corpora import get_corpus

PARTS = ("mmd", "prediction", "reconstruction/text", "surrogate/latent", "surrogate/reconstruction/text")
SHOWN = [
    Shown("content (real, sentiment +3.0)", {"audio": np.zeros((4, 2)), "text": np.ones((4, 40))}),
    Shown("generated", {"audio": np.zeros((0, 2)), "text": np.ones((3, 40))}),
]


@pytest.mark.parametrize(("mode", "best", "word"), [("min", (1, 0.5), "lower"), ("max", (0, 0.9), "higher")])
def test_training_curves_mark_the_epoch_that_is_kept(mode, best, word):
    errors = (0.9, 0.5, 0.7, np.nan)
    rows = [{"epoch": epoch, "train/loss": 1.0, "val/loss": 2.0, "val/mae": mae} for epoch, mae in enumerate(errors)]
    loss, metric, parts = training_curves(rows, "val/mae", mode).axes
    (marked,) = (line for line in metric.lines if line.get_label().startswith("kept"))
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == best
    assert word in metric.get_ylabel()
    assert {line.get_label(): set(line.get_ydata()) for line in loss.lines} == {"training": {1.0}, "validation": {2.0}}
    assert not parts.lines


def test_parts_of_a_surrogate_are_dashed_in_the_colour_of_the_models_own():
    rows = [{"epoch": epoch, "train/loss": 1.0, **{f"train/{name}": 1.0 for name in PARTS}} for epoch in range(2)]
    lines = {line.get_label(): line for line in training_curves(rows, "val/mae", "min").axes[2].lines}
    assert sorted(lines) == sorted(PARTS)
    own, surrogate = lines["reconstruction/text"], lines["surrogate/reconstruction/text"]
    assert own.get_color() == surrogate.get_color()
    assert (own.get_linestyle(), surrogate.get_linestyle()) == ("-", "--")
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == len(PARTS)


def drawn(labels, style=None):
    labels = torch.tensor(labels)[:, None]
    readings = {"own head": labels + 0.5, "independent ridge": labels - 0.5}
    known = torch.ones_like(labels, dtype=torch.bool)
    figure = generation_figure(get_corpus("mosi"), readings, labels, known, {}, SHOWN, "title", style=style)
    return figure.axes


def test_generated_samples_are_scattered_beside_a_row_of_maps_a_sample():
    scatter, *maps, bar = drawn([-1.0, 2.0])
    offsets = {one.get_label(): one.get_offsets().tolist() for one in scatter.collections}
    assert offsets == {"own head": [[-1.0, -0.5], [2.0, 2.5]], "independent ridge": [[-1.0, -1.5], [2.0, 1.5]]}
    assert [axes.get_title() for axes in maps] == ["audio: 2 features", "", "text: 32 of 40 features", ""]
    assert [axes.get_ylabel().partition("\n")[0] for axes in maps] == ["content", "generated", "", ""]
    assert [text.get_text() for axes in maps for text in axes.texts] == ["absent"]
    assert [len(axes.images) for axes in maps] == [1, 0, 1, 1]
    assert "training mean" in bar.get_ylabel()


def test_a_single_exchange_lies_between_the_labels_of_its_two_samples():
    panel = drawn([2.0], style=torch.tensor([[-3.0]]))[0]
    levels = {line.get_label(): set(line.get_ydata()) for line in panel.lines if line.get_label().startswith("label")}
    assert levels == {"label of content: +2.0": {2.0}, "label of style: -3.0": {-3.0}}
    assert [text.get_text() for text in panel.texts] == ["+2.50", "+1.50"]
