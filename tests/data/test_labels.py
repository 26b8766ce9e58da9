"""Labels as each corpus has them."""

from __future__ import annotations

import numpy as np
import pytest

from mfm.corpora import get_corpus
from mfm.data.arrays import ArraySequences
from mfm.data.labels import decode_labels
from mfm.data.records import SplitData
from mfm.errors import DataFormatError


def split_with(**labels: object) -> SplitData:
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in labels.items()}
    n = len(next(iter(arrays.values()))) if arrays else 3
    return SplitData(tuple(map(str, range(n))), {"m": ArraySequences([np.ones((1, 1))] * n)}, arrays)


def test_regression_takes_the_first_known_name() -> None:
    split = split_with(labels=[[9.0]] * 2, regression_labels=[[1.5], [np.nan]], classification_labels=[[0], [1]])
    values, mask = decode_labels(split, get_corpus("mosi"))
    assert values.dtype == np.float32
    assert values.tolist() == [[1.5], [0.0]]
    assert mask.tolist() == [[True], [False]]


def test_target_by_name() -> None:
    split = split_with(regression_labels=[[0.1]], regression_labels_T=[[0.4]])
    assert decode_labels(split, get_corpus("sims"), "regression_labels_T").values[0, 0] == pytest.approx(0.4)
    with pytest.raises(DataFormatError, match=r"no label array 'regression_label'.*did you mean 'regression_labels'"):
        decode_labels(split, get_corpus("sims"), "regression_label")


def test_pom_leaves_index_14_out_and_takes_ratings_below_one() -> None:
    ratings = np.tile(np.arange(17.0) / 3 + 0.667, (2, 1))
    values, mask = decode_labels(split_with(labels=ratings), get_corpus("pom"))
    assert values.shape == (2, 16)
    assert mask.all()
    np.testing.assert_allclose(values[0], np.delete(ratings[0], 14), rtol=1e-6)
    np.testing.assert_allclose(
        decode_labels(split_with(labels=ratings[:, :16]), get_corpus("pom")).values, ratings[:, :16], rtol=1e-6
    )


def test_iemocap() -> None:
    values, mask = decode_labels(split_with(labels=[[0, 1, 0, 0], [1, 0, np.nan, 1]]), get_corpus("iemocap"))
    assert values.tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert mask.tolist() == [[True] * 4, [True, True, False, True]]


@pytest.mark.parametrize("labels", [[[0, 0, 1], [1, 0, 0], [0, 1, 0]], [[2], [0], [1]]])
def test_classes(labels: list[list[float]]) -> None:
    values, mask = decode_labels(split_with(labels=labels), get_corpus("youtube"))
    assert values.dtype == np.int64
    assert values.tolist() == [2, 0, 1]
    assert mask.tolist() == [True] * 3


def test_missing_classes() -> None:
    values, mask = decode_labels(split_with(labels=[[np.nan], [1]]), get_corpus("moud"))
    assert values.tolist() == [0, 1]
    assert mask.tolist() == [False, True]
    one_hot = [[np.nan, np.nan], [0, 1]]
    assert decode_labels(split_with(labels=one_hot), get_corpus("moud")).mask.tolist() == [False, True]


@pytest.mark.parametrize("labels", [[[0], [1], [1]], [[-1], [1], [1]], [[1, 0], [0, 1], [0, 1]]])
def test_binary(labels: list[list[float]]) -> None:
    values, _ = decode_labels(split_with(labels=labels), get_corpus("ur_funny"))
    assert values.dtype == np.float32
    assert values.tolist() == [[0], [1], [1]]


@pytest.mark.parametrize(
    ("corpus", "labels", "message"),
    [
        ("mosi", [[250.0]], r"holds 250, far outside \[-3, 3\]"),
        ("mosi", [[1.0, 2.0]], r"has 2 column\(s\), CMU-MOSI has 1"),
        ("mosi", [[np.inf]], "infinite"),
        ("mosi", [[np.nan]], "no label at all"),
        ("pom", [[1.0] * 5], r"5 column\(s\), POM has 16"),
        ("youtube", [[3.0]], "holds 3, which is no class: 0 to 2"),
        ("youtube", [[0.5]], "holds 0.5, which is no class"),
        ("youtube", [[-1.0]], "holds -1, which is no class"),
        ("youtube", [[1, 1, 0]], "not one-hot"),
        ("youtube", [[1, 0]], "has 2 columns; 1"),
        ("iemocap", [[0, 1, 2, 0]], "holds 2, which is no class"),
        ("ur_funny", [[2.0]], "holds 2, which is no class"),
        ("mosi", np.zeros((2, 1, 3)), "has shape"),
    ],
)
def test_labels_that_do_not_fit(corpus: str, labels: object, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        decode_labels(split_with(labels=labels), get_corpus(corpus))


def test_unlabelled() -> None:
    with pytest.raises(DataFormatError, match=r"no labels for CMU-MOSI.*there are: other.*--data\.target"):
        decode_labels(split_with(other=[[1.0]]), get_corpus("mosi"))
    values, mask = decode_labels(split_with(), get_corpus("pom"), required=False)
    assert values.shape == mask.shape == (3, 16)
    assert not mask.any()
    values, mask = decode_labels(split_with(), get_corpus("youtube"), "nowhere", required=False)
    assert values.shape == mask.shape == (3,)
    assert not decode_labels(split_with(labels=[[np.nan]]), get_corpus("mosi"), required=False).mask.any()


def test_wrong_number_of_rows() -> None:
    split = SplitData(("a", "b"), {}, {"labels": np.zeros((3, 1))})
    with pytest.raises(DataFormatError, match="for 2 samples"):
        decode_labels(split, get_corpus("mosi"))
