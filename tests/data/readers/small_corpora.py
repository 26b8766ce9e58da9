"""Small files with the structure of MMSA's and MulT's pickles and of MFN's folders."""

import pickle
from pathlib import Path

import h5py
import numpy as np

RNG = np.random.default_rng(0)


SIZES = {"train": 6, "valid": 3, "test": 4}


def save(path: Path, tree, protocol=4) -> Path:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        pickle.dump(tree, file, protocol=protocol)
    return path


def features(samples, steps, dim, lengths=None, side="pre", dtype="f4"):
    array = RNG.normal(size=(samples, steps, dim)).astype(dtype)
    for sample, length in enumerate(lengths if lengths is not None else []):
        pad = slice(0, steps - length) if side == "pre" else slice(length, steps)
        array[sample, pad] = 0
    return array


def mmsa_split(name, count, steps=8, **other):
    lengths = [1 + index % steps for index in range(count)]
    return {
        "raw_text": np.array([f"word {index}" for index in range(count)], dtype=object),
        "text": features(count, steps, 5, lengths),
        "audio": features(count, steps, 3, lengths, dtype="f8"),
        "vision": features(count, steps, 2, lengths),
        "id": [f"{name}v{index // 2}$_${index}" for index in range(count)],
        "annotations": ["Positive"] * count,
        "classification_labels": [float(index % 3) for index in range(count)],
        "regression_labels": RNG.normal(size=count).astype("f4"),
    } | other


def mmsa(**other):
    return {name: mmsa_split(name, count, **other) for name, count in SIZES.items()}


def objects(items):
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def broken(**changes):
    tree = mmsa()
    tree["train"] |= changes
    return tree


def mult(labels, dims=None, ids=None, steps=None):
    tree = {}
    for name, count in SIZES.items():
        found = {
            key: features(count, (steps or {}).get(key, 8), dim, [3] * count)
            for key, dim in (dims or {"text": 300, "audio": 4, "vision": 3}).items()
        }
        tree[name] = found | {"labels": labels(count)}
        if ids is not None:
            tree[name]["id"] = ids(name, count)
    return tree


def mfn_folder(folder, modalities=None, labels=lambda count: np.ones(count), dataset="d1"):
    folder.mkdir()
    arrays = {}
    for name, count in SIZES.items():
        for modality, dim in (modalities or {"text": 300, "audio": 74, "video": 36}).items():
            file = f"text_{name}_emb.h5" if modality == "text" else f"{modality}_{name}.h5"
            arrays[name, modality] = features(count, 20, dim, [5] * count, dtype="f8")
            with h5py.File(folder / file, "w") as opened:
                opened[dataset] = arrays[name, modality]
        with h5py.File(folder / f"y_{name}.h5", "w") as opened:
            opened[dataset] = labels(count)
    return arrays


def h5(file, **content):
    with h5py.File(file, "w") as opened:
        for key, value in content.items():
            opened[key] = value
