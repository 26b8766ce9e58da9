"""Any corpus as computational sequences of the CMU-Multimodal-SDK: a folder of `.csd` files and `folds.json`.

Keys are `video[k]`, as after an alignment by the SDK, for samples named `video$_$k`, and the sample's name otherwise.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

import mfm
from mfm.data.records import CorpusData, SplitData
from mfm.data.store_content import encode_name, split_order
from mfm.data.store_write import GuardedFile
from mfm.errors import ConfigurationError, DataFormatError
from mfm.files import write_json

Progress = Callable[[int, int], None]
Intervals = NDArray[np.float64]
_SEGMENT = re.compile(r"(.+)\$_\$(\d+)")
WORDS, FOLDS = "words", "folds.json"


def export_csd(
    data: CorpusData, folder: str | Path, *, overwrite: bool = False, progress: Progress | None = None
) -> list[str]:
    """Write `<modality>.csd`, `words.csd`, one `.csd` for each label array, and `folds.json`.

    A step has the interval of its word; where a corpus knows no times, or steps are no words, step t of a sample lasts
    from second t to t + 1 after the previous samples of its video. A segment lasts from its first word's start to its
    last word's end. Steps marked as unobserved are left out, so that aligning the files again marks them again.

    Args:
        data: What a reader or a store hands over; written sample by sample.
        folder: Folder to make.
        overwrite: Replace a folder that holds nothing but such files.
        progress: Called with (files written, total).

    Returns:
        A sentence for everything that is made up or lost.

    Raises:
        ConfigurationError: `folder` exists, or cannot be replaced.
        DataFormatError: Nothing to export, two samples of one name, or a modality named like another file.
        MFMError: The disk is full or cannot be written to.
    """
    target = Path(folder)
    _check_target(target, overwrite)
    places, notes = _places(data)
    files = _files(data, places)
    if not data.aligned and any(split.words is not None for split in data.splits.values()):
        notes.append("words are left out: the corpus does not know when its frames were")
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        for done, (name, content) in enumerate(files.items()):
            _write_sequence(temporary / f"{name}.csd", name, content())
            if progress is not None:
                progress(done + 1, len(files))
        write_json(temporary / FOLDS, _folds(places))
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
    except OSError as error:
        if error.errno is None:
            raise
        raise DataFormatError(f"cannot write {target}: {error.strerror}; nothing was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return notes


class _Place(NamedTuple):
    """Where a sample goes."""

    split: str
    row: int
    video: str
    key: str
    intervals: Intervals  # of its steps where steps have known times; else of one second each, by the longest modality


_Rows = Iterator[tuple[str, Intervals, NDArray[Any]]]


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {target.parent} does not exist; create it first")
    if not target.exists():
        return
    if not overwrite or not target.is_dir():
        raise ConfigurationError(f"{target} exists already; choose another name or allow overwriting")
    if any(file.suffix != ".csd" and file.name != FOLDS for file in target.iterdir()):
        raise ConfigurationError(f"{target} holds more than .csd files and is not replaced; choose another name")


def _places(data: CorpusData) -> tuple[list[_Place], list[str]]:
    places: list[_Place] = []
    ends: dict[str, float] = {}
    seen: set[str] = set()
    made_up = 0
    for name in split_order(data.splits):
        split = data.splits[name]
        for index, sample in enumerate(split.ids):
            match = _SEGMENT.fullmatch(sample)
            video = encode_name(match[1] if match else sample)
            key = f"{video}[{int(match[2])}]" if match else video
            if key in seen:
                raise DataFormatError(f"{data.path}: two samples are named {sample!r}; a key of a .csd file is unique")
            seen.add(key)
            intervals = _known_times(data, split, index)
            if intervals is None:
                steps = max((int(one.lengths[index]) for one in split.sequences.values()), default=0)
                start = ends.get(video, 0.0)
                intervals = start + np.arange(steps)[:, None] + np.array([0.0, 1.0])
                ends[video] = start + max(steps, 1)
                made_up += 1
            places.append(_Place(name, index, video, key, intervals))
    notes = [f"{made_up} sample(s) have no times: step t lasts from second t to t + 1"] if made_up else []
    return places, notes


def _known_times(data: CorpusData, split: SplitData, index: int) -> Intervals | None:
    """(L, 2) times of the steps, where each is a word with a known time."""
    if split.words is None or not data.aligned:
        return None
    return split.words.of(index)[1]


def _files(data: CorpusData, places: list[_Place]) -> dict[str, Callable[[], _Rows]]:
    """Name -> what goes into the file of that name."""
    files: dict[str, Callable[[], _Rows]] = {}

    def add(name: str, content: Callable[[], _Rows]) -> None:
        encoded = encode_name(name)
        if encoded in files:
            raise DataFormatError(f"{data.path}: two files would be named {encoded}.csd; rename the modality or labels")
        files[encoded] = content

    modalities = sorted({name for split in data.splits.values() for name in split.sequences})
    if not modalities:
        raise DataFormatError(f"{data.path} has no features; there is nothing to export")
    for name in modalities:
        add(name, lambda name=name: _features(data, places, name))  # type: ignore[misc]
    if _has_words(data):
        add(WORDS, lambda: _words(data, places))
    for name in sorted({label for split in data.splits.values() for label in split.labels}):
        add(name, lambda name=name: _labels(data, places, name))  # type: ignore[misc]
    return files


def _has_words(data: CorpusData) -> bool:
    """Whether words have times that are those of the steps, too."""
    return data.aligned and any(split.words is not None for split in data.splits.values())


def _features(data: CorpusData, places: list[_Place], name: str) -> _Rows:
    for place in places:
        sequences = data.splits[place.split].sequences.get(name)
        if sequences is None or not sequences.lengths[place.row]:
            continue
        steps, seen = sequences.steps(place.row), sequences.observed(place.row)
        yield place.key, place.intervals[: len(steps)][seen], steps[seen]


def _words(data: CorpusData, places: list[_Place]) -> _Rows:
    for place in places:
        words = data.splits[place.split].words
        if words is None:
            continue
        texts, intervals = words.of(place.row)
        encoded = [text.encode() for text in texts]
        yield place.key, intervals, np.array(encoded, dtype=f"S{max(map(len, encoded), default=1) or 1}")[:, None]


def _labels(data: CorpusData, places: list[_Place], name: str) -> _Rows:
    for place in places:
        labels = data.splits[place.split].labels.get(name)
        if labels is None:
            continue
        spoken = place.intervals
        span = [spoken[:, 0].min(), spoken[:, 1].max()] if len(spoken) else [0.0, 0.0]
        yield place.key, np.array([span]), labels[place.row][None]


def _write_sequence(path: Path, root: str, rows: _Rows) -> None:
    with path.open("wb+") as raw:
        guarded = GuardedFile(raw)
        with h5py.File(guarded, "w") as file:
            data = file.create_group(f"{root}/data")
            width = 0
            for key, intervals, features in rows:
                group = data.create_group(key)
                group.create_dataset("features", data=features)
                group.create_dataset("intervals", data=intervals)
                width = features.shape[1]
                guarded.check()
            about = file.create_group(f"{root}/metadata")
            for name, value in _metadata(root, width).items():
                about.create_dataset(name, data=[json.dumps(value)], dtype=h5py.string_dtype())
        guarded.check()


def _metadata(root: str, width: int) -> dict[str, Any]:
    """The keys that the SDK's check of a file asks for."""
    return {
        "root name": root,
        "computational sequence description": f"exported by mfm {mfm.__version__}",
        "dimension names": [f"{root} {index}" for index in range(width)],
        "computational sequence version": "1.0",
        "alignment compatible": True,
        "dataset name": "",
        "dataset version": "1.0",
        "creator": f"mfm {mfm.__version__}",
        "contact": "",
        "dataset bib citation": "",
        "featureset bib citation": "",
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, root)),
        "md5": None,
    }


def _folds(places: list[_Place]) -> dict[str, list[str]]:
    folds: dict[str, list[str]] = {}
    for place in places:
        folds.setdefault(place.split, []).append(place.video)
    return {name: list(dict.fromkeys(videos)) for name, videos in folds.items()}
