"""MulT's pickles: labels, ids and lengths, and the published file."""

import numpy as np
import pytest
from small_corpora import RNG, mult, save

from mfm.data.readers import read_corpus
from mfm.data.readers.parts import label_array


def test_mult_sentiment(path):
    tree = mult(lambda count: RNG.normal(size=(count, 1, 1)))
    data = read_corpus(save(path, tree, protocol=2))
    assert (data.format, data.aligned) == ("mult", True)
    np.testing.assert_array_equal(data.splits["test"].labels["labels"], tree["test"]["labels"][:, :, 0])
    assert not data.splits["test"].has_ids


def test_mult_iemocap(path):
    classes = {}

    def one_hot(count):
        classes[count] = RNG.integers(0, 2, size=(count, 4))
        return np.eye(2, dtype="i8")[classes[count]]

    data = read_corpus(save(path, mult(one_hot)))
    np.testing.assert_array_equal(data.splits["train"].labels["labels"], classes[6])


def test_mult_binary_and_list_labels(path):
    data = read_corpus(save(path, mult(lambda count: [[index % 2] for index in range(count)])))
    assert data.splits["valid"].labels["labels"].tolist() == [[0], [1], [0]]


def test_mult_noalign_and_extra_modality(path):
    tree = mult(
        lambda count: np.zeros((count, 1, 1)), {"text": 5, "timing": 4, "vision": 2}, steps={"text": 9, "vision": 30}
    )
    data = read_corpus(save(path, tree))
    assert not data.aligned
    sequences = data.splits["train"].sequences
    assert {name: found.file_steps for name, found in sequences.items()} == {"text": 9, "timing": 8, "vision": 30}
    assert sequences["vision"].starts.tolist() == [27] * 6


def test_mult_ids_of_three_parts(path):
    tree = mult(
        lambda count: np.zeros((count, 1, 1)),
        ids=lambda name, count: np.array([[f"{name}_x", f"{index}.5", f"{index + 1}"] for index in range(count)], "S"),
    )
    assert read_corpus(save(path, tree)).splits["valid"].ids[1] == "valid_x_1.5_2"


def test_mult_ids_that_repeat_are_numbered(path):
    tree = mult(
        lambda count: np.zeros((count, 1, 1)),
        ids=lambda name, count: np.array([[b"vid", b"", b""]] * count),
    )
    data = read_corpus(save(path, tree))
    names = [name for split in data.splits.values() for name in split.ids]
    assert names == [f"vid#{index}" for index in range(13)]  # through all splits: no name is in two
    assert any("numbered" in note for note in data.notes)


def test_mult_empty_ids_are_made_up(path):
    tree = mult(lambda count: np.zeros((count, 1, 1)), ids=lambda name, count: np.array([b""] * count))
    split = read_corpus(save(path, tree)).splits["test"]
    assert split.ids[0] == "test_0"
    assert not split.has_ids


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.arange(3.0), [[0], [1], [2]]),
        (np.arange(3.0).reshape(3, 1, 1), [[0], [1], [2]]),
        (np.arange(6.0).reshape(3, 2), [[0, 1], [2, 3], [4, 5]]),
        (np.arange(9.0).reshape(3, 1, 3), [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (np.array([[[0, 1], [1, 0]]] * 3), [[1, 0]] * 3),
        (np.array([[[np.nan, 1]]] * 3), [[np.nan]] * 3),
        ([True, False, True], [[1], [0], [1]]),
    ],
)
def test_label_shapes(labels, expected):
    np.testing.assert_array_equal(label_array(labels, 3, "x"), expected)


@pytest.mark.realdata
def test_real_words(data_root):
    data = read_corpus(data_root / "mosi/words_50.pkl")
    assert [len(split) for split in data.splits.values()] == [1284, 229, 686]
    assert data.format == "mult"
    assert set(data.splits["train"].sequences) == {"text", "timing"}
    assert len({name for split in data.splits.values() for name in split.ids}) == 2199
