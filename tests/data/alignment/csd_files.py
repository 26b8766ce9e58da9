"""Small computational sequences, as the SDK lays them out or misshapen on purpose."""

import h5py
import numpy as np


def write_csd(path, videos, root="some root", metadata="asdf"):
    """Write {key: (intervals, features)}; features may be bytes, and None leaves a part out."""
    with h5py.File(path, "w") as file:
        for key, (intervals, features) in videos.items():
            group = file.create_group(f"{root}/data/{key}")
            if intervals is not None:
                group["intervals"] = intervals
            if features is not None:
                group["features"] = features
        file[f"{root}/metadata/md5"] = np.array([metadata.encode()], dtype=object)
    return path


def words_of(texts, kind="S12"):
    """(n, 1) words as the SDK stores them (`S12`), or as variable-length unicode."""
    if kind == "O":
        return np.array([[text] for text in texts], dtype=h5py.string_dtype())
    return np.array([[text.encode()] for text in texts], dtype=kind)


def corpus_files(folder, videos=6, seed=0):
    """Words, labels and two features of some videos; the last one lacks the feature `y`, and labels lack `extra`."""
    rng = np.random.default_rng(seed)
    words, labels, x, y = {}, {}, {}, {}
    for number in range(videos):
        times = np.arange(13.0)[:, None] + [0, 1]
        name = f"v{number}"
        words[name] = times, words_of(["sp" if step % 4 == 3 else f"w{step}" for step in range(13)])
        labels[name] = np.add(times[:12:4], [0, 3]), rng.normal(size=(3, 1)).astype(np.float32)
        x[name] = times.astype(np.float32), rng.normal(size=(13, 3)).astype(np.float32)
        if number < videos - 1:
            fine = np.arange(60)[:, None] * 0.2 + [0, 0.2]
            y[name] = fine, np.where(rng.random((60, 2)) < 0.1, np.nan, rng.normal(size=(60, 2)))
    words["extra"] = words["v0"]
    return {
        "pivot": write_csd(folder / "words.csd", words),
        "labels": write_csd(folder / "labels.csd", labels),
        "x": write_csd(folder / "x.csd", x),
        "y": write_csd(folder / "y.csd", y),
    }
