"""Reading CMU-Multimodal-SDK computational sequences (`.csd`) by their structure alone.

A file is HDF5: `/<root name>/data/<video>/{features (n, D), intervals (n, 2) in seconds}` and
`/<root name>/metadata/<key>`. The metadata of published files can be anything and decides nothing here. After an
alignment by the SDK a video is split into keys `video[0]`, `video[1]`, ..., which are read as one video again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from mfm.data.records import BoolArray
from mfm.errors import CorpusNotFoundError, DataFormatError

Intervals = NDArray[np.float64]
_PART = re.compile(r"(.+)\[(\d+)\]", re.DOTALL)
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for a damaged object, whatever is damaged


@dataclass(frozen=True)
class Frames:
    """Frames of one video in the order of the file.

    Attributes:
        intervals: (n, 2) float64, start and end in seconds; as in the file, so perhaps NaN or end before start.
        values: (n, D) float32 or float64 as in the file (other number types become float64).
        numbers: n numbers of the rows: k where each came alone from a key `video[k]`, the position otherwise.
    """

    intervals: Intervals
    values: NDArray[np.floating[Any]]
    numbers: Sequence[int] = ()

    def __post_init__(self) -> None:
        if len(self.numbers) != len(self.intervals):
            object.__setattr__(self, "numbers", range(len(self.intervals)))

    def __len__(self) -> int:
        return len(self.intervals)

    @cached_property
    def storable(self) -> BoolArray:
        """(n, D) values that are finite and fit float32."""
        if self.values.dtype == np.float32:
            return np.asarray(np.isfinite(self.values))
        return np.asarray(np.abs(self.values) <= np.finfo(np.float32).max)  # NaN compares False


@dataclass(frozen=True)
class Words:
    """Words of one video in the order of the file.

    Attributes:
        intervals: (n, 2) float64, start and end in seconds; as in the file.
        texts: n words.
    """

    intervals: Intervals
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.intervals)


class ComputationalSequence:
    """A `.csd` file, open for reading one video at a time; a context manager.

    Args:
        path: The file.

    Attributes:
        path: The file.
        root: Name of its root group.
        videos: Video -> the keys that hold it; more than one after an alignment by the SDK.

    Raises:
        CorpusNotFoundError: No such file.
        DataFormatError: Truncated, not HDF5, or without computational sequence.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise CorpusNotFoundError(f"no such file: {self.path}; check the path")
        try:
            self._file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise DataFormatError(f"{self.path} cannot be opened ({_fault(error)}); download it again") from error
        try:
            self.root, self._data = self._find_data()
            self.videos = _parts_of_videos(self._keys())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, video: str) -> bool:
        return video in self.videos

    def count(self, video: str) -> int:
        """Number of frames, words or segments of a video, from the shapes alone; 0 where the file lacks it."""
        return sum(self.length(key) for key in self.videos.get(video, ()))

    def first(self) -> str:
        """The first video that has a frame, word or segment.

        Raises:
            DataFormatError: None has.
        """
        for video in self.videos:
            if self.count(video):
                return video
        raise DataFormatError(f"{self.path} has no interval in any video; download it again or give another file")

    def frames(self, video: str) -> Frames:
        """Read the frames of a video.

        Raises:
            DataFormatError: Damaged, misshapen, or not numbers.
        """
        parts = [self.read(key) for key in self.videos[video]]
        values: list[NDArray[np.floating[Any]]] = []
        for key, (_, features) in zip(self.videos[video], parts, strict=True):
            if features.dtype.kind not in "fiub":
                raise DataFormatError(
                    f"{self.path}: {key!r} holds {_kind(features)} where numbers are needed; give a file of features"
                )
            values.append(features.astype(np.float32 if features.dtype in ("<f4", ">f4") else np.float64, copy=False))
        widths = {part.shape[1] for part in values if len(part)}
        if len(widths) > 1 or 0 in widths:
            raise DataFormatError(
                f"{self.path}: {video!r} has frames of {', '.join(map(str, sorted(widths)))} features; "
                "one number of them, at least 1, is needed"
            )
        if len(parts) == 1 and not _PART.fullmatch(self.videos[video][0]):
            return Frames(parts[0][0], values[0])
        filled = [part for part in values if len(part)] or values[:1]
        keys = [_PART.fullmatch(key) for key in self.videos[video]]
        alone = [int(key[2]) for key in keys if key] if all(len(part) == 1 for part in values) else ()
        return Frames(np.concatenate([intervals for intervals, _ in parts]), np.concatenate(filled), alone)

    def words(self, video: str) -> Words:
        """Read the words of a video.

        Raises:
            DataFormatError: Damaged, misshapen, or not words.
        """
        parts = [self.read(key) for key in self.videos[video]]
        texts: list[str] = []
        for key, (_, features) in zip(self.videos[video], parts, strict=True):
            if len(features) and (features.dtype.kind not in "SO" or features.shape[1] != 1):
                raise DataFormatError(
                    f"{self.path}: {key!r} holds {features.dtype} of shape {features.shape}, not one word a row; "
                    "give the file of timestamped words as the pivot"
                )
            texts += [_text(item) for item in features.ravel().tolist()]
        return Words(np.concatenate([intervals for intervals, _ in parts]), tuple(texts))

    def metadata(self) -> dict[str, str]:
        """What the file says of itself as text, for showing only."""
        group = self._data.parent.get("metadata")
        if not isinstance(group, h5py.Group):
            return {}
        return {str(key): _shown(item) for key, item in group.items() if isinstance(item, h5py.Dataset)}

    def _find_data(self) -> tuple[str, h5py.Group]:
        """Name of the only root group that has a group `data`, and that group."""
        with self._damage_told("the top"):
            roots = {
                str(name): group["data"]
                for name, group in self._file.items()
                if isinstance(group, h5py.Group) and isinstance(group.get("data"), h5py.Group)
            }
        if len(roots) != 1:
            raise DataFormatError(
                f"{self.path} is not a computational sequence: {len(roots)} of its groups hold `data`, one should; "
                "give a .csd file of the CMU-Multimodal-SDK"
            )
        return next(iter(roots.items()))

    def _keys(self) -> list[str]:
        with self._damage_told("the list of videos"):
            keys = list(self._data)
        if not keys:
            raise DataFormatError(f"{self.path} holds no video; download it again or give another file")
        strange = [key for key in keys if not isinstance(key, str)]  # h5py hands over bytes that are not UTF-8
        if strange:
            raise DataFormatError(f"{self.path} has a video named {strange[0]!r}, which is no text; download it again")
        return keys

    def _dataset(self, key: str, name: str) -> h5py.Dataset:
        entry = self._data[key]
        item = entry.get(name) if isinstance(entry, h5py.Group) else None
        if not isinstance(item, h5py.Dataset):
            raise DataFormatError(f"{self.path}: {key!r} has no {name}; each video of a .csd file has them")
        return item

    def length(self, key: str) -> int:
        """Rows of one key, from the shape alone."""
        with self._damage_told(key):
            shape = self._dataset(key, "intervals").shape
            return int(shape[0]) if shape else 0

    def read(self, key: str) -> tuple[Intervals, NDArray[Any]]:
        """Intervals (n, 2) and features (n, D), whatever they are, of one key."""
        with self._damage_told(key):
            intervals = np.asarray(self._dataset(key, "intervals")[()])
            features = np.asarray(self._dataset(key, "features")[()])
        if intervals.size == 0 and features.ndim and not len(features):  # the SDK writes nothing as shape (0,)
            return np.zeros((0, 2)), features.reshape(0, features.shape[1] if features.ndim == 2 else 1)
        if intervals.ndim != 2 or intervals.shape[1] != 2 or intervals.dtype.kind not in "fiu":
            raise DataFormatError(
                f"{self.path}: intervals of {key!r} have shape {intervals.shape} and type {intervals.dtype}; "
                "(n, 2) numbers, start and end in seconds, are needed"
            )
        if features.ndim == 1:
            features = features[:, None]
        if features.ndim != 2 or len(features) != len(intervals):
            raise DataFormatError(
                f"{self.path}: {key!r} has features of shape {features.shape} for {len(intervals)} intervals; "
                "one row for each interval is needed"
            )
        return intervals.astype(np.float64), features

    @contextlib.contextmanager
    def _damage_told(self, where: str) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise DataFormatError(
                f"{self.path} is damaged at {where!r} ({_fault(error)}); download it again"
            ) from error


