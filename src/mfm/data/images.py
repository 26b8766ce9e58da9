"""Images as sequences of one step, and pairs of images that show the same class.

An image of C channels is one step of C * H * W features, channel by channel, row by row, in [0, 1]: normalisation,
masks and losses treat it like any other modality, and parts that know of images (`conv`) find its shape again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfm.data.records import FloatArray, IntArray, Sequences
from mfm.errors import DataFormatError


class ImageSequences(Sequences):
    """N images of one modality, kept as bytes and read one at a time.

    Args:
        images: (K, C, H, W) uint8.
        chosen: (N,) which of them; an image may be chosen any number of times.
    """

    def __init__(self, images: NDArray[np.uint8], chosen: IntArray) -> None:
        self._images, self._chosen = images, np.asarray(chosen, dtype=np.int64)
        self.dim = int(np.prod(images.shape[1:]))
        self.lengths = np.ones(len(self._chosen), dtype=np.int64)
        self.starts = np.zeros(len(self._chosen), dtype=np.int64)
        self.file_steps = 1
        self.dtype = np.dtype(np.uint8)

    def steps(self, index: int) -> FloatArray:
        """The image as one step, (1, C * H * W), in [0, 1]."""
        flat: FloatArray = self._images[self._chosen[index]].reshape(1, -1).astype(np.float32) / np.float32(255)
        return flat

    def original(self, index: int) -> FloatArray:
        """As `steps`: there is no padding."""
        return self.steps(index)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of one source.

    Attributes:
        images: (K, C, H, W) uint8.
        labels: (K,) classes.
    """

    images: NDArray[np.uint8]
    labels: IntArray


def split_by_class(labels: IntArray, shares: dict[str, float], generator: np.random.Generator) -> dict[str, IntArray]:
    """Divide images so that every class has the same shares, and no image is in two parts.

    Args:
        labels: (K,) classes.
        shares: Name of the part -> share of each class; the last part takes what is left.
        generator: Source of randomness.

    Returns:
        Name -> places in `labels`, sorted.
    """
    parts: dict[str, list[IntArray]] = {name: [] for name in shares}
    for one in np.unique(labels):
        places = generator.permutation(np.flatnonzero(labels == one))
        ends = np.round(np.cumsum(list(shares.values())) * len(places)).astype(int)
        ends[-1] = len(places)
        for name, piece in zip(parts, np.split(places, ends[:-1]), strict=True):
            parts[name].append(piece)
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in parts.items()}


def pair_by_class(
    first: IntArray, second: IntArray, rounds: int, generator: np.random.Generator, *, same: bool = False
) -> tuple[IntArray, IntArray]:
    """Pair every image of one source with images of another that show the same class; each pair once.

    Within a class, partners are dealt out in turn, so that all are used about equally often.

    Args:
        first: (N,) classes of the first source.
        second: (M,) classes of the second.
        rounds: Partners of each image of the first; fewer where the class has not so many.
        generator: Source of randomness.
        same: The sources are the same images; none is paired with itself.

    Returns:
        (P,) places in the first and (P,) places in the second.

    Raises:
        DataFormatError: A class of the first source has no partner in the second.
    """
    lefts, rights = [], []
    for one in np.unique(first):
        left = generator.permutation(np.flatnonzero(first == one))
        right = left if same else generator.permutation(np.flatnonzero(second == one))
        choices = np.arange(int(same), len(right))
        if not len(choices):
            raise DataFormatError(f"class {one} has images in one source and no partners in the other; add some")
        for shift in generator.permutation(choices)[:rounds]:
            lefts.append(left)
            rights.append(right[(np.arange(len(left)) + shift) % len(right)])
    if not lefts:
        raise DataFormatError("there are too few images to hold some of each class out; give whole files")
    pairs = np.stack([np.concatenate(lefts), np.concatenate(rights)])
    pairs = pairs[:, generator.permutation(pairs.shape[1])]
    return pairs[0], pairs[1]
