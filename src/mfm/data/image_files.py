"""Readers of image files as published: MNIST's idx (ubyte, also .gz) and SVHN's cropped digits (.mat)."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfm.data.images import LabelledImages
from mfm.errors import CorpusNotFoundError, DataFormatError, MissingDependencyError

_UBYTE = 0x08
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Part -> published names of its images and labels; `.gz` may follow."""

SVHN_FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
"""Part -> published name."""


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes (LeCun, Cortes, Burges: The MNIST database), packed by gzip or not.

    Returns:
        Array of the shape that the file's header gives.

    Raises:
        DataFormatError: No idx file of bytes, or not as long as its header says.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataFormatError(f"{path} cannot be read ({error}); get it again") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UBYTE or content[3] == 0:
        raise DataFormatError(f"{path} is no idx file of unsigned bytes; give MNIST's files as published")
    start = 4 + 4 * content[3]
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4")) if len(content) >= start else ()
    expected = start + int(np.prod([int(size) for size in shape], dtype=object))
    if len(shape) != content[3] or len(content) != expected:
        raise DataFormatError(f"{path} has {len(content)} bytes where its header asks for {expected}; get it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_mnist(folder: str | Path, part: str) -> LabelledImages:
    """Read MNIST.

    Args:
        folder: Holds the files of `MNIST_FILES`.
        part: `train` or `test`.

    Raises:
        CorpusNotFoundError: A file is not there.
        DataFormatError: A file is damaged, or images and labels do not fit together.
    """
    image_path, label_path = (_find(Path(folder), name) for name in MNIST_FILES[part])
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataFormatError(
            f"{image_path} has shape {images.shape} and {label_path.name} {labels.shape}; (N, height, width) "
            "and (N,) are needed"
        )
    return _checked(image_path, images[:, None], labels.astype(np.int64))


def read_svhn(path: str | Path) -> LabelledImages:
    """Read SVHN's cropped digits (Netzer et al., 2011): `X` (32, 32, 3, N) and `y` (N, 1), in which 10 stands for 0.

    Raises:
        MissingDependencyError: scipy is not installed.
        DataFormatError: Another or a damaged file.
    """
    path = Path(path)
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise MissingDependencyError("SVHN's .mat files need scipy: pip install 'mfm-lightning[images]'") from error
    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy raises half a dozen types for damaged files
        raise DataFormatError(f"{path} cannot be read as a .mat file ({type(error).__name__}); get it again") from error
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None or images.ndim != 4 or images.dtype != np.uint8:
        raise DataFormatError(f"{path} has no images X (height, width, channels, N) of bytes and labels y; give SVHN's")
    labels = np.asarray(labels).reshape(-1).astype(np.int64)
    if len(labels) != images.shape[3]:
        raise DataFormatError(f"{path} has {images.shape[3]} images and {len(labels)} labels; get it again")
    return _checked(path, np.ascontiguousarray(images.transpose(3, 2, 0, 1)), np.where(labels == 10, 0, labels))


def _find(folder: Path, name: str) -> Path:
    # some archives unpack to names with a dot before idx
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    raise CorpusNotFoundError(f"{folder} has no {name} (or {name}.gz); put MNIST's four files there")


def _checked(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> LabelledImages:
    if not len(images) or 0 in images.shape:
        raise DataFormatError(f"{path} holds no image; get it again")
    wrong = labels[(labels < 0) | (labels > 9)]
    if len(wrong):
        raise DataFormatError(f"{path} has a label {wrong[0]}, which is no digit; give files of digits")
    return LabelledImages(images, labels)
