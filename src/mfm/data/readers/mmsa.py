"""Pickles of MMSA: CMU-MOSI, CMU-MOSEI, CH-SIMS and CH-SIMS v2, aligned and unaligned.

`{split: {raw_text, text, text_bert, audio, vision, id, annotations, classification_labels,
regression_labels, ...}}`; see github.com/thuiar/MMSA.
"""

from __future__ import annotations

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
    numeric,
    same_count,
    same_steps,
    sample_ids,
    texts,
)
from mfm.data.records import CorpusData, SplitData
from mfm.data.spans import Given, SplitSpans, outer_span
from mfm.errors import DataFormatError

_KEYS = frozenset({"regression_labels", "classification_labels", "raw_text", "text_bert", "annotations"})
_OTHER = _KEYS | {"id"}


def is_mmsa(split: Mapping[Any, Any]) -> bool:
    """Whether a split holds anything that MMSA's files have and MulT's have not."""
    if "labels" in split:  # MulT's name; its files may give lengths too
        return any(key in _KEYS for key in split)
    return any(key in _KEYS or str(key).endswith("_lengths") for key in split)


def read_mmsa(tree: Any, path: Path, modalities: Sequence[str] | None = None) -> CorpusData:
    """Turn MMSA's dictionary into records; arrays stay views of the file.

    Text's real steps come from the attention mask in `text_bert` where there is one, since the BERT features
    of padded tokens are not zero. `<modality>_lengths` are taken as they are.

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
        name: find_modalities(split, f"{path}: {name}", path, _is_other, needed, notes)
        for name, split in splits.items()
    }
    complete, left_out = complete_modalities(rows, modalities, str(path))
    rows = {name: {key: found[key] for key in complete} for name, found in rows.items()}
    given: dict[str, dict[str, Given]] = {}
    for name, split in splits.items():
        given[name] = _given(split, rows[name], f"{path}: {name}", notes)
    aligned = all(same_steps(rows[name], given[name]) for name in splits)
    used = list(modalities) if modalities is not None else complete
    records = {
        name: _split(name, split, rows[name], used, SplitSpans(rows[name], given[name], aligned), str(path))
        for name, split in splits.items()
    }
    return CorpusData(str(path), "mmsa", records, aligned, tuple(dict.fromkeys([*notes, *left_out])))


def _is_other(key: str) -> bool:
    return key in _OTHER or key.endswith("_lengths") or _is_label(key)


def _is_label(key: str) -> bool:
    return key == "labels" or key.startswith(("regression_labels", "classification_labels"))


def _given(split: Mapping[str, Any], rows: Mapping[str, PaddedRows], where: str, notes: list[str]) -> dict[str, Given]:
    """Lengths of modalities from `<modality>_lengths`, and of text from the attention mask."""
    given = {}
    for name, found in rows.items():
        span = given_span(split, name, found, where)
        if span is not None:
            given[name] = span
            notes.append(f"{name}: lengths are given in the file")
    mask = split.get("text_bert")
    if mask is None or "text" not in rows or "text" in given:
        return given
    tokens = numeric(mask, f"{where}/text_bert")
    samples, steps, _ = rows["text"].shape
    if tokens.ndim != 3 or tokens.shape[:2] != (samples, 3):
        raise DataFormatError(f"{where}/text_bert has shape {tokens.shape}, expected ({samples}, 3, T)")
    if tokens.shape[2] != steps:
        notes.append(f"text_bert has {tokens.shape[2]} tokens for {steps} steps of text and is not used for lengths")
        return given
    starts, lengths = outer_span(tokens[:, 1] > 0)
    given["text"] = Given(lengths, starts)
    notes.append("text: lengths are those of the attention mask in text_bert")
    return given


def _split(
    name: str,
    split: Mapping[str, Any],
    rows: Mapping[str, PaddedRows],
    used: Sequence[str],
    spans: SplitSpans,
    path: str,
) -> SplitData:
    where = f"{path}: {name}"
    samples = same_count(rows, where)
    labels = {key: label_array(value, samples, f"{where}/{key}") for key, value in split.items() if _is_label(key)}
    labels = {key: value for key, value in labels.items() if value.size or not samples}
    raw_text = split.get("raw_text")
    return build_split(
        rows,
        used,
        spans,
        sample_ids(name, split.get("id"), samples, f"{where}/id"),
        labels,
        None if raw_text is None else texts(raw_text, samples, f"{where}/raw_text"),
    )
