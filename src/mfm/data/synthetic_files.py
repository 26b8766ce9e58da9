"""Generated corpora written in the real files' formats, with their defects.

The pickles are what the published ones are: plain dictionaries of numpy arrays that anybody's `pickle` opens.
Large arrays are streamed into the pickle block by block, so that a MOSEI-size file (4 GB) needs little memory.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mfm.corpora import Corpus, get_corpus
from mfm.data.records import SPLITS
from mfm.data.streamed_pickle import StreamedArray, StreamingPickler
from mfm.data.synthetic_world import SyntheticCorpus, SyntheticSplit, default_dims, synthetic_corpus
from mfm.errors import ConfigurationError, DataFormatError

_UNALIGNED = {
    "mosi": {"text": 50, "audio": 375, "vision": 500},
    "mosei": {"text": 50, "audio": 500, "vision": 500},
    "sims": {"text": 39, "audio": 400, "vision": 55},
}
_MFN_STEPS = 20
Samples = tuple[int, int, int]
Progress = Callable[[int, int], None]


def write_corpus(
    name: str,
    path: str | Path,
    samples: Samples = (48, 16, 16),
    seed: int = 0,
    *,
    dims: Mapping[str, int] | None = None,
    steps: int | Mapping[str, int] | None = None,
    labelled: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write a generated file (MFN: folder) with exactly the structure of a corpus' published one.

    Args:
        name: Corpus name, which decides format, dimensions, steps and label shape.
        path: File or folder to write; must not exist.
        samples: Samples of train, valid and test.
        seed: Seed.
        dims: Modality -> D instead of the published ones.
        steps: T instead of the published one.
        labelled: False: leave all labels out, as in a new file to predict on.
        progress: Called with (values done, total) while a pickle is written.

    Returns:
        `path`.

    Raises:
        ConfigurationError: Unknown corpus, impossible sizes, or `path` exists.
        DataFormatError: The system refuses to write.
    """
    record = get_corpus(name)
    kind = record.files[0].format if record.files else ("mfn" if name == "moud" else "mult")
    if kind == "mfn":
        total = _MFN_STEPS if steps is None else steps
        return write_mfn(path, name, samples, dims=dims, steps=total, seed=seed, labelled=labelled)
    if kind == "mult":
        total = 50 if steps is None else steps
        return write_mult(path, name, samples, dims=dims, steps=total, seed=seed, labelled=labelled)
    return write_mmsa(
        path, name, samples, dims=dims, steps=steps, aligned=name != "sims", seed=seed, labelled=labelled,
        progress=progress,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- MMSA


def write_mmsa(
    path: str | Path,
    corpus: str = "mosi",
    samples: Samples = (48, 16, 16),
    *,
    dims: Mapping[str, int] | None = None,
    steps: int | Mapping[str, int] | None = None,
    aligned: bool = True,
    seed: int = 0,
    defects: bool = True,
    labelled: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write a pickle as MMSA publishes them.

    Args:
        path: File to write.
        corpus: Corpus whose labels are imitated; `sims` adds `regression_labels_T/_A/_V`.
        samples: Samples of train, valid and test.
        dims: Modality -> D; the published ones by default.
        steps: T, one for all or by modality; 50, or the published ones if unaligned, by default.
        aligned: False: own steps for each modality, post-padded, with `<modality>_lengths` as lists.
        seed: Seed.
        defects: The faults of the published files: -inf and NaN in audio, all-zero steps and modalities, audio as
            float64, the validation split's vision as a list of arrays, ids as a list.
        labelled: False: leave all labels out.
        progress: Called with (values done, total).

    Returns:
        `path`.

    Raises:
        ConfigurationError: Unknown corpus, impossible sizes, or `path` exists.
        DataFormatError: The system refuses to write.
    """
    record = get_corpus(corpus)
    sizes = dict(dims) if dims is not None else default_dims(record)
    total = steps if steps is not None else (50 if aligned else _unaligned_steps(corpus, sizes))
    world = synthetic_corpus(record, samples, dims=sizes, steps=total, aligned=aligned, defects=defects, seed=seed)
    values = sum(len(world.splits[s]) * world.steps[m] * world.dims[m] for s in SPLITS for m in sizes)
    count = _Counter(values, progress)
    content = {name: _mmsa_split(world, name, labelled, count) for name in SPLITS}
    with _replacing(Path(path)) as temporary, temporary.open("wb") as file:
        StreamingPickler(file).dump(content)
    return Path(path)


def _unaligned_steps(corpus: str, dims: Mapping[str, int]) -> dict[str, int]:
    return {name: _UNALIGNED.get(corpus, {}).get(name, 50) for name in dims}


def _mmsa_split(world: SyntheticCorpus, name: str, labelled: bool, count: _Counter) -> dict[str, Any]:
    split = world.splits[name]
    content: dict[str, Any] = {"raw_text": np.array(split.raw_text, dtype=object)}
    for modality in world.dims:
        dtype = np.float64 if world.defects and modality == "audio" else np.float32
        content[modality] = _streamed(world, name, modality, dtype, count)
        # an empty list would say neither T nor D
        if world.defects and modality == "vision" and name == "valid" and len(split):
            content[modality] = list(world.array(name, modality, pre=world.aligned))
    content["id"] = list(split.ids) if world.defects else np.array(split.ids)
    if "text" in world.dims:
        content["text_bert"] = _text_bert(world, split)
    if not world.aligned:
        for modality in world.dims:
            if modality != "text":
                content[f"{modality}_lengths"] = split.lengths[modality].tolist()
    if labelled:
        ratings = split.labels[:, 0].astype(np.float32)
        content["annotations"] = [("Neutral", "Positive", "Negative")[int(sign)] for sign in np.sign(ratings)]
        content["classification_labels"] = np.sign(ratings).astype(np.float32) + 1
        content["regression_labels"] = ratings
        if world.corpus.name == "sims":
            generator = np.random.default_rng([world.seed, len(split)])
            for letter in "TAV":
                noisy = ratings + 0.2 * generator.standard_normal(len(ratings))
                content[f"regression_labels_{letter}"] = np.clip(noisy, -1, 1).astype(np.float32)
    return content


def _text_bert(world: SyntheticCorpus, split: SyntheticSplit) -> NDArray[np.float32]:
    """Token ids, mask and segments, padded like the features: (N, 3, T)."""
    total = world.steps["text"]
    position, lengths = np.arange(total), split.lengths["text"][:, None]
    real = position >= total - lengths if world.aligned else position < lengths
    tokens = np.random.default_rng([world.seed, 7, len(split)]).integers(1000, 30000, size=real.shape)
    return np.stack([tokens * real, real, np.zeros_like(real)], axis=1).astype(np.float32)


class _Counter:
    """Adds up the values written."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, values: int) -> None:
        self._done += values
        if self._progress is not None:
            self._progress(self._done, self._total)


def _streamed(
    world: SyntheticCorpus, split: str, modality: str, dtype: type[np.floating[Any]], count: _Counter
) -> StreamedArray:
    """One modality of a split, generated while it is written."""

    def blocks() -> Iterator[NDArray[Any]]:
        for block in world.padded(split, modality, pre=world.aligned):
            count.add(block.size)
            yield block

    return StreamedArray((len(world.splits[split]), world.steps[modality], world.dims[modality]), dtype, blocks)


# ---------------------------------------------------------------------------------------------------------- MulT


def write_mult(
    path: str | Path,
    corpus: str = "iemocap",
    samples: Samples = (48, 16, 16),
    *,
    dims: Mapping[str, int] | None = None,
    steps: int | Mapping[str, int] = 50,
    aligned: bool = True,
    seed: int = 0,
    labelled: bool = True,
) -> Path:
    """Write a protocol-2 pickle as MulT and MultiBench publish them: pre-padded, labels (N, 1, 1) or (N, 4, 2).

    Args:
        path: File to write.
        corpus: Corpus whose labels are imitated: `iemocap` one-hot pairs "absent, present", `mosei` ids (N, 3).
        samples: Samples of train, valid and test.
        dims: Modality -> D, any names; by default the published ones (text 300 for MOSI and MOSEI: GloVe).
        steps: T, one for all or by modality.
        aligned: Whether all modalities of a sample have the same steps.
        seed: Seed.
        labelled: False: leave the labels out.

    Returns:
        `path`.

    Raises:
        ConfigurationError: Unknown corpus, impossible sizes, or `path` exists.
        DataFormatError: The system refuses to write.
    """
    record = get_corpus(corpus)
    sizes = dict(dims) if dims is not None else default_dims(record)
    if dims is None and corpus in ("mosi", "mosei"):
        sizes["text"] = 300
    world = synthetic_corpus(record, samples, dims=sizes, steps=steps, aligned=aligned, seed=seed)
    content = {}
    for name in SPLITS:
        split = world.splits[name]
        content[name] = {modality: world.array(name, modality) for modality in world.dims}
        content[name]["id"] = _mult_ids(split, corpus)
        if labelled:
            content[name]["labels"] = _mult_labels(split.labels, record)
    with _replacing(Path(path)) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file, protocol=2)
    return Path(path)


def _mult_labels(labels: NDArray[np.float64], corpus: Corpus) -> NDArray[Any]:
    if corpus.task == "multilabel":
        return np.stack([1 - labels, labels], axis=-1).astype(np.int64)
    return labels[:, :, None].astype(np.float32)


def _mult_ids(split: SyntheticSplit, corpus: str) -> NDArray[Any]:
    if corpus != "mosei":
        return np.array([name.encode() for name in split.ids] or [b""], dtype=bytes)[: len(split)]
    parts = [name.split("$_$") for name in split.ids]
    rows = [[video, f"{4.5 * int(clip):.3f}", f"{4.5 * int(clip) + 4.2:.3f}"] for video, clip in parts]
    return np.array(rows, dtype=str).reshape(len(split), 3)


# ----------------------------------------------------------------------------------------------------------- MFN


def write_mfn(
    folder: str | Path,
    corpus: str = "mmmo",
    samples: Samples = (48, 16, 16),
    *,
    dims: Mapping[str, int] | None = None,
    steps: int | Mapping[str, int] = _MFN_STEPS,
    seed: int = 0,
    labelled: bool = True,
) -> Path:
    """Write a folder of h5 files as published with the Memory Fusion Network: one dataset `d1` each, float64.

    Args:
        folder: Folder to make.
        corpus: Corpus whose labels are imitated: `mmmo` (N,), `youtube` and `moud` one-hot, `pom` 17 ratings.
        samples: Samples of train, valid and test.
        dims: Modality -> D; the published ones by default.
        steps: T.
        seed: Seed.
        labelled: False: leave the files `y_*.h5` out.

    Returns:
        `folder`.

    Raises:
        ConfigurationError: Unknown corpus, impossible sizes, or `folder` exists.
        DataFormatError: The system refuses to write.
    """
    record = get_corpus(corpus)
    world = synthetic_corpus(record, samples, dims=dims, steps=steps, seed=seed)
    with _replacing(Path(folder)) as temporary:
        temporary.mkdir()
        for name in SPLITS:
            for modality in world.dims:
                file = f"text_{name}_emb.h5" if modality == "text" else f"{modality}_{name}.h5"
                values = world.array(name, modality, pre=corpus != "youtube").astype(np.float64)
                _write_d1(temporary / file, values)
            if labelled:
                _write_d1(temporary / f"y_{name}.h5", _mfn_labels(world.splits[name].labels, record))
    return Path(folder)


def _write_d1(path: Path, values: NDArray[Any]) -> None:
    with h5py.File(path, "w") as file:
        file["d1"] = values


def _mfn_labels(labels: NDArray[np.float64], corpus: Corpus) -> NDArray[Any]:
    if corpus.task == "multiclass":
        return np.eye(len(corpus.classes), dtype=np.float32)[labels[:, 0].astype(np.int64)]
    if corpus.columns is not None:  # the file has columns that the paper leaves out
        whole = np.full((len(labels), max(corpus.columns) + 1), 4.0)
        whole[:, list(corpus.columns)] = labels
        return whole
    return labels[:, 0] if labels.shape[1] == 1 else labels


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target`, renamed when all went well and removed otherwise."""
    if target.exists():
        raise ConfigurationError(f"{target} exists already; choose another name")
    if not target.parent.is_dir():
        raise ConfigurationError(f"the folder {target.parent} does not exist; create it first")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        for written in [temporary] if temporary.is_file() else sorted(temporary.iterdir()):
            with written.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.rename(target)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DataFormatError(
            f"{target} could not be written ({reason}); nothing was left behind: free space or choose another folder"
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
