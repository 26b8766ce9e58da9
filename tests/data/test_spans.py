import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mfm.data.readers import padded
from mfm.data.readers.padded import PaddedRows
from mfm.data.spans import (
    Given,
    Spans,
    SplitSpans,
    aligned_spans,
    content_mask,
    outer_span,
    padding_side,
    place,
    unaligned_span,
)

SPECIAL = st.sampled_from([0.0, -0.0, 1.0, -2.5, np.nan, np.inf, -np.inf])


def blocks(dims=(3,), samples=5, steps=6):
    return [hnp.arrays(np.float32, (samples, steps, dim), elements=SPECIAL, fill=st.just(0.0)) for dim in dims]


def is_content(step) -> bool:
    return any(number != 0 for number in step.tolist())


def loop_aligned(arrays):
    """The rule written out step by step."""
    spans = {name: [] for name in arrays}
    first = next(iter(arrays.values()))
    for sample in range(len(first)):
        steps = [t for t in range(first.shape[1]) if any(is_content(a[sample, t]) for a in arrays.values())]
        for name, array in arrays.items():
            if any(is_content(array[sample, t]) for t in range(array.shape[1])):
                spans[name].append((steps[0], steps[-1] - steps[0] + 1))
            else:
                spans[name].append((0, 0))
    return spans


def loop_unaligned(array):
    found = []
    for sample in array:
        steps = [t for t, step in enumerate(sample) if is_content(step)]
        found.append((steps[0], steps[-1] - steps[0] + 1) if steps else (0, 0))
    return found


