"""MFN's folders: files by modality, partial downloads, and the published ones."""

import h5py
import numpy as np
import pytest
from small_corpora import SIZES, mfn_folder

from mfm.data.readers import read_corpus
from mfm.errors import DataFormatError


def test_mfn_folder(tmp_path):
    arrays = mfn_folder(tmp_path / "mmmo")
    data = read_corpus(tmp_path / "mmmo")
    assert (data.format, data.aligned) == ("mfn", True)
    assert {name: found.dim for name, found in data.splits["train"].sequences.items()} == {
        "audio": 74,
        "text": 300,
        "video": 36,
    }
    np.testing.assert_array_equal(
        data.splits["test"].sequences["video"].steps(2), arrays["test", "video"][2, 15:].astype("f4")
    )
    assert data.splits["test"].labels["labels"].shape == (4, 1)
    assert data.splits["test"].ids[3] == "test_3"


def test_mfn_word_numbers_beside_the_features_are_not_a_modality(tmp_path):
    mfn_folder(tmp_path / "m")
    for name, count in SIZES.items():
        with h5py.File(tmp_path / "m" / f"text_{name}.h5", "w") as opened:
            opened["d1"] = np.ones((count, 20))
    assert read_corpus(tmp_path / "m").splits["train"].sequences["text"].dim == 300


def test_mfn_partial_download(tmp_path):
    mfn_folder(tmp_path / "m")
    (tmp_path / "m" / "text_train_emb.h5").unlink()
    data = read_corpus(tmp_path / "m")
    assert set(data.splits["train"].sequences) == {"audio", "video"}
    assert any("text_train_emb.h5" in note for note in data.notes)
    assert set(read_corpus(tmp_path / "m", ["video"]).splits["train"].sequences) == {"video"}
    (tmp_path / "m" / "audio_test.h5").unlink()
    with pytest.raises(DataFormatError) as caught:
        read_corpus(tmp_path / "m", ["text", "audio", "video"])
    assert "text_train_emb.h5" in str(caught.value)
    assert "audio_test.h5" in str(caught.value)
    assert "text_valid_emb.h5" not in str(caught.value)


def test_mfn_without_any_text_names_every_file(tmp_path):
    mfn_folder(tmp_path / "pom", {"audio": 43, "video": 41}, lambda count: np.ones((count, 17)))
    with pytest.raises(DataFormatError, match=r"text_train_emb\.h5, text_valid_emb\.h5, text_test_emb\.h5"):
        read_corpus(tmp_path / "pom", ["text", "audio"])
    assert any("no files of text" in note for note in read_corpus(tmp_path / "pom").notes)


@pytest.mark.parametrize(("dim", "names"), [(325, {"text": 300, "audio": 5, "video": 20}), (99, {"features": 99})])
def test_mfn_modalities_side_by_side(tmp_path, dim, names):
    arrays = mfn_folder(tmp_path / "mosi", {"X": dim}, dataset="data")
    data = read_corpus(tmp_path / "mosi")
    sequences = data.splits["train"].sequences
    assert {name: found.dim for name, found in sequences.items()} == names
    joined = np.concatenate([sequences[name].steps(0) for name in names], axis=1)
    np.testing.assert_array_equal(joined, arrays["train", "X"][0, 15:].astype("f4"))
    assert data.notes


def test_mfn_unlabelled_single_split(tmp_path):
    mfn_folder(tmp_path / "m")
    for file in (tmp_path / "m").iterdir():
        if "test" not in file.name or file.name.startswith("y"):
            file.unlink()
    data = read_corpus(tmp_path / "m")
    assert list(data.splits) == ["test"]
    assert data.splits["test"].labels == {}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "sizes", "dims", "columns"),
    [
        ("mmmo", [220, 40, 80], {"audio": 74, "video": 36}, 1),
        ("youtube", [173, 36, 60], {"audio": 74, "video": 36}, 3),
        ("pom", [600, 100, 203], {"audio": 43, "video": 41}, 17),
    ],
)
def test_real_mfn(data_root, name, sizes, dims, columns):
    data = read_corpus(data_root / "mfn" / name)
    assert [len(split) for split in data.splits.values()] == sizes
    assert {key: found.dim for key, found in data.splits["train"].sequences.items()} == dims
    assert data.splits["train"].labels["labels"].shape == (sizes[0], columns)
    with pytest.raises(DataFormatError, match=r"text_train_emb\.h5"):
        read_corpus(data_root / "mfn" / name, ["text", "audio", "video"])
