"""Where the real steps of a padded sample begin and end.

Published files pad samples to one T with zeros before (pre), after (post) or both, and hold steps
that are real yet all zero in one modality (a pause without pitch, a frame without a face). The rules:

* content: a step with any non-zero number; NaN and infinities are content.
* aligned files: one span a sample, from the first to the last step at which any modality has content.
* unaligned files: one span a sample and modality, from its own first to its own last content.
* lengths given in the file win; they are placed where they hold most content.
* a modality that is all zero within a sample is absent there: length 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mfm.data.records import IntArray

BoolArray = NDArray[np.bool_]


class Spans(NamedTuple):
    """Real steps of N samples: `starts` and `lengths`, (N,) int64 each; start 0 where the length is 0."""

    starts: IntArray
    lengths: IntArray


class Given(NamedTuple):
    """What the file itself says: lengths (N,), and where they start (N,) if it says that too."""

    lengths: IntArray
    starts: IntArray | None = None


class Blocks(Protocol):
    """N padded samples that are read a block at a time."""

    shape: tuple[int, int, int]

    def blocks(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Blocks of bounded size: first sample, sample after the last, (n, T, D) array."""


def content_of(block: NDArray[Any]) -> BoolArray:
    """Steps that hold anything: (n, T, D) -> (n, T) bool.

    >>> content_of(np.array([[[0.0, -0.0], [0.0, np.nan]]])).tolist()
    [[False, True]]
    """
    return np.asarray(block.any(axis=2))


def content_mask(rows: Blocks) -> BoolArray:
    """Steps of all samples that hold anything, (N, T) bool, in memory bounded by one block."""
    mask = np.zeros(rows.shape[:2], dtype=np.bool_)
    for start, stop, block in rows.blocks():
        mask[start:stop] = content_of(block)
    return mask


def outer_span(content: BoolArray) -> Spans:
    """From the first to the last step with content: (N, T) bool -> spans.

    >>> spans = outer_span(np.array([[False, True, False, True], [False] * 4]))
    >>> spans.starts.tolist(), spans.lengths.tolist()
    ([1, 0], [3, 0])
    """
    samples, steps = content.shape
    if steps == 0:
        return Spans(np.zeros(samples, np.int64), np.zeros(samples, np.int64))
    first = content.argmax(axis=1)
    last = steps - 1 - content[:, ::-1].argmax(axis=1)
    return Spans(first.astype(np.int64), np.where(content.any(axis=1), last - first + 1, 0).astype(np.int64))


def place(given: Given, weight: IntArray) -> IntArray:
    """Find where samples of known length start.

    Args:
        given: Lengths, at most T, and the starts that the file suggests, if any.
        weight: (N, T) number of modalities with content at each step.

    Returns:
        (N,) starts. Each sample may start where the file suggests, at step 0 (post-padded), at T - length
        (pre-padded) or at its first content, whichever holds most content. On a tie the file's suggestion
        is taken, or else the padding side of the file: the one that holds more content in more samples.
    """
    steps = weight.shape[1]
    running = np.zeros((len(weight), steps + 1), dtype=np.int64)
    np.cumsum(weight, axis=1, out=running[:, 1:])
    latest = steps - given.lengths
    index = np.arange(len(weight))

    def held(starts: IntArray) -> IntArray:
        return np.asarray(running[index, starts + given.lengths] - running[index, starts])

    post, pre = np.zeros_like(latest), latest
    first = np.minimum(outer_span(weight > 0).starts, latest)
    pre_padded = int((held(pre) > held(post)).sum()) > int((held(post) > held(pre)).sum())
    candidates = [pre, post, first] if pre_padded else [post, pre, first]
    if given.starts is not None:
        candidates.insert(0, np.clip(given.starts, 0, latest))
    best: IntArray = candidates[0]
    for other in candidates[1:]:
        best = np.where(held(other) > held(best), other, best)
    return best


def _absent_where_empty(spans: Spans, content: BoolArray) -> Spans:
    lengths = np.where(content.any(axis=1), spans.lengths, 0)
    return Spans(np.where(lengths > 0, spans.starts, 0), lengths)


def aligned_spans(contents: Mapping[str, BoolArray], given: Given | None = None) -> dict[str, Spans]:
    """One span a sample for all modalities; length 0 for those that are all zero in the sample.

    Args:
        contents: Modality -> (N, T) content; one T for all.
        given: Lengths from the file, if it has them.
    """
    weight = np.sum([mask.astype(np.int64) for mask in contents.values()], axis=0)
    common = outer_span(weight > 0) if given is None else Spans(place(given, weight), given.lengths)
    return {name: _absent_where_empty(common, content) for name, content in contents.items()}


def unaligned_span(content: BoolArray, given: Given | None = None) -> Spans:
    """The span of one modality on its own: (N, T) content -> spans."""
    if given is None:
        return outer_span(content)
    return _absent_where_empty(Spans(place(given, content.astype(np.int64)), given.lengths), content)


def padding_side(spans: Spans, steps: int) -> str:
    """Where a file pads: `pre`, `post`, `mixed`, or `none` when no sample is shorter than T.

    Args:
        spans: Spans of one modality.
        steps: T.

    >>> padding_side(Spans(np.array([2, 0]), np.array([3, 5])), 5)
    'pre'
    """
    short = (spans.lengths > 0) & (spans.lengths < steps)
    before = bool((spans.starts[short] > 0).any())
    after = bool((spans.starts[short] + spans.lengths[short] < steps).any())
    return {(True, True): "mixed", (True, False): "pre", (False, True): "post", (False, False): "none"}[before, after]


@dataclass
class SplitSpans:
    """Spans of a split, found when first asked for: opening a 4 GB file must not read it all.

    Attributes:
        rows: Modality -> its padded samples; in aligned files every modality of the file, whichever are used,
            so that a sample's span does not depend on the choice.
        given: Modality -> what the file says; in aligned files all entries are the same.
        aligned: Which rule applies.
    """

    rows: Mapping[str, Blocks]
    given: Mapping[str, Given]
    aligned: bool
    _contents: dict[str, BoolArray] = field(default_factory=dict, repr=False)
    _spans: dict[str, Spans] = field(default_factory=dict, repr=False)

    def content(self, name: str) -> BoolArray:
        """Content of one modality, (N, T)."""
        if name not in self._contents:
            self._contents[name] = content_mask(self.rows[name])
        return self._contents[name]

    def learn(self, name: str, content: BoolArray) -> None:
        """Take the content from somebody who has just read the samples anyway."""
        self._contents[name] = content

    def spans(self, name: str) -> Spans:
        """Starts and lengths of one modality."""
        if name not in self._spans:
            if self.aligned:
                given = next(iter(self.given.values()), None)
                self._spans = aligned_spans({key: self.content(key) for key in self.rows}, given)
            else:
                self._spans[name] = unaligned_span(self.content(name), self.given.get(name))
        return self._spans[name]

    def outside(self, name: str) -> int:
        """Steps with content that given lengths leave out."""
        content, spans = self.content(name), self.spans(name)
        position = np.arange(content.shape[1])
        inside = (position >= spans.starts[:, None]) & (position < (spans.starts + spans.lengths)[:, None])
        return int((content & ~inside).sum())
