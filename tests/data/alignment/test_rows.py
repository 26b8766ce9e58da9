"""Words whose texts are in other rows than their intervals are found, and moved back."""

import json

import numpy as np
import pytest
from csd_files import words_of, write_csd
from hypothesis import given
from hypothesis import strategies as st
from test_align_video import aligned

from mfm.data.alignment.corpus import align_corpus
from mfm.data.alignment.csd import ComputationalSequence
from mfm.data.alignment.placing import AlignmentOptions
from mfm.data.alignment.rows import fit_rows, shift_rows
from mfm.data.alignment.sources import Sources
from mfm.data.store import read_store
from mfm.errors import ConfigurationError


def spoken(seed=0, count=200):
    """Words that take 0.08 s a character, more or less, one after the other."""
    rng = np.random.default_rng(seed)
    texts = ["x" * length for length in rng.integers(1, 12, size=count)]
    edges = np.cumsum([0, *(0.08 * len(text) * rng.uniform(0.6, 1.6) for text in texts)])
    return np.stack([edges[:-1], edges[1:]], axis=1), texts


@pytest.mark.parametrize("late", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_texts_in_other_rows_are_found(late, seed):
    intervals, texts = spoken(seed)
    found = fit_rows(intervals, np.roll(texts, late).tolist(), np.ones(len(texts), dtype=bool))
    assert found.lag == -late


def test_nothing_is_said_without_evidence():
    intervals, texts = spoken()
    every = np.ones(len(texts), dtype=bool)
    rng = np.random.default_rng(1)
    assert fit_rows(intervals, rng.permutation(texts).tolist(), every).lag == 0
    assert fit_rows(intervals[:15], texts[:15], every[:15]) is None
    assert fit_rows(intervals, ["x"] * len(texts), every) is None
    assert fit_rows(np.arange(200.0)[:, None] + [0, 1], texts, every) is None
    assert fit_rows(np.full((200, 2), np.nan), texts, every) is None


@given(count=st.integers(0, 6), rows=st.integers(-8, 8))
def test_shifted_rows(count, rows):
    intervals = np.arange(2.0 * count).reshape(count, 2)
    shifted = shift_rows(intervals, rows)
    for row in range(count):
        if 0 <= row + rows < count:
            assert shifted[row].tolist() == intervals[row + rows].tolist()
        else:
            assert np.isnan(shifted[row]).all()


def test_a_shifted_video_is_the_right_one_and_is_accounted_for():
    words = [((0, 1), "sp"), ((1, 2), "a"), ((2, 3), "b"), ((3, 4), "c")]
    late = {"text": [(interval, [row, row]) for row, (interval, _) in enumerate(words)], "audio": [((1, 2), [7, 7])]}
    options = AlignmentOptions(invalid_intervals="refuse", shift_rows={"pivot": -1, "text": -1})
    samples, report = aligned(words, [(0, 2)], late, options)
    assert samples[0].words == ("a", "b")
    assert samples[0].steps["text"][:, 0].tolist() == [1, 2]
    assert samples[0].observed["audio"].tolist() == [False, True]
    assert report.words.dropped == {"no_interval": 1, "outside_segments": 1}
    assert report.features["text"].dropped == {"no_interval": 1, "outside_segments": 1}
    assert report.words.seen == 4 == report.words.used + sum(report.words.dropped.values())


def corpus(folder, late):
    names = [f"v{number}" for number in range(3)]
    words, text, labels = {}, {}, {}
    for seed, name in enumerate(names):
        intervals, texts = spoken(seed)
        words[name] = intervals, np.roll(words_of(texts), late, axis=0)
        text[name] = intervals, np.roll([[float(len(one))] for one in texts], late, axis=0)
        labels[name] = [[0.0, intervals.max() / 2]], [[1.0]]
    return Sources(
        write_csd(folder / "words.csd", words),
        {"text": write_csd(folder / "text.csd", text)},
        write_csd(folder / "labels.csd", labels),
    )


def test_the_advice_leads_to_the_right_words(tmp_path):
    sources = corpus(tmp_path, 1)
    outcome = align_corpus(sources, tmp_path / "a.h5", tmp_path / "a.json", AlignmentOptions())
    assert any("in 3 of 3 videos" in note and "--shift-rows pivot=-1" in note for note in outcome.notes)
    assert json.loads((tmp_path / "a.json").read_text())["videos"]["v0"]["rows"]["lag"] == -1
    options = AlignmentOptions(shift_rows={"pivot": -1, "text": -1})
    outcome = align_corpus(sources, tmp_path / "b.h5", tmp_path / "b.json", options)
    assert not any("--shift-rows" in note for note in outcome.notes)
    split = read_store(tmp_path / "b.h5").splits["train"]
    _, texts = spoken(int(split.ids[0][1]))
    said = split.words.of(0)[0]
    assert list(said[1:]) == texts[1 : len(said)]  # row 0 of the file holds the last word
    assert split.sequences["text"].steps(0)[1:, 0].tolist() == [len(one) for one in said[1:]]
    with pytest.raises(ConfigurationError, match="rows of 'txt' cannot be shifted"):
        align_corpus(sources, tmp_path / "c.h5", tmp_path / "c.json", AlignmentOptions(shift_rows={"txt": -1}))


@pytest.mark.realdata
def test_published_words_are_a_row_late(data_root):
    with ComputationalSequence(data_root / "csd" / "CMU_MOSI_ModifiedTimestampedWords.csd") as file:
        for video in file.videos:
            words = file.words(video)
            assert fit_rows(words.intervals, words.texts, np.array(words.texts) != "sp").lag == -1
