"""Files that are not what they should be end in one sentence."""

import os
import pickle

import numpy as np
import pytest
from small_corpora import broken, features, h5, mfn_folder, mmsa, mmsa_split, save

from mfm.data.readers import read_corpus
from mfm.errors import CorpusNotFoundError, DataFormatError, MFMError, UnsafePickleError

BAD_TREES = {
    "list": ([1, 2], "list of 2"),
    "no splits": ({"a": {}}, "no split named"),
    "empty": ({}, "holds nothing"),
    "split is a list": ({"train": [1]}, "split 'train' is list"),
    "split twice": ({"valid": {}, "dev": {}}, "twice"),
    "no modality": ({"train": {"labels": np.ones(3)}}, "no modality"),
    "unequal N": (broken(audio=features(5, 8, 3)), "differ in their number"),
    "two-dimensional": (broken(audio=np.ones((6, 3))), "expected (N, T, D)"),
    "text for numbers": (broken(text=[["a"]] * 6), "expected (N, T, D)"),
    "T differs": (broken(audio=[np.ones((8 - i % 2, 3)) for i in range(6)]), "sample 1 has shape (7, 3)"),
    "D differs in lists": (broken(audio=[[[1.0, 2.0], [3.0]]] * 6), "steps differ in D"),
    "D differs between splits": (broken(audio=features(6, 8, 4)), "another dimension"),
    "labels of another N": (broken(regression_labels=np.ones(5)), "for 6 samples"),
    "labels of four axes": (broken(regression_labels=np.ones((6, 2, 3, 4))), "expected (N,)"),
    "labels of two long axes": (broken(regression_labels=np.ones((6, 2, 3))), "expected (N,)"),
    "labels of text": (broken(regression_labels=["good"] * 6), "expected numbers"),
    "one label": (broken(regression_labels=1.0), "for 6 samples"),
    "ids of another N": (broken(id=["a"]), "1 entries for 6 samples"),
    "ids are a number": (broken(id=3), "expected 6 texts"),
    "lengths beyond T": (broken(audio_lengths=[9] * 6), "says 9 steps for sample 0, but the array has room for 8"),
    "lengths below 0": (broken(audio_lengths=[-1] * 6), "-1 steps"),
    "lengths of halves": (broken(audio_lengths=[1.5] * 6), "1.5 steps"),
    "lengths of another N": (broken(audio_lengths=[1] * 5), "5 entries for 6"),
    "text_bert of another shape": (broken(text_bert=np.ones((6, 2, 8))), "expected (6, 3, T)"),
    "huge integers": (broken(regression_labels=[10**400] * 6), "expected numbers"),
}


@pytest.mark.parametrize("case", BAD_TREES)
def test_bad_trees_end_in_one_sentence(path, case):
    tree, words = BAD_TREES[case]
    with pytest.raises(DataFormatError) as caught:
        read_corpus(save(path, tree))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda p: None, CorpusNotFoundError, "does not exist"),
        (lambda p: p.write_bytes(b""), DataFormatError, "is empty"),
        (lambda p: p.mkdir(), DataFormatError, "not a folder of MFN files"),
        (lambda p: p.write_text("video,label\n"), DataFormatError, "not a readable pickle"),
        (lambda p: p.write_bytes(pickle.dumps(mmsa())[:-100]), DataFormatError, "ends too early"),
        (lambda p: p.write_bytes(pickle.dumps({"train": os.getcwd})), UnsafePickleError, "getcwd"),
        (lambda p: h5(p, d1=np.ones((3, 20, 5))), DataFormatError, "give the folder"),
        (lambda p: h5(p, **{"x/data/v": 1.0, "x/metadata/k": 1.0}), DataFormatError, "computational sequence"),
        (lambda p: h5(p, other=1.0), DataFormatError, "not a store"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\nxxxx"), DataFormatError, "damaged"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path, make, error, words):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(error, match=words) as caught:
        read_corpus(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("audio_train.h5", b"nonsense", "not a readable HDF5"),
        ("audio_train.h5", {"a": np.ones(3), "b": np.ones(3)}, "expected one"),
        ("audio_train.h5", {"d1": np.ones((6, 20))}, "expected .N, T, D"),
        ("audio_train.h5", {"d1": np.ones((5, 20, 74))}, "differ in their number"),
        ("y_train.h5", {"d1": np.ones(5)}, "for 6 samples"),
        ("y_train.h5", {"d1": np.array([b"good"] * 6)}, "array of numbers"),
    ],
)
def test_bad_mfn_files_end_in_one_sentence(tmp_path, file, content, words):
    mfn_folder(tmp_path / "m")
    (tmp_path / "m" / file).unlink()
    if isinstance(content, bytes):
        (tmp_path / "m" / file).write_bytes(content)
    else:
        h5(tmp_path / "m" / file, **content)
    with pytest.raises(DataFormatError, match=words) as caught:
        read_corpus(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_damaged_files_give_records_or_one_of_our_errors(path):
    tree = {"train": mmsa_split("train", 2, steps=2), "valid": mmsa_split("valid", 1, steps=2)}
    clean = pickle.dumps(tree, protocol=2)
    generator = np.random.default_rng(1)
    read = 0
    for _ in range(300):
        data = bytearray(clean)
        for place in generator.integers(0, len(data), size=3):
            data[place] = generator.integers(256)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            for split in read_corpus(path).splits.values():
                for sequences in split.sequences.values():
                    assert sequences.lengths.max(initial=0) <= sequences.file_steps
            read += 1
        except MFMError:
            continue
    assert read
