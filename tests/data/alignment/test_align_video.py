"""The alignment of one video equals a plain scan, whatever its intervals look like."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_alignment import plain_video

from mfm.data.alignment.align import AlignmentOptions, align_video
from mfm.data.alignment.csd import Frames, Words
from mfm.errors import DataFormatError

# a coarse grid makes intervals that touch, repeat, contain one another and are empty; the rest lies about the tolerance
TIMES = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.000005, 2.00002, 3.0, 3.25, 4.0, -1.0, 9.0])
BAD = st.sampled_from([(math.nan, 1.0), (1.0, math.inf), (3.0, 2.0)])
INTERVALS = st.one_of(
    st.tuples(TIMES, TIMES).map(sorted).map(tuple), st.tuples(TIMES, TIMES).map(sorted).map(tuple), BAD
)
VALUES = st.sampled_from([0.0, 1.0, 2.5, -3.0, 1e3, math.nan, math.inf, -math.inf, 1e-3])
WORDS = st.lists(st.tuples(INTERVALS, st.sampled_from(["sp", "a", "b"])), max_size=9)
FRAMES = st.lists(st.tuples(INTERVALS, st.lists(VALUES, min_size=2, max_size=2)), max_size=9)


def as_frames(frames):
    intervals = np.array([interval for interval, _ in frames], dtype=np.float64).reshape(-1, 2)
    values = np.array([values for _, values in frames], dtype=np.float32)
    return Frames(intervals, values if frames else np.zeros((0, 1), np.float32))  # the width of what the SDK writes


def rows(items):
    return [(*interval, content) for interval, content in items]


def aligned(words, labels, features, options):
    intervals = np.array([interval for interval, _ in words], dtype=np.float64).reshape(-1, 2)
    pivot = Words(intervals, tuple(text for _, text in words))
    segments = Frames(np.array(labels, dtype=np.float64).reshape(-1, 2), np.arange(float(len(labels)))[:, None])
    tracks = {name: None if frames is None else as_frames(frames) for name, frames in features.items()}
    return align_video("v", "train", pivot, segments, tracks, dict.fromkeys(features, 2), options)


@given(
    words=WORDS,
    labels=st.lists(INTERVALS, max_size=4),
    first=FRAMES,
    second=FRAMES,
    how=st.sampled_from(["mean", "max", "last", "weighted"]),
    membership=st.sampled_from(["midpoint", "overlap", "containment"]),
    max_length=st.sampled_from([None, 1, 2]),
    minimum=st.sampled_from([1e-5, 0.0, 0.6]),
    within=st.sampled_from([None, None, 0.0, 0.75, 3.0]),
    order=st.sampled_from(["start", "file"]),
)
def test_equals_a_plain_scan(words, labels, first, second, how, membership, max_length, minimum, within, order):
    options = AlignmentOptions(how, membership, minimum, ("sp",), max_length, nearest_within=within, word_order=order)
    samples, report = aligned(words, labels, {"x": first, "y": second}, options)
    wanted, fates = plain_video(
        rows(words),
        labels,
        {"x": rows(first), "y": rows(second)},
        how=how,
        membership=membership,
        minimum=minimum,
        pauses=("sp",),
        max_length=max_length,
        within=within,
        by_file=order == "file",
    )
    some = {key: value for key, value in wanted.items() if any(v is not None for m in value[1].values() for v in m)}
    assert [sample.id for sample in samples] == [f"v$_${segment}" for segment in sorted(some)]
    for sample in samples:
        segment = int(sample.id.split("$_$")[1])
        chosen, vectors = some[segment]
        assert sample.words == tuple(words[index][1] for index in chosen)
        np.testing.assert_array_equal(sample.intervals, [words[index][0] for index in chosen])
        assert sample.labels.tolist() == [segment]
        for name, found in vectors.items():
            if all(vector is None for vector in found):
                assert len(sample.steps[name]) == len(sample.observed[name]) == 0
                continue
            assert sample.observed[name].tolist() == [vector is not None for vector in found]
            np.testing.assert_allclose(sample.steps[name], [vector or [0, 0] for vector in found], rtol=1e-6, atol=1e-6)
    counted = {"words": report.words, **report.features}
    for source, tally in counted.items():
        assert tally.used == fates[source].pop("used", 0)
        assert tally.dropped == fates[source]
        assert tally.seen == tally.used + sum(tally.dropped.values())
    bad = sum(not (math.isfinite(a) and math.isfinite(b) and a <= b) for a, b in labels)
    dropped = {
        "invalid_interval": bad,
        "no_words": len(labels) - bad - len(wanted),
        "no_frames": len(wanted) - len(some),
    }
    assert report.segments.dropped == {reason: count for reason, count in dropped.items() if count}
    assert report.segments.seen == len(labels) == len(samples) + len(report.dropped_segments)


def test_an_absent_modality_keeps_the_segment():
    samples, report = aligned([((0, 1), "a")], [(0, 2)], {"x": [((0, 1), [1, 2])], "y": None}, AlignmentOptions())
    assert samples[0].steps["x"].tolist() == [[1, 2]]
    assert samples[0].steps["y"].shape == (0, 2)
    assert list(report.absent) == ["y"]
    assert report.samples[0].coverage == {"x": 1.0, "y": 0.0}


def test_what_truncation_lost_is_said():
    words = [((0, 1), "a"), ((1, 2), "b"), ((2, 3), "c")]
    frames = [((0, 1), [1, 1]), ((2, 3), [2, 2])]
    _, report = aligned(words, [(0, 3)], {"x": frames}, AlignmentOptions(max_length=1))
    assert report.samples[0].truncated == 2
    assert report.words.dropped == {"truncated": 2}
    assert report.features["x"].dropped == {"truncated": 1}


@pytest.mark.parametrize("source", ["pivot", "labels", "x"])
def test_an_end_before_its_start_is_listed_or_refused(source):
    words, labels, frames = [((0, 1), "a")], [(0, 2)], [((0, 1), [1, 2])]
    {"pivot": words, "x": frames}.get(source, []).append(((5, 4), "b" if source == "pivot" else [1, 2]))
    if source == "labels":
        labels.append((5, 4))
    _, report = aligned(words, labels, {"x": frames}, AlignmentOptions())
    assert list(report.invalid_intervals) == [(source, 1, 5.0, 4.0)]
    with pytest.raises(DataFormatError, match=rf"{source} of video 'v', row 1.*from 5 to 4 s"):
        aligned(words, labels, {"x": frames}, AlignmentOptions(invalid_intervals="refuse"))


def test_another_number_of_features_is_refused():
    with pytest.raises(DataFormatError, match="have 3 columns, those of earlier videos 2"):
        aligned([((0, 1), "a")], [(0, 2)], {"x": [((0, 1), [1, 2, 3])]}, AlignmentOptions())


def test_numbers_beyond_a_float32_do_not_count():
    pivot, segments = Words(np.array([[0.0, 1.0]]), ("a",)), Frames(np.array([[0.0, 2.0]]), np.zeros((1, 1)))
    track = Frames(np.array([[0.0, 0.5], [0.5, 1.0]]), np.array([[1e300, 2.0], [1.0, 4.0]]))
    samples, report = align_video("v", "train", pivot, segments, {"x": track}, {"x": 2}, AlignmentOptions())
    assert samples[0].steps["x"].tolist() == [[1.0, 3.0]]
    assert report.nonfinite_values == {"x": 1}


@pytest.mark.parametrize(("how", "vector"), [("mean", [3, 3]), ("max", [4, 4]), ("last", [4, 2]), ("weighted", None)])
def test_reductions_of_two_words(how, vector):
    frames = [((2, 3), [4, math.nan]), ((1, 1.5), [2, 4]), ((1.5, 2.25), [3, 2]), ((0, 1), [9, 9])]
    samples, _ = aligned([((0, 1), "a"), ((1, 3), "b")], [(0, 3)], {"x": frames}, AlignmentOptions(how))
    expected = {"weighted": [(4 + 2 * 0.5 + 3 * 0.75) / 2.25, (4 * 0.5 + 2 * 0.75) / 1.25]}.get(how, vector)
    np.testing.assert_allclose(samples[0].steps["x"], [[9, 9], expected], rtol=1e-6)


def test_containment_includes_the_ends():
    words = [((2, 2), "end"), ((0, 0), "start"), ((1, 2.5), "beyond")]
    frames = {"x": [((0, 3), [1, 1])]}
    samples, _ = aligned([*words, ((0, 2), "whole")], [(0, 2)], frames, AlignmentOptions(membership="containment"))
    assert samples[0].words == ("start", "whole", "end")
