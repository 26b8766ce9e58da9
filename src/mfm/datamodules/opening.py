"""Opening a corpus' file for a data module: where it is, which modalities it has, whose ids it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mfm.corpora import Corpus
from mfm.data.readers import read_corpus
from mfm.data.records import CorpusData
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError, nearest


def open_corpus(
    path: str,
    corpus: Corpus,
    modalities: Sequence[str] | None,
    missing: Sequence[str],
    feature_dims: Mapping[str, int] | None,
) -> tuple[CorpusData, dict[str, int]]:
    """Open a file and settle which modalities are used, with which dimensions.

    Args:
        path: File or folder.
        corpus: The corpus expected there, for messages.
        modalities: Modalities asked for; by default those of `feature_dims`, or all of the file.
        missing: Modalities taken away at evaluation; the file need not have them where `feature_dims` knows them.
        feature_dims: Dimensions that a model expects.

    Returns:
        The opened file and modality -> D, sorted.

    Raises:
        CorpusNotFoundError: Nothing there; the message says how to get it.
        DataFormatError: Not readable, a modality is not there, or has another dimension than expected.
        ConfigurationError: `modalities` and `feature_dims` contradict each other.
    """
    if not Path(path).exists():
        raise CorpusNotFoundError(describe_missing(path, corpus))
    wanted = _wanted(modalities, feature_dims)
    try:
        data = read_corpus(path, wanted)
    except DataFormatError:
        # the file may lack what is taken away anyway
        rest = [name for name in wanted or () if name not in missing]
        if wanted is None or not rest or len(rest) == len(wanted):
            raise
        data = read_corpus(path, rest)
    if not data.splits:
        raise DataFormatError(f"{path} has no split; train, valid and test are looked for")
    return data, settle_dims(data, modalities, feature_dims)


def settle_dims(
    data: CorpusData, modalities: Sequence[str] | None, feature_dims: Mapping[str, int] | None
) -> dict[str, int]:
    """Settle which modalities of an opened corpus are used, with which dimensions; see `open_corpus`."""
    wanted = _wanted(modalities, feature_dims)
    found = {name: sequences.dim for name, sequences in next(iter(data.splits.values())).sequences.items()}
    return {name: _dim(data.path, name, found, feature_dims or {}) for name in sorted(wanted or found)}


def _wanted(modalities: Sequence[str] | None, feature_dims: Mapping[str, int] | None) -> list[str] | None:
    expected = feature_dims or {}
    wanted = list(modalities) if modalities is not None else (sorted(expected) or None)
    if wanted is not None and expected:
        _check_expected(wanted, expected)
    return wanted


def _check_expected(wanted: Sequence[str], expected: Mapping[str, int]) -> None:
    for name in wanted:
        if name not in expected:
            raise ConfigurationError(
                f"--data.modalities names {name!r}, which the model does not know: {nearest(name, expected)}"
            )
    lacking = sorted(set(expected) - set(wanted))
    if lacking:
        raise ConfigurationError(
            f"--data.modalities leaves out {', '.join(lacking)}, which the model expects; name all modalities and "
            f"take some away with --data.missing '[{', '.join(lacking)}]', or train a new model with "
            "--data.feature_dims null"
        )


def _dim(path: str, name: str, found: Mapping[str, int], expected: Mapping[str, int]) -> int:
    if name not in found:
        if name not in expected:
            raise DataFormatError(
                f"{path} has no modality {name!r}, not even to take it away: {nearest(name, found)}; "
                "its dimension could be given with --data.feature_dims"
            )
        return int(expected[name])
    if name in expected and found[name] != expected[name]:
        raise DataFormatError(
            f"{path}: modality {name!r} has {found[name]} features a step, the model expects {expected[name]}; "
            "give a file with the features that the model was trained on"
        )
    return found[name]


def describe_missing(path: str, corpus: Corpus) -> str:
    """Say what a file that is not there is, which hash it should have, and how to get it."""
    kinds = {"mmsa": "MMSA pickle", "mult": "MulT pickle", "mfn": "folder of .h5 files"}
    known = [
        f"{file.name} ({kinds[file.format]}, {'/'.join(map(str, file.sizes))} samples"
        + (f", SHA-256 {file.sha256})" if file.sha256 else ")")
        for file in corpus.files
    ]
    what = f"is published as {' or '.join(known)}" if known else "has to be obtained from its authors"
    return f"{path} does not exist: {corpus.title} {what}; {corpus.obtain or 'give the file with --data.path'}"


def check_ids(data: CorpusData) -> None:
    """Refuse ids that occur twice within a split or in two splits: leaked or doubled samples falsify results.

    Raises:
        DataFormatError: How many, the first, and the remedy.
    """
    remedy = "remove them from the file, or keep them with --data.duplicate_ids keep"
    named = {name: split for name, split in data.splits.items() if split.has_ids}
    for name, split in named.items():
        doubled = [one for one, count in Counter(split.ids).items() if count > 1]
        if doubled:
            raise DataFormatError(
                f"{data.path}: {len(doubled)} id(s) occur more than once in split {name!r}, first {doubled[0]!r}; "
                f"{remedy}"
            )
    names = list(named)
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            theirs = set(named[other].ids)
            shared = [sample for sample in named[one].ids if sample in theirs]
            if shared:
                raise DataFormatError(
                    f"{data.path}: {len(shared)} id(s) are in both {one!r} and {other!r}, first {shared[0]!r}; {remedy}"
                )