def pairs(spans: Spans):
    return list(zip(spans.starts.tolist(), spans.lengths.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(*blocks(dims=(2, 3)))
def test_aligned_rule_is_that_of_the_loop(a, b):
    arrays = {"a": a, "b": b}
    found = aligned_spans({name: content_mask(PaddedRows(array)) for name, array in arrays.items()})
    assert {name: pairs(spans) for name, spans in found.items()} == loop_aligned(arrays)


@settings(max_examples=150, deadline=None)
@given(*blocks())
def test_unaligned_rule_is_that_of_the_loop(a):
    assert pairs(unaligned_span(content_mask(PaddedRows(a)))) == loop_unaligned(a)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i4", "u1", "bool"])
@pytest.mark.parametrize("as_list", [False, True])
def test_blocks_of_any_size_give_the_same(monkeypatch, dtype, as_list):
    generator = np.random.default_rng(0)
    array = (generator.random((23, 7, 3)) > 0.8).astype(dtype)
    rows = PaddedRows(list(array) if as_list else array)
    expected = array.astype(float).any(axis=2)
    for size in (1, rows.nbytes // 23 * 4, rows.nbytes * 2):
        monkeypatch.setattr(padded, "BLOCK_BYTES", size)
        sizes = [stop - start for start, stop, _ in rows.blocks()]
        assert sum(sizes) == 23
        assert max(sizes) <= max(1, size // (rows.nbytes // 23))
        np.testing.assert_array_equal(content_mask(rows), expected)


def layout(lengths, steps, side, holes=()):
    """Content of padded samples, with all-zero real steps where `holes` says (sample, step of the sample)."""
    content = np.zeros((len(lengths), steps), dtype=bool)
    for sample, length in enumerate(lengths):
        start = steps - length if side == "pre" else 0
        content[sample, start : start + length] = True
        for where, step in holes:
            if where == sample:
                content[sample, start + step] = False
    return content


@pytest.mark.parametrize("side", ["pre", "post"])
def test_a_silent_real_step_stays_a_step(side):
    text = layout([5, 3, 8], 8, side)
    audio = layout([5, 3, 8], 8, side, holes=[(0, 0), (0, 2), (0, 4), (1, 1)])
    found = aligned_spans({"text": text, "audio": audio})
    assert found["audio"].lengths.tolist() == [5, 3, 8]
    assert pairs(found["audio"]) == pairs(found["text"])
    alone = unaligned_span(audio)
    assert alone.lengths.tolist() == [3, 3, 8]  # its own first and last


def test_a_modality_that_is_all_zero_is_absent_and_the_others_stay():
    text, audio = layout([4, 2], 6, "pre"), layout([4, 0], 6, "pre")
    found = aligned_spans({"text": text, "audio": audio})
    assert found["text"].lengths.tolist() == [4, 2]
    assert found["audio"].lengths.tolist() == [4, 0]


@pytest.mark.parametrize("side", ["pre", "post"])
def test_given_lengths_win_and_lie_on_the_padding_side(side):
    lengths = np.array([5, 3, 8, 4])
    content = layout(lengths, 8, side, holes=[(0, 0), (0, 4), (1, 0), (1, 2)])
    spans = unaligned_span(content, Given(lengths))
    assert spans.lengths.tolist() == [5, 3, 8, 4]
    assert spans.starts.tolist() == ([3, 5, 0, 4] if side == "pre" else [0, 0, 0, 0])


def test_given_lengths_shorter_and_longer_than_the_content():
    content = layout([5, 5, 5], 8, "post")
    assert pairs(unaligned_span(content, Given(np.array([3, 7, 0])))) == [(0, 3), (0, 7), (0, 0)]


def test_given_length_of_an_all_zero_sample_does_not_make_it_present():
    assert unaligned_span(layout([0, 4], 8, "post"), Given(np.array([6, 4]))).lengths.tolist() == [0, 4]


def test_attention_mask_decides_where_text_is_never_zero():
    full = np.ones((3, 8), dtype=bool)  # BERT's features of padded tokens are not zero
    given = Given(np.array([3, 8, 5]), np.array([0, 0, 0]))
    audio = layout([3, 8, 5], 8, "post", holes=[(0, 0), (0, 2)])
    found = aligned_spans({"text": full, "audio": audio}, given)
    assert pairs(found["text"]) == pairs(found["audio"]) == [(0, 3), (0, 8), (0, 5)]


def test_attention_mask_on_the_other_side_than_the_features_gives_lengths_only():
    full = np.ones((3, 8), dtype=bool)
    given = Given(np.array([3, 8, 5]), np.array([0, 0, 0]))  # the mask is post-padded, audio pre-padded
    found = aligned_spans({"text": full, "audio": layout([3, 8, 5], 8, "pre")}, given)
    assert pairs(found["audio"]) == [(5, 3), (0, 8), (3, 5)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_placed_spans_hold_as_much_content_as_any_candidate(data):
    samples, steps = 6, 7
    content = data.draw(hnp.arrays(np.bool_, (samples, steps)))
    lengths = data.draw(hnp.arrays(np.int64, samples, elements=st.integers(0, steps)))
    starts = place(Given(lengths), content.astype(np.int64))
    for mask, length, start in zip(content, lengths, starts, strict=True):
        assert 0 <= start <= steps - length
        held = mask[start : start + length].sum()
        for other in (0, steps - length):
            assert held >= mask[other : other + length].sum()


@pytest.mark.parametrize(
    ("spans", "side"),
    [
        ([(3, 5), (0, 8)], "pre"),
        ([(0, 5), (0, 8)], "post"),
        ([(3, 5), (0, 2)], "mixed"),
        ([(2, 3)], "mixed"),
        ([(0, 8), (0, 0)], "none"),
        ([], "none"),
    ],
)
def test_padding_side(spans, side):
    starts, lengths = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    assert padding_side(Spans(starts, lengths), 8) == side


def test_no_steps_at_all():
    assert pairs(outer_span(np.zeros((2, 0), dtype=bool))) == [(0, 0), (0, 0)]


def test_content_is_read_once_and_only_when_asked():
    class Counting(PaddedRows):
        scans = 0

        def blocks(self):
            self.scans += 1
            return super().blocks()

    rows = {name: Counting(np.ones((3, 4, 2))) for name in "ab"}
    spans = SplitSpans(rows, {}, aligned=True)
    assert rows["a"].scans == 0
    for name in "abab":
        spans.spans(name)
    assert [found.scans for found in rows.values()] == [1, 1]


def test_steps_that_given_lengths_leave_out_are_counted():
    rows = {"a": PaddedRows(np.ones((2, 5, 1)))}
    spans = SplitSpans(rows, {"a": Given(np.array([3, 5]))}, aligned=False)
    assert spans.outside("a") == 2
