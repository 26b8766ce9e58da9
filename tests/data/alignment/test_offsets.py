"""A shift or a drift that was put in is found; where there is none, or none can be told, none is."""

import numpy as np
import pytest

from mfm.data.alignment.csd import ComputationalSequence
from mfm.data.alignment.offsets import estimate_offset


def corpus(seed=0, count=200):
    """Words of irregular length with pauses, and segments of ten words each, separated by gaps."""
    rng = np.random.default_rng(seed)
    ends = np.cumsum(rng.uniform(0.15, 0.6, size=count) + np.where(np.arange(count) % 10 == 0, 1.0, 0.0))
    words = np.stack([np.concatenate([[0.0], ends[:-1]]), ends], axis=1)
    words[:, 0] += np.where(np.arange(count) % 10 == 0, 1.0, 0.0)
    segments = np.array([[words[first, 0], words[first + 9, 1]] for first in range(0, count, 10)])
    return words, segments


def fine_frames(segments, step=0.01):
    """Frames of 100 Hz inside the segments."""
    return np.concatenate([np.arange(a, b, step)[:, None] + [0, step] for a, b in segments])


def moved(intervals, shift, drift):
    middle = intervals.mean()
    return intervals + shift + drift * (intervals - middle)


@pytest.mark.parametrize("kind", ["words", "fine"])
@pytest.mark.parametrize(("shift", "drift"), [(0.5, 0.0), (-1.7, 0.0), (0.0, 0.005), (0.4, -0.003), (3.0, 0.008)])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_was_put_in_is_found(kind, shift, drift, seed):
    words, segments = corpus(seed)
    frames = moved(words if kind == "words" else fine_frames(segments), shift, drift)
    found = estimate_offset(frames, words, words, segments)
    assert found.suspicious
    assert found.shift == pytest.approx(shift, abs=0.06)
    assert found.drift == pytest.approx(drift, abs=5e-4)
    assert found.matched > 0.8


@pytest.mark.parametrize("seed", range(5))
def test_the_same_clock_is_not_suspected(seed):
    words, segments = corpus(seed)
    rng = np.random.default_rng(seed)
    for frames in (words, fine_frames(segments), words[rng.random(len(words)) < 0.7]):
        found = estimate_offset(frames + rng.uniform(-0.02, 0.02), words, words, segments)
        assert (found.shift, found.drift) == (0.0, 0.0)
        assert not found.suspicious


def test_regular_words_do_not_look_shifted():
    words = np.arange(100.0)[:, None] + [0, 1]
    found = estimate_offset(words, words, words, np.array([[0.0, 50.0], [50.0, 100.0]]))
    assert not found.suspicious


def test_frames_without_gaps_tell_only_their_ends():
    words, segments = corpus()
    whole = np.arange(0, words.max() - 7, 0.01)[:, None] + [0, 0.01]
    found = estimate_offset(whole, words, words, segments)
    assert found.shift is None
    assert found.ends_early == pytest.approx(7, abs=0.02)
    assert found.suspicious
    assert not estimate_offset(np.array([[0.0, words.max()]]), words, words, segments).suspicious


def test_frames_at_random_times_say_nothing():
    words, segments = corpus()
    rng = np.random.default_rng(3)
    starts = rng.uniform(0, words.max() - 1, size=120)
    found = estimate_offset(np.stack([starts, starts + 0.1], axis=1), words, words, segments)
    assert found.shift in (None, 0.0)


def test_nothing_to_compare():
    words, segments = corpus()
    assert estimate_offset(np.zeros((0, 2)), words, words, segments) is None
    assert estimate_offset(words, words, np.zeros((0, 2)), segments) is None


@pytest.mark.realdata
def test_real_words_and_segments(data_root):
    """GloVe rows are at the times of the words; moved ones are found in nearly every video, others nowhere."""
    folder = data_root / "csd"
    found = []
    with (
        ComputationalSequence(folder / "CMU_MOSI_ModifiedTimestampedWords.csd") as pivot,
        ComputationalSequence(folder / "CMU_MOSI_Opinion_Labels.csd") as labels,
        ComputationalSequence(folder / "CMU_MOSI_GloVe50.csd") as text,
    ):
        for video in text.videos:
            words, segments, frames = (
                pivot.words(video).intervals, labels.frames(video).intervals, text.frames(video).intervals,
            )  # fmt: skip
            assert not estimate_offset(frames, words, words, segments).suspicious
            found.append(estimate_offset(moved(frames, 0.7, 0.003), words, words, segments))
    right = [one for one in found if abs(one.shift - 0.7) < 0.1 and abs(one.drift - 0.003) < 5e-4]
    assert len(right) >= 0.95 * len(found) > 80
