"""Folders of the Memory Fusion Network: ICT-MMMO, YouTube, POM, MOUD and MOSI in another naming.

One HDF5 file an array, one dataset a file: `text_train_emb.h5`, `audio_train.h5`, `video_train.h5`,
`y_train.h5`, ...; or `X_train.h5`, with all modalities side by side. See github.com/pliang279/MFN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mfm.corpora import CORPORA
from mfm.data.readers.padded import PaddedRows
from mfm.data.readers.parts import (
    SPLIT_ALIASES,
    build_split,
    complete_modalities,
    label_array,
    same_count,
    same_steps,
    sample_ids,
)
from mfm.data.records import SPLITS, CorpusData
from mfm.data.spans import SplitSpans
from mfm.errors import DataFormatError

_NAME = re.compile(r"(?P<array>.+?)_(?P<split>train|valid|val|dev|test)(?P<emb>_emb)?\.(h5|hdf5)")
_CUSTOMARY = ("audio", "text", "video")
_DATASETS = ("d1", "data")
_SIDE_BY_SIDE = [{"text": 300, "audio": 5, "video": 20}] + [
    file.dims for corpus in CORPORA.values() for file in corpus.files if file.format == "mfn"
]

Files = dict[str, dict[str, Path]]  # split -> array -> file


def is_mfn_folder(path: Path) -> bool:
    """Whether any file in a folder is named as MFN's are."""
    return any(_NAME.fullmatch(file.name) for file in path.iterdir())


def read_mfn(path: Path, modalities: Sequence[str] | None = None) -> CorpusData:
    """Read a folder; its arrays (some 10 MB each) are loaded once, which needs no open file in workers.

    A partial download works: with `modalities=None` those that every split has are read, and a note names
    the rest.

    Args:
        path: The folder.
        modalities: Modalities to use.

    Raises:
        DataFormatError: No such folder of files, a file missing of a modality asked for, or unreadable.
    """
    files = _files(path)
    arrays = {split: [name for name in found if name != "y"] for split, found in files.items()}
    _check_asked(path, files, modalities)
    notes: list[str] = []
    whole = [name for name in _known(files) if all(name in found for found in arrays.values())]
    rows: dict[str, dict[str, PaddedRows]] = {split: {} for split in files}
    for split, found in files.items():
        for name in whole:
            rows[split].update(_modalities(name, _load(found[name]), found[name], notes))
        if rows[split]:
            same_count(rows[split], f"{path}: {split}")
    notes.extend(_left_out(path, files, whole))
    complete, _ = complete_modalities(rows, modalities, str(path))
    aligned = all(same_steps(found, {}) for found in rows.values())
    used = list(modalities) if modalities is not None else complete
    records = {}
    for split, found in files.items():
        samples = same_count(rows[split], f"{path}: {split}")
        labels = {"labels": label_array(_load(found["y"]), samples, str(found["y"]))} if "y" in found else {}
        spans = SplitSpans(rows[split], {}, aligned)
        records[split] = build_split(rows[split], used, spans, sample_ids(split, None, samples, split), labels)
    return CorpusData(str(path), "mfn", records, aligned, tuple(dict.fromkeys(notes)))


def _files(path: Path) -> Files:
    found: Files = {}
    for file in sorted(path.iterdir()):
        match = _NAME.fullmatch(file.name)
        if match is None or not file.is_file():
            continue
        split = SPLIT_ALIASES.get(match["split"], match["split"])
        # text_train.h5 beside text_train_emb.h5 holds word numbers, not features
        if match["emb"] or match["array"] not in found.get(split, {}):
            found.setdefault(split, {})[match["array"]] = file
    if not found:
        names = ", ".join(file.name for file in sorted(path.iterdir())[:5]) or "nothing"
        raise DataFormatError(
            f"{path} is not a folder of MFN files: expected audio_train.h5, y_train.h5 and the like, found {names}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _known(files: Files) -> list[str]:
    return sorted({name for found in files.values() for name in found if name != "y"})


def _file_name(name: str, split: str, files: Files) -> str:
    """What the file of a modality is called in this folder, or would be."""
    example = next((found[name].name for found in files.values() if name in found), None)
    if example is not None:
        match = _NAME.fullmatch(example)
        return example if match is None else f"{name}_{split}{match['emb'] or ''}.h5"
    return f"{name}_{split}_emb.h5" if name == "text" else f"{name}_{split}.h5"


def _check_asked(path: Path, files: Files, asked: Sequence[str] | None) -> None:
    known = _known(files)
    if "X" in known:
        return  # holds several; checked when it has been taken apart
    missing = [
        _file_name(name, split, files)
        for name in asked or ()
        if name in known or name in _CUSTOMARY
        for split, found in files.items()
        if name not in found
    ]
    if missing:
        complete = [name for name in known if all(name in found for found in files.values())]
        raise DataFormatError(f"{path} lacks {', '.join(missing)}; download them or set modalities to {complete}")


def _left_out(path: Path, files: Files, whole: Sequence[str]) -> list[str]:
    notes = []
    for name in _known(files):
        if name not in whole:
            missing = ", ".join(_file_name(name, split, files) for split, found in files.items() if name not in found)
            notes.append(f"{name} is left out: {missing} is missing")
    absent = [name for name in _CUSTOMARY if name not in _known(files)]
    if absent and "X" not in _known(files):
        notes.append(f"the folder has no files of {', '.join(absent)}")
    return notes


def _load(file: Path) -> NDArray[Any]:
    """The one array of a file."""
    try:
        with h5py.File(file, "r", locking=False) as opened:
            names = [name for name in opened if isinstance(opened[name], h5py.Dataset)]
            chosen = names if len(names) == 1 else [name for name in _DATASETS if name in names]
            if not chosen:
                raise DataFormatError(f"{file} has datasets {names}, expected one, named d1")
            array: NDArray[Any] = opened[chosen[0]][()]
    except OSError as error:
        raise DataFormatError(f"{file} is not a readable HDF5 file ({error}); download it again") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataFormatError(f"{file} does not hold an array of numbers")
    return array


def _modalities(name: str, array: NDArray[Any], file: Path, notes: list[str]) -> Mapping[str, PaddedRows]:
    if array.ndim != 3:
        raise DataFormatError(f"{file} has shape {array.shape}, expected (N, T, D)")
    if name != "X":
        return {name: PaddedRows(array)}
    for dims in _SIDE_BY_SIDE:
        if sum(dims.values()) == array.shape[2]:
            notes.append(f"X holds {' + '.join(f'{key} ({dim})' for key, dim in dims.items())} side by side")
            bounds = np.cumsum([0, *dims.values()])
            return {key: PaddedRows(array[:, :, bounds[index] : bounds[index + 1]]) for index, key in enumerate(dims)}
    notes.append(f"X has {array.shape[2]} features of unknown modalities and is read as one, named 'features'")
    return {"features": PaddedRows(array)}
