"""Pickles of MulT and MultiBench: CMU-MOSI, CMU-MOSEI, IEMOCAP, UR-FUNNY, MUStARD.

`{split: {text, audio, vision, labels, id}}`, pre-padded; "noalign" files have a T per modality. See
github.com/yaohungt/Multimodal-Transformer and github.com/pliang279/MultiBench.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mfm.data.readers.padded import PaddedRows
from mfm.data.readers.parts import (
    CUSTOMARY,
    build_split,
    complete_modalities,
    find_modalities,
    given_span,
    label_array,
    named_splits,
    number_repeats,
    same_count,
    same_steps,
    sample_ids,
)
from mfm.data.records import CorpusData
from mfm.data.spans import Given, SplitSpans


def read_mult(tree: Any, path: Path, modalities: Sequence[str] | None = None) -> CorpusData:
    """Turn MulT's dictionary into records; arrays stay views of the file.

    `id` names a video and the start and end of the segment in it, which some files leave empty; such names
    repeat and are numbered: `video#0`, `video#1`, ...  Lengths are found from the padding, unless the file gives
    `<modality>_lengths`, as those that `mfm data export` writes do.

    Args:
        tree: What the pickle holds.
        path: The file.
        modalities: Modalities to use; all by default.

    Raises:
        DataFormatError: See the readers' package.
    """
    splits, notes = named_splits(tree, str(path))
    needed = {*CUSTOMARY, *(modalities or ())}
    rows = {
        name: find_modalities(split, f"{path}: {name}", path, {"labels", "id"}.__contains__, needed, notes)
        for name, split in splits.items()
    }
    complete, left_out = complete_modalities(rows, modalities, str(path))
    rows = {name: {key: found[key] for key in complete} for name, found in rows.items()}
    given = {name: _given(split, rows[name], f"{path}: {name}") for name, split in splits.items()}
    aligned = all(same_steps(rows[name], given[name]) for name in splits)
    used = list(modalities) if modalities is not None else complete
    ids = _ids(splits, rows, path, notes)
    records = {}
    for name, split in splits.items():
        samples = len(ids[name][0])
        labels = {}
        if split.get("labels") is not None:
            labels["labels"] = label_array(split["labels"], samples, f"{path}: {name}/labels")
        records[name] = build_split(rows[name], used, SplitSpans(rows[name], given[name], aligned), ids[name], labels)
    return CorpusData(str(path), "mult", records, aligned, tuple(notes + left_out))


def _given(split: Mapping[str, Any], rows: Mapping[str, PaddedRows], where: str) -> dict[str, Given]:
    found = {name: given_span(split, name, one, where) for name, one in rows.items()}
    return {name: span for name, span in found.items() if span is not None}


def _ids(
    splits: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, PaddedRows]], path: Path, notes: list[str]
) -> dict[str, tuple[tuple[str, ...], bool]]:
    ids = {
        name: sample_ids(name, split.get("id"), same_count(rows[name], f"{path}: {name}"), f"{path}: {name}/id")
        for name, split in splits.items()
    }
    if any(has_ids and len(set(names)) < len(names) for names, has_ids in ids.values()):
        seen: Counter[str] = Counter()
        ids = {
            name: (number_repeats(names, seen) if has_ids else names, has_ids) for name, (names, has_ids) in ids.items()
        }
        notes.append("id: names repeat, so samples are numbered within each name (video#0, video#1, ...)")
    return ids
