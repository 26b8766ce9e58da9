"""Frames that stay frames: those of each word, or each modality's own ones of a segment, some averaged."""

import json
import math

import numpy as np
import pytest
from csd_files import corpus_files
from hypothesis import given
from hypothesis import strategies as st
from plain_alignment import belongs, finite, first_fates, shared, valid
from test_align_video import FRAMES, INTERVALS, WORDS, aligned, rows

from mfm.data.alignment.corpus import align_corpus
from mfm.data.alignment.placing import AlignmentOptions
from mfm.data.alignment.sources import Sources
from mfm.data.store import read_store, verify_store
from mfm.errors import ConfigurationError, DataFormatError


def plain_words(words, label, membership, minimum):
    """Indices of the words of a segment, by start."""
    fates = first_fates(words, lambda item: "pause" if item[2] == "sp" else None)
    inside = [i for i, word in enumerate(words) if fates[i] is None and belongs(word, label, membership, minimum)]
    return sorted(inside, key=lambda index: (*words[index][:2], index))


def plain_frames(frames):
    """Usable frames by start."""
    fates = first_fates(frames, lambda item: None if any(map(finite, item[2])) else "nonfinite")
    usable = [frame for frame, fate in zip(frames, fates, strict=True) if fate is None]
    return sorted(usable, key=lambda frame: frame[:2])


def pooled(values, pool):
    """Means of the finite values of `pool` frames at a time."""
    steps = []
    for start in range(0, len(values), pool):
        columns = [[v for v in column if finite(v)] for column in zip(*values[start : start + pool], strict=True)]
        steps.append([sum(column) / len(column) if column else 0.0 for column in columns])
    return steps


@given(
    words=WORDS,
    labels=st.lists(INTERVALS, max_size=4),
    frames=FRAMES,
    membership=st.sampled_from(["midpoint", "overlap", "containment"]),
    pool=st.sampled_from([1, 2, 3]),
    most=st.sampled_from([None, 1, 2]),
    wordless=st.sampled_from(["drop", "keep"]),
)
def test_own_frames_equal_a_plain_scan(words, labels, frames, membership, pool, most, wordless):
    options = AlignmentOptions(
        membership=membership,
        unaligned=True,
        pool={"x": pool},
        max_frames={} if most is None else {"x": most},
        wordless=wordless,
    )
    samples, report = aligned(words, labels, {"x": frames}, options)
    expected = {}
    for number, label in enumerate(labels):
        if not valid(label) or (wordless == "drop" and not plain_words(rows(words), label, membership, 1e-5)):
            continue
        inside = [frame[2] for frame in plain_frames(rows(frames)) if belongs(frame, label, membership, 1e-5)]
        inside = inside if most is None else inside[: most * pool]
        if inside:
            expected[number] = pooled(inside, pool) if pool > 1 else inside
    assert [sample.id for sample in samples] == [f"v$_${number}" for number in expected]
    for sample, steps in zip(samples, expected.values(), strict=True):
        np.testing.assert_allclose(sample.steps["x"], np.array(steps, np.float32), rtol=1e-6)
    tally = report.features["x"]
    assert tally.seen == len(frames) == tally.used + sum(tally.dropped.values())


@given(words=WORDS, labels=st.lists(INTERVALS, max_size=4), frames=FRAMES)
def test_all_frames_of_words_equal_a_plain_scan(words, labels, frames):
    samples, report = aligned(words, labels, {"x": frames}, AlignmentOptions("all"))
    found = {sample.id: sample.steps["x"] for sample in samples}
    for number, label in enumerate(labels):
        chosen = plain_words(rows(words), label, "midpoint", 1e-5) if valid(label) else []
        kept = [
            frame[2]
            for index in chosen
            for frame in plain_frames(rows(frames))
            if shared(frame, words[index][0]) > 1e-5
        ]
        if kept:
            np.testing.assert_array_equal(found.pop(f"v$_${number}"), np.array(kept, dtype=np.float32))
    assert not found
    tally = report.features["x"]
    assert tally.seen == len(frames) == tally.used + sum(tally.dropped.values())


def test_wordless_segments_are_refused():
    with pytest.raises(DataFormatError, match="segment 1 of video 'v' has no word"):
        aligned([((0, 1), "a")], [(0, 2), (5, 6)], {"x": []}, AlignmentOptions(wordless="refuse"))


def test_nearest_frame_by_hand():
    words = [((0, 1), "a"), ((5, 6), "b"), ((20, 21), "c")]
    frames = {"x": [((0, 1), [1, 1]), ((7, 8), [2, math.nan]), ((3, 4), [3, 3])]}
    samples, report = aligned(words, [(0, 30)], frames, AlignmentOptions(nearest_within=2.0))
    assert samples[0].steps["x"].tolist() == [[1, 1], [3, 3], [0, 0]]  # of two at one distance the earlier one
    assert samples[0].observed["x"].tolist() == [True, True, False]
    assert report.filled == {"x": 1}
    assert report.features["x"].used == 2


def align(tmp_path, options):
    files = corpus_files(tmp_path)
    sources = Sources(files["pivot"], {"x": files["x"], "y": files["y"]}, files["labels"])
    align_corpus(sources, tmp_path / "o.h5", tmp_path / "o.json", options)
    return read_store(tmp_path / "o.h5"), json.loads((tmp_path / "o.json").read_text())


def test_unaligned_store(tmp_path):
    data, report = align(tmp_path, AlignmentOptions(unaligned=True, pool={"y": 5}, max_frames={"x": 2}))
    assert not data.aligned
    assert verify_store(tmp_path / "o.h5").ok
    train = data.splits["train"]
    assert train.raw_text[0] == "w0 w1 w2"
    assert set(train.sequences["x"].lengths.tolist()) == {2}
    assert set(train.sequences["y"].lengths.tolist()) <= {0, 4}  # 20 frames of .2 s in a segment of 4 s
    sample = report["videos"]["v0"]["samples"][0]
    assert sample["lengths"] == {"x": 2, "y": 4}
    assert sample["coverage"]["y"] == 1.0
    assert report["totals"]["absent"] == {"x": 0, "y": 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (AlignmentOptions(pool={"x": 2}), "pool is for unaligned"),
        (AlignmentOptions(unaligned=True, pool={"z": 2}), "names no modality 'z'"),
        (AlignmentOptions(unaligned=True, max_frames={"x": 0}), "must be at least 1"),
        (AlignmentOptions(unaligned=True, reduction="max"), "leave 'max' out"),
        (AlignmentOptions(unaligned=True, nearest_within=1.0), "one vector each"),
        (AlignmentOptions(nearest_within=-1.0), "give 0 s or more"),
    ],
)
def test_options_that_exclude_each_other(tmp_path, options, words):
    with pytest.raises(ConfigurationError, match=words):
        align(tmp_path, options)
