"""Panels of images hold the images that they say; the independent classifier reads what it has not seen."""

import numpy as np
import pytest
import torch

from mfm.analysis import generation as g
from mfm.analysis.image_figures import (
    ImagePanel,
    completion_panels,
    image_figure,
    image_shapes,
    recipe_panels,
    style_panels,
    swap_panels,
)
from mfm.analysis.image_scores import ImageClassifier
from mfm.data.batch import AffectBatch
from mfm.models import MFM, Codes, Normalizer

DIMS = {"a": 16, "b": 3 * 16}


@pytest.fixture(scope="module")
def made():
    torch.manual_seed(0)
    parts = {name: {"name": "conv", "width": 2, "hidden": 8} for name in ("encoder", "fusion", "decoder")}
    model, normalizer = MFM(DIMS, 3, z_y=2, z=3, f_y=4, f=4, **parts).eval(), Normalizer(DIMS)
    features = {name: torch.rand(6, 1, dim) for name, dim in DIMS.items()}
    ones = {name: torch.ones(6, dtype=torch.int64) for name in DIMS}
    present = {name: torch.ones(6, dtype=torch.bool) for name in DIMS}
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    ids = [f"s{place}" for place in range(6)]
    batch = AffectBatch(features, ones, present, target, torch.ones(6, dtype=torch.bool), ids)
    return model, normalizer, g.encode(model, None, normalizer, [batch]), batch


def decoded(model, z_y, z):
    with torch.no_grad():
        factors = model.factorize(Codes(z_y[None], {name: one[None] for name, one in z.items()}))
        return {name: x[0, 0].clamp(0, 1) for name, x in model.decode(factors, dict.fromkeys(DIMS, 1)).items()}


def test_swap_grid_has_content_by_row_and_style_by_column(made):
    model, normalizer, encoded, batch = made
    real = {name: {place: batch.features[name][place].numpy() for place in (0, 1, 4)} for name in DIMS}
    panels = swap_panels(model, normalizer, encoded, real, [0, 1], [4, 5])
    for panel, name in zip(panels, DIMS, strict=True):
        shape = image_shapes(model)[name]
        assert panel.images[0][0] is None
        assert panel.images[0][2] is None  # not among the real ones
        np.testing.assert_array_equal(panel.images[0][1].ravel(), batch.features[name][4, 0])
        np.testing.assert_array_equal(panel.images[2][0].ravel(), batch.features[name][1, 0])
        z = {one: code[5] for one, code in encoded.codes.z.items()}
        expected = decoded(model, encoded.codes.z_y[1], z)[name]
        assert panel.images[2][2].shape == shape
        np.testing.assert_allclose(panel.images[2][2].ravel(), expected, atol=1e-6)


def test_style_walk_passes_through_the_samples_own_image(made):
    model, normalizer, encoded, _ = made
    panels = style_panels(model, normalizer, encoded, 2, 401)
    own = decoded(model, encoded.codes.z_y[2], {name: code[2] for name, code in encoded.codes.z.items()})
    for panel, name in zip(panels, DIMS, strict=True):
        assert len(panel.images) == 3  # no more directions than dimensions
        for row in panel.images:
            nearest = min(float(np.abs(one.ravel() - own[name].numpy()).max()) for one in row)
            assert nearest < 0.02


def test_recipe_panels_keep_order_and_leave_absent_ones_out(made):
    model = made[0]
    sequences = {name: [np.full((1, dim), place / 10, np.float32) for place in range(5)] for name, dim in DIMS.items()}
    sequences["a"][1] = np.zeros((0, 16), np.float32)
    first, second = recipe_panels(model, sequences, 2, 2)
    assert first.images[0][1] is None
    assert [[round(float(one.mean()), 1) for one in row] for row in second.images] == [[0.0, 0.1], [0.2, 0.3]]


def test_completion_shows_what_was_seen_made_and_true(made):
    model, _, _, batch = made
    completed = {"b": [torch.full((1, 48), 0.5)] * 6}
    unknown = batch._replace(present={**batch.present, "b": torch.arange(6) != 3})
    seen, hidden = completion_panels(model, unknown, completed, [1, 3])
    np.testing.assert_array_equal(seen.images[0][1].ravel(), batch.features["a"][3, 0])
    assert float(hidden.images[0][0].mean()) == 0.5
    np.testing.assert_array_equal(hidden.images[1][0].ravel(), batch.features["b"][1, 0])
    assert hidden.images[1][1] is None


def test_the_figure_is_a_mosaic_in_order():
    grey, red = np.full((1, 2, 3), 0.5, np.float32), np.zeros((3, 2, 3), np.float32)
    red[0] = 1
    figure = image_figure([ImagePanel("g", [[grey, None]], ("r",)), ImagePanel("c", [[red], [red]])], "title")
    left, right = (axes.images[0].get_array() for axes in figure.axes)
    assert left.shape == (2, 7, 3)
    assert (left[:, :3] == 0.5).all()
    assert (left[:, 3:] == 1).all()  # gap and empty place
    assert right.shape == (5, 3, 3)
    assert (right[3:] == [1, 0, 0]).all()


def test_the_classifier_reads_images_it_has_not_seen_and_draws_nothing_globally():
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = generator.normal(0.3, 0.1, (300, 1, 8, 8)).astype(np.float32)
    for place, label in enumerate(labels):
        images[place, 0, 2 * label + 1] += 0.6  # a bar whose height is the class
    state = torch.random.get_rng_state()
    reader = ImageClassifier(images[:200], labels[:200], 3, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert reader.accuracy(images[200:], labels[200:]) > 0.95
    assert reader.accuracy(images[200:], (labels[200:] + 1) % 3) < 0.05
