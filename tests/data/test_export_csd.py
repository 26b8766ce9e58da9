"""A store exported as computational sequences aligns again to the same store, and the files are the SDK's."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfm.data.alignment.align import AlignmentOptions
from mfm.data.alignment.corpus import align_corpus
from mfm.data.alignment.sources import Sources
from mfm.data.arrays import ArraySequences
from mfm.data.export_csd import export_csd
from mfm.data.records import CorpusData, SplitData
from mfm.data.store import read_store, store_fingerprint
from mfm.errors import DataFormatError

sys.path.insert(0, str(Path(__file__).parent / "alignment"))
from csd_files import corpus_files, words_of, write_csd

FOLDS = {"train": ["v0", "v1", "v2"], "valid": ["v3"], "test": ["v4", "v5"]}


def align(folder, sources, name):
    align_corpus(sources, folder / f"{name}.h5", folder / f"{name}.json", AlignmentOptions())
    return folder / f"{name}.h5"


def exported(folder, store, features):
    target = folder / store.stem
    notes = export_csd(read_store(store), target)
    return notes, Sources(
        target / "words.csd",
        {name: target / f"{name}.csd" for name in features},
        target / "labels.csd",
        target / "folds.json",
    )


def rows(path):
    with h5py.File(path) as file:
        (root,) = file
        return {
            key: (group["intervals"][:].tolist(), group["features"][:].tolist())
            for key, group in file[root]["data"].items()
        }


@pytest.fixture
def sources(tmp_path):
    """Six videos; segment 1 of `v0` has no word, so that numbers have a gap, and a word has no frame of `y`."""
    files = corpus_files(tmp_path)
    with h5py.File(files["labels"], "r+") as file:
        file["some root/data/v0/intervals"][1] = [100, 101]
    with h5py.File(files["y"], "r+") as file:
        file["some root/data/v1/features"][20:25] = np.nan
    (tmp_path / "folds.json").write_text(json.dumps(FOLDS))
    return Sources(files["pivot"], {"x": files["x"], "y": files["y"]}, files["labels"], tmp_path / "folds.json")


def test_csd_to_store_to_csd(sources, tmp_path):
    first = align(tmp_path, sources, "first")
    notes, again = exported(tmp_path, first, "xy")
    assert notes == []
    second = align(tmp_path, again, "second")
    assert store_fingerprint(first) == store_fingerprint(second)
    data = read_store(first).splits["train"]
    assert "v0$_$1" not in data.ids
    assert "v0$_$2" in data.ids
    assert not all(data.sequences["y"].observed(index).all() for index in range(len(data)))
    _, once_more = exported(tmp_path, second, "xy")
    for one, two in zip(again.files.values(), once_more.files.values(), strict=True):
        assert rows(one) == rows(two)
    assert json.loads(again.folds.read_text()) == FOLDS


def test_files_are_what_the_sdk_reads(sources, tmp_path):
    _, again = exported(tmp_path, align(tmp_path, sources, "first"), "xy")
    with h5py.File(again.pivot) as file:
        assert list(file) == ["words"]
        data, metadata = file["words/data"], file["words/metadata"]
        assert data["v0[0]/features"].dtype.kind == "S"
        assert data["v0[0]/features"].shape == (3, 1)
        assert data["v0[0]/intervals"].shape == (3, 2)
        assert json.loads(metadata["root name"][0]) == "words"
        assert all(metadata[key].shape == (1,) for key in metadata)
    with h5py.File(again.labels) as file:
        assert {key: part["features"].shape for key, part in file["labels/data"].items()}["v5[2]"] == (1, 1)
    with h5py.File(again.features["y"]) as file:
        assert not [key for key in file["y/data"] if key.startswith("v5")]  # absent there


def test_words_of_other_scripts_and_lengths(tmp_path):
    words = write_csd(tmp_path / "w.csd", {"a": (np.array([[0, 1], [1, 2.0]]), words_of(["naïve", "表情"], "O"))})
    frames = write_csd(tmp_path / "x.csd", {"a": (np.array([[0, 2.0]]), np.ones((1, 2)))})
    labels = write_csd(tmp_path / "l.csd", {"a": (np.array([[0, 2.0]]), np.ones((1, 1)))})
    first = align(tmp_path, Sources(words, {"x": frames}, labels), "first")
    _, again = exported(tmp_path, first, "x")
    assert read_store(align(tmp_path, again, "second")).splits["train"].raw_text == ("naïve 表情",)


def test_a_corpus_without_times_gets_seconds(tmp_path):
    split = SplitData(
        ("a$_$0", "a$_$7", "other"),
        {"m": ArraySequences([np.ones((2, 1)), np.ones((1, 1)), np.zeros((0, 1))])},
        {"labels": np.array([[1.0], [2.0], [3.0]])},
    )
    notes = export_csd(CorpusData("x", "mult", {"train": split}, True), tmp_path / "out")
    assert notes == ["3 sample(s) have no times: step t lasts from second t to t + 1"]
    assert rows(tmp_path / "out" / "m.csd") == {
        "a[0]": ([[0.0, 1.0], [1.0, 2.0]], [[1.0], [1.0]]),
        "a[7]": ([[2.0, 3.0]], [[1.0]]),
    }
    assert rows(tmp_path / "out" / "labels.csd")["a[7]"] == ([[2.0, 3.0]], [[2.0]])


def test_refusals_leave_nothing(tmp_path):
    split = SplitData(("a", "a"), {"m": ArraySequences([np.ones((1, 1))] * 2)})
    with pytest.raises(DataFormatError, match="two samples are named 'a'"):
        export_csd(CorpusData("x", "mult", {"train": split}, True), tmp_path / "out")
    clash = SplitData(("a",), {"labels": ArraySequences([np.ones((1, 1))])}, {"labels": np.ones((1, 1))})
    with pytest.raises(DataFormatError, match=r"two files would be named labels\.csd"):
        export_csd(CorpusData("x", "mult", {"train": clash}, True), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.realdata
def test_real_sequences_come_back(data_root, tmp_path):
    csd = data_root / "csd"
    sources = Sources(
        csd / "CMU_MOSI_ModifiedTimestampedWords.csd",
        {"text": csd / "CMU_MOSI_GloVe50.csd", "audio": csd / "MOSI16_Librosa.csd",
         "vision": csd / "MOSI16_FaceGeometry.csd"},
        csd / "CMU_MOSI_Opinion_Labels.csd",
        data_root / "folds" / "mosi.json",
    )  # fmt: skip
    first = align(tmp_path, sources, "first")
    _, again = exported(tmp_path, first, ("text", "audio", "vision"))
    assert store_fingerprint(first) == store_fingerprint(align(tmp_path, again, "second"))
