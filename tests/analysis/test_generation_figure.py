"""The figure of exchanged factors: which pair it shows, and what it says of a single one."""

import numpy as np
import torch

from mfm.analysis import generation as g
from mfm.analysis.generation_figure import Shown, generation_figure
from mfm.cli.generated import _label_in_words, _most_opposite
from mfm.corpora import MOSI, get_corpus
from mfm.models.mfm import Codes

MOST_POSITIVE = torch.tensor([[2.4]])


def exchanged(target, mask, content, style):
    """Samples of which only labels matter, and a recipe of which only pairs do."""
    count = len(target)
    lengths = {"text": torch.ones(count, dtype=torch.int64)}
    codes = Codes(torch.zeros(count, 1), {"text": torch.zeros(count, 1)})
    names = tuple("abcdefgh"[:count])
    encoded = g.Encoded(names, codes, lengths, np.zeros((count, 1)), torch.zeros(count, 1), target, mask)
    recipe = g.Recipe(names[: len(content)], codes, lengths, torch.tensor(content), torch.tensor(style))
    return encoded, recipe


def test_the_shown_pair_has_the_most_different_known_labels():
    target, mask = torch.tensor([[-3.0], [1.0], [2.4], [-2.0]]), torch.ones(4, 1, dtype=torch.bool)
    pairs = ([1, 2, 0, 3], [0, 3, 2, 1])  # differences 4, 4.4, 5.4, 3
    assert _most_opposite(*exchanged(target, mask, *pairs), 0) == 2
    mask[0] = False
    assert _most_opposite(*exchanged(target, mask, *pairs), 0) == 1
    assert _most_opposite(*exchanged(target, torch.zeros_like(mask), *pairs), 0) == 0
    classes, all_known = torch.tensor([0, 2, 2, 1]), torch.ones(4, dtype=torch.bool)
    assert _most_opposite(*exchanged(classes, all_known, [1, 3, 0], [2, 1, 2]), 0) == 2


def test_labels_in_words():
    known = torch.ones(2, 1, dtype=torch.bool)
    encoded, _ = exchanged(torch.tensor([[-1.2], [0.0]]), known, [0], [1])
    assert _label_in_words(MOSI, encoded, 0, 0) == ", sentiment -1.2"
    unknown, _ = exchanged(torch.tensor([[-1.2], [0.0]]), ~known, [0], [1])
    assert _label_in_words(MOSI, unknown, 0, 0) == ""
    youtube = get_corpus("youtube")
    classes, _ = exchanged(torch.tensor([2, 0]), torch.ones(2, dtype=torch.bool), [0], [1])
    assert _label_in_words(youtube, classes, 0, 0) == f", {youtube.classes[2]}"


def drawn(intended, style, read):
    shown = [Shown(title, {"text": np.zeros((3, 2), dtype=np.float32)}) for title in ("content", "style", "both")]
    figure = generation_figure(
        MOSI, {"own head": read}, intended, torch.ones_like(intended, dtype=torch.bool), {}, shown, "swap", style=style
    )
    return figure.axes[0]


def test_a_single_exchange_is_drawn_between_the_labels_of_its_two_samples():
    axes = drawn(MOST_POSITIVE, torch.tensor([[-3.0]]), torch.tensor([[1.9]]))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "label of content: +2.4",
        "label of style: -3.0",
    ]
    heights = [line.get_ydata()[0] for line in axes.lines]
    np.testing.assert_allclose(heights, [2.4, -3.0, 1.9], rtol=1e-6)
    assert [text.get_text() for text in axes.texts] == ["+1.90"]


def test_many_exchanges_are_drawn_as_read_against_intended():
    intended = MOST_POSITIVE.repeat(5, 1)
    axes = drawn(intended, -intended, intended + 0.1)
    (points,) = axes.collections
    np.testing.assert_allclose(points.get_offsets(), np.tile([2.4, 2.5], (5, 1)), rtol=1e-6)
