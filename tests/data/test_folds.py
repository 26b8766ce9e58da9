"""Folds over videos: every sample validates once, no video is on both sides, and the test split is gone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm.data.folds import video_folds, without_test
from mfm.data.inspect import video_of
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus
from mfm.errors import ConfigurationError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("folds") / "mosi.pkl"
    write_corpus("mosi", path, samples=(24, 12, 6), seed=3)
    return read_corpus(path)


def test_without_test(corpus):
    assert set(corpus.splits) == {"train", "valid", "test"}
    assert set(without_test(corpus).splits) == {"train", "valid"}


@given(folds=st.integers(2, 6), seed=st.integers(0, 5))
def test_folds_partition_the_samples_by_video(corpus, folds, seed):
    seen = [name for split in ("train", "valid") for name in corpus.splits[split].ids]
    made = video_folds(corpus, folds, seed)
    assert sorted(name for fold in made for name in fold.splits["valid"].ids) == sorted(seen)
    for fold in made:
        train, valid = fold.splits["train"].ids, fold.splits["valid"].ids
        assert set(fold.splits) == {"train", "valid"}
        assert sorted([*train, *valid]) == sorted(seen)
        assert not {video_of(name) for name in train} & {video_of(name) for name in valid}
        assert list(train) == [name for name in seen if name in set(train)]  # the file's order
    sizes = [len(fold.splits["valid"]) for fold in made]
    largest = max(sum(video_of(name) == video for name in seen) for video in {video_of(name) for name in seen})
    assert max(sizes) - min(sizes) <= largest
    assert [fold.splits["valid"].ids for fold in video_folds(corpus, folds, seed)] == [
        fold.splits["valid"].ids for fold in made
    ]


def test_samples_keep_what_they_hold(corpus):
    where = {name: (split, row) for split in ("train", "valid") for row, name in enumerate(corpus.splits[split].ids)}
    fold = video_folds(corpus, 3, 0)[1].splits["valid"]
    for index, name in enumerate(fold.ids):
        split, row = where[name]
        source = corpus.splits[split]
        for label, values in fold.labels.items():
            np.testing.assert_array_equal(values[index], source.labels[label][row])
        if fold.raw_text is not None:
            assert fold.raw_text[index] == source.raw_text[row]
        for modality, sequences in fold.sequences.items():
            other = source.sequences[modality]
            assert sequences.lengths[index] == other.lengths[row]
            assert sequences.starts[index] == other.starts[row]
            np.testing.assert_array_equal(sequences.steps(index), other.steps(row))
            np.testing.assert_array_equal(sequences.observed(index), other.observed(row))
            np.testing.assert_array_equal(sequences.original(index), other.original(row))


def test_too_many_folds(corpus):
    videos = {video_of(name) for split in ("train", "valid") for name in corpus.splits[split].ids}
    with pytest.raises(ConfigurationError, match=f"of the {len(videos)} videos"):
        video_folds(corpus, len(videos) + 1, 0)