def _kind(features: NDArray[Any]) -> str:
    """The type of features, for a person.

    >>> _kind(np.array([b"word"])), _kind(np.array([1j]))
    ('text', 'complex128')
    """
    return "text" if features.dtype.kind in "SOU" else str(features.dtype)


def is_sequence(path: str | Path) -> bool:
    """Whether a file has the structure of a computational sequence; whatever cannot be opened has not."""
    if not h5py.is_hdf5(path):
        return False
    try:
        with ComputationalSequence(path):
            return True
    except DataFormatError:
        return False


def describe(path: str | Path) -> dict[str, Any]:
    """What a computational sequence holds, from its shapes, its first video and its metadata.

    Args:
        path: The file.

    Returns:
        `path`, `root`, `videos`, `pieces` (keys, more than videos after an alignment by the SDK), `rows` of all videos,
        `shape` and `type` of the features of the first video that has any, and `metadata` as text.

    Raises:
        CorpusNotFoundError: No such file.
        DataFormatError: It is none, or damaged.
    """
    with ComputationalSequence(path) as file:
        _, features = file.read(next(key for key in file.videos[file.first()] if file.length(key)))
        return {
            "path": str(path),
            "root": file.root,
            "videos": len(file.videos),
            "pieces": sum(map(len, file.videos.values())),
            "rows": sum(file.count(video) for video in file.videos),
            "shape": list(features.shape),
            "type": "words" if features.dtype.kind in "SO" else str(features.dtype),
            "metadata": file.metadata(),
        }


def _parts_of_videos(keys: list[str]) -> dict[str, tuple[str, ...]]:
    """Video -> its keys, `video[k]` in the order of k.

    >>> _parts_of_videos(["b", "a[10]", "a[2]"])
    {'a': ('a[2]', 'a[10]'), 'b': ('b',)}
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for key in keys:
        part = _PART.fullmatch(key)
        video, number = (part[1], int(part[2])) if part else (key, -1)
        found.setdefault(video, []).append((number, key))
    return {video: tuple(key for _, key in sorted(found[video])) for video in sorted(found)}


def _text(item: bytes | str) -> str:
    return item.decode("utf-8", errors="replace") if isinstance(item, bytes) else str(item)


def _shown(item: h5py.Dataset) -> str:
    try:
        values = np.asarray(item[()]).ravel().tolist()
    except _DAMAGE as error:
        return f"unreadable ({_fault(error)})"
    return " ".join(_text(value) for value in values)


def _fault(error: BaseException) -> str:
    text = str(error)
    for sign, said in (("truncated", "it is truncated"), ("signature", "it is not HDF5")):
        if sign in text:
            return said
    return (text.splitlines() or [type(error).__name__])[0]
