"""Two images of one digit: scikit-learn's digits with a rendered second style, or MNIST with SVHN."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mfm.data.digit_styles import Values, draw_styles, render_digit, style_factors
from mfm.data.image_files import MNIST_FILES, SVHN_FILES, read_mnist, read_svhn
from mfm.data.images import ImageSequences, LabelledImages, pair_by_class, split_by_class
from mfm.data.records import CorpusData, IntArray, SplitData
from mfm.errors import CorpusNotFoundError, MissingDependencyError

EMBEDDED = "scikit-learn"
"""Stands for scikit-learn's own digits where a path is asked for."""

PLAIN, STYLED = "plain", "styled"
MNIST, SVHN = "mnist", "svhn"
_SHARES = {"train": 0.6, "valid": 0.15, "test": 0.25}
_HELD_OUT = 1 / 12  # of the published training files, for validation


@dataclass(frozen=True, eq=False)
class PairedDigits:
    """A corpus of pairs and what is known of how it was made.

    Attributes:
        data: The corpus.
        sources: Split -> modality -> (P,) source image of each sample.
        styles: Split -> (P, 5) private factors of the styled modality (`digit_styles.STYLE_FACTORS`); empty for
            published images, whose styles nobody knows.
        fingerprint: Identifies the content: SHA-256 of the source images and how they are paired.
    """

    data: CorpusData
    sources: Mapping[str, Mapping[str, IntArray]]
    styles: Mapping[str, Values]
    fingerprint: str


def embedded_digits(pairs: int, seed: int) -> PairedDigits:
    """Scikit-learn's digits (8 x 8, grey), each with another one of its class in a drawn style (16 x 16, colours).

    Args:
        pairs: Partners of each image.
        seed: Seed of splits, partners and styles.

    Returns:
        Modalities `plain` and `styled`. No image is in two splits, as neither of the two.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the embedded digits come with scikit-learn: pip install 'mfm-lightning[images]'"
        ) from error
    loaded = load_digits()
    ink, labels = loaded.images / 16.0, loaded.target.astype(np.int64)
    plain = np.round(255 * ink[:, None]).astype(np.uint8)
    generator = np.random.default_rng(seed)
    splits, sources, styles = {}, {}, {}
    for name, places in split_by_class(labels, _SHARES, generator).items():
        left, right = pair_by_class(labels[places], labels[places], pairs, generator, same=True)
        left, right = places[left], places[right]
        style = draw_styles(len(left), generator)
        rendered = np.stack([render_digit(ink[place], one) for place, one in zip(right, style, strict=True)])
        splits[name] = SplitData(
            ids=tuple(f"{labels[a]}:{a}+{b}" for a, b in zip(left, right, strict=True)),
            sequences={PLAIN: ImageSequences(plain, left), STYLED: ImageSequences(rendered, np.arange(len(right)))},
            labels={"labels": labels[left].astype(np.float64)[:, None]},
        )
        sources[name], styles[name] = {PLAIN: left, STYLED: right}, style_factors(style)
    note = f"paired by class, {pairs} partners an image, seed {seed}; the second image is rendered in a drawn style"
    data = CorpusData(EMBEDDED, "images", splits, True, (note,))
    return PairedDigits(data, sources, styles, _fingerprint([LabelledImages(plain, labels)], pairs, seed))


def is_image_folder(path: str | Path) -> bool:
    """Whether a folder has a file of MNIST's or of SVHN's."""
    names = {file.name.removesuffix(".gz").replace(".idx", "-idx") for file in Path(path).iterdir()}
    return bool(names & {*SVHN_FILES.values(), *(name for pair in MNIST_FILES.values() for name in pair)})


def published_digits(folder: str | Path, pairs: int, seed: int) -> PairedDigits:
    """MNIST paired with SVHN by class, the paper's first experiment.

    The published test files are the test split; a twelfth of each class of the training files is held out for
    validation.

    Args:
        folder: MNIST's four idx files and SVHN's `train_32x32.mat` and `test_32x32.mat`.
        pairs: SVHN images that each MNIST image is paired with.
        seed: Seed of partners and of what is held out.

    Returns:
        Modalities `mnist` and `svhn`.

    Raises:
        CorpusNotFoundError: A file is not there.
        DataFormatError: A file is damaged or another one.
        MissingDependencyError: scipy is not installed.
    """
    folder = Path(folder)
    for file in SVHN_FILES.values():
        if not (folder / file).is_file():
            raise CorpusNotFoundError(f"{folder} has no {file}; put SVHN's cropped digits (format 2) there")
    generator = np.random.default_rng(seed)
    splits, sources, everything = {}, {}, []
    for part in ("train", "test"):
        first, second = read_mnist(folder, part), read_svhn(folder / SVHN_FILES[part])
        everything += [first, second]
        shares = {"train": 1 - _HELD_OUT, "valid": _HELD_OUT} if part == "train" else {"test": 1.0}
        places = [split_by_class(one.labels, shares, generator) for one in (first, second)]
        for name in shares:
            left, right = (chosen[name] for chosen in places)
            a, b = pair_by_class(first.labels[left], second.labels[right], pairs, generator)
            left, right = left[a], right[b]
            splits[name] = SplitData(
                ids=tuple(f"{first.labels[x]}:{part}{x}+{y}" for x, y in zip(left, right, strict=True)),
                sequences={MNIST: ImageSequences(first.images, left), SVHN: ImageSequences(second.images, right)},
                labels={"labels": first.labels[left].astype(np.float64)[:, None]},
            )
            sources[name] = {MNIST: left, SVHN: right}
    ordered = {name: splits[name] for name in ("train", "valid", "test")}
    note = f"MNIST paired with SVHN by class, {pairs} partners an image, seed {seed}"
    data = CorpusData(str(folder), "images", ordered, True, (note,))
    return PairedDigits(data, sources, {}, _fingerprint(everything, pairs, seed))


def _fingerprint(sources: list[LabelledImages], pairs: int, seed: int) -> str:
    digest = hashlib.sha256(f"pairs {pairs}, seed {seed}".encode())
    for source in sources:
        digest.update(np.ascontiguousarray(source.images).data)
        digest.update(np.ascontiguousarray(source.labels).data)
    return digest.hexdigest()
