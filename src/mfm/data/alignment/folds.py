"""Which video belongs to which split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError

_OTHER_NAMES = {"dev": "valid", "val": "valid", "validation": "valid", "training": "train", "testing": "test"}
SPLIT_NAMES = ("train", "valid", "test")


def read_folds(path: str | Path) -> dict[str, str]:
    """Read a JSON file `{"train": [video, ...], "valid": [...], "test": [...]}`.

    Args:
        path: The file; `dev`, `val` and `validation` mean `valid`.

    Returns:
        Video -> split.

    Raises:
        CorpusNotFoundError: No such file.
        DataFormatError: Not such a file.
        ConfigurationError: A video is in two splits.
    """
    where = Path(path)
    if not where.is_file():
        raise CorpusNotFoundError(f"no such file: {where}; give folds as JSON, or leave them out for a seeded split")
    try:
        content = json.loads(where.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFormatError(f"{where} is not JSON ({error}); folds are {{split: [video, ...]}}") from error
    if not isinstance(content, dict) or not all(isinstance(videos, list) for videos in content.values()):
        raise DataFormatError(f"{where} is not {{split: [video, ...]}}; give one list of videos for each split")
    found: dict[str, str] = {}
    for name, videos in content.items():
        split = _OTHER_NAMES.get(str(name), str(name))
        for video in map(str, videos):
            if found.setdefault(video, split) != split:
                raise ConfigurationError(
                    f"{where}: video {video!r} is in {found[video]!r} and in {split!r}, which would leak between them; "
                    "leave it in one"
                )
    return found


def seeded_folds(videos: Iterable[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Draw train, valid and test by video.

    Args:
        videos: All videos.
        fractions: Shares of train, valid and test; they add up to 1.
        seed: Of the draw.

    Returns:
        Video -> split.

    Raises:
        ConfigurationError: The shares are not three that add up to 1, or the seed is negative.

    >>> list(seeded_folds("abcdefghij", (0.7, 0.1, 0.2), 0).values()).count("train")
    7
    """
    if seed < 0:
        raise ConfigurationError(f"the seed is {seed}; it must be 0 or more")
    if len(fractions) != len(SPLIT_NAMES) or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6:  # NaN too
        raise ConfigurationError(
            f"the shares {tuple(fractions)} of train, valid and test must be three that add up to 1"
        )
    ordered = np.random.default_rng(seed).permutation(sorted(videos)).tolist()
    ends = np.round(np.cumsum(fractions) * len(ordered)).astype(int).tolist()
    return {
        video: name
        for name, start, stop in zip(SPLIT_NAMES, [0, *ends], ends, strict=False)
        for video in sorted(ordered[start:stop])
    }


def unknown_videos(folds: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Videos of the folds that no file has."""
    return sorted(set(folds) - set(known))
