"""Computational sequences are read by their structure, and what is wrong with one is one sentence."""

import random

import h5py
import numpy as np
import pytest
from csd_files import words_of, write_csd

from mfm.data.alignment.csd import ComputationalSequence
from mfm.errors import CorpusNotFoundError, DataFormatError

TIMES = np.array([[3.0, 4.0], [1.0, 1.0], [2.0, np.nan]])


@pytest.mark.parametrize("kind", ["S12", "O"])
def test_words_are_bytes_or_unicode(tmp_path, kind):
    path = write_csd(tmp_path / "w.csd", {"v": (TIMES, words_of(["oh", "größer", "sp"], kind))})
    with ComputationalSequence(path) as file:
        assert file.words("v").texts == ("oh", "größer", "sp")
        np.testing.assert_array_equal(file.words("v").intervals, TIMES)  # in the order of the file, as they are
        assert file.count("v") == 3
        assert file.count("w") == 0


@pytest.mark.parametrize(("kind", "read"), [("f2", "f8"), ("f4", "f4"), ("f8", "f8"), (">f4", "f4"), ("i2", "f8")])
def test_any_type_of_number(tmp_path, kind, read):
    values = np.arange(6).reshape(3, 2).astype(kind)
    with ComputationalSequence(write_csd(tmp_path / "x.csd", {"v": (TIMES.astype("f4"), values)})) as file:
        frames = file.frames("v")
        assert frames.values.dtype == read
        np.testing.assert_array_equal(frames.values, values)
        assert frames.intervals.dtype == np.float64


def test_pieces_are_one_video_again(tmp_path):
    keys = {f"v[{k}]": (TIMES + k, np.full((3, 2), float(k))) for k in (10, 0, 2)}
    keys |= {"w": (TIMES, np.zeros((3, 2))), "u[x]": (TIMES, np.zeros((3, 2)))}
    with ComputationalSequence(write_csd(tmp_path / "x.csd", keys)) as file:
        assert list(file.videos) == ["u[x]", "v", "w"]
        assert file.count("v") == 9
        assert file.frames("v").values[:, 0].tolist() == [0] * 3 + [2] * 3 + [10] * 3


def test_an_empty_video_and_one_number_a_frame(tmp_path):
    path = write_csd(tmp_path / "x.csd", {"a": (np.zeros(0), np.zeros(0)), "b": (TIMES, np.ones(3))})
    with ComputationalSequence(path) as file:
        assert len(file.frames("a")) == 0
        assert file.frames("b").values.shape == (3, 1)
        assert file.first() == "b"


def test_metadata_is_shown_and_never_needed(tmp_path):
    path = write_csd(tmp_path / "x.csd", {"v": (TIMES, np.ones((3, 1)))}, metadata="{not json")
    with ComputationalSequence(path) as file:
        assert file.root == "some root"
        assert file.metadata() == {"md5": "{not json"}
    with h5py.File(path, "a") as file:
        del file["some root/metadata"]
    with ComputationalSequence(path) as file:
        assert file.metadata() == {}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ((None, np.ones((3, 1))), "'v' has no intervals"),
        ((TIMES, None), "'v' has no features"),
        ((np.ones((3, 3)), np.ones((3, 1))), r"intervals of 'v' have shape \(3, 3\)"),
        ((np.ones(3), np.ones((3, 1))), r"intervals of 'v' have shape \(3,\)"),
        ((TIMES, np.ones((4, 1))), r"features of shape \(4, 1\) for 3 intervals"),
        ((TIMES, np.ones((3, 1, 2))), r"features of shape \(3, 1, 2\)"),
        ((TIMES, words_of("abc")), "holds text where numbers are needed"),
        ((TIMES, np.ones((3, 0))), "has frames of 0 features"),
    ],
)
def test_misshapen_parts(tmp_path, entry, words):
    with (
        ComputationalSequence(write_csd(tmp_path / "x.csd", {"v": entry})) as file,
        pytest.raises(DataFormatError, match=words),
    ):
        file.frames("v")


def test_numbers_are_no_words(tmp_path):
    with (
        ComputationalSequence(write_csd(tmp_path / "x.csd", {"v": (TIMES, np.ones((3, 1)))})) as file,
        pytest.raises(DataFormatError, match="not one word a row; give the file of timestamped words"),
    ):
        file.words("v")


def test_files_that_are_none(tmp_path):
    with pytest.raises(CorpusNotFoundError, match="no such file"):
        ComputationalSequence(tmp_path / "nothing.csd")
    (tmp_path / "x.csd").write_text("not HDF5")
    with pytest.raises(DataFormatError, match="it is not HDF5"):
        ComputationalSequence(tmp_path / "x.csd")
    with h5py.File(tmp_path / "y.csd", "w") as file:
        file["d1"] = np.zeros(3)
    with pytest.raises(DataFormatError, match="0 of its groups hold `data`"):
        ComputationalSequence(tmp_path / "y.csd")
    with h5py.File(tmp_path / "z.csd", "w") as file:
        file.create_group("root/data")
    with pytest.raises(DataFormatError, match="holds no video"):
        ComputationalSequence(tmp_path / "z.csd")


def test_a_file_cut_in_the_middle(tmp_path):
    path = write_csd(tmp_path / "x.csd", {"v": (np.ones((5000, 2)), np.ones((5000, 9)))})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataFormatError, match=r"it is truncated.*download it again"):
        ComputationalSequence(path)


def test_a_file_damaged_in_the_middle(tmp_path):
    path = tmp_path / "x.csd"
    with h5py.File(path, "w") as file:
        group = file.create_group("r/data/v")
        group["intervals"] = np.ones((500, 2))
        group.create_dataset("features", data=np.random.default_rng(0).normal(size=(500, 9)), compression="gzip")
        offset = group["features"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 64] = bytes(64)
    path.write_bytes(content)
    with ComputationalSequence(path) as file, pytest.raises(DataFormatError, match="is damaged at 'v'"):
        file.frames("v")


@pytest.mark.slow
def test_damaged_bytes_are_never_more_than_a_sentence(tmp_path):
    """Whatever is cut or overwritten, a file is read or refused."""
    draw = random.Random(1)
    path = write_csd(tmp_path / "x.csd", {f"v{number}": (TIMES, np.ones((3, 2))) for number in range(6)})
    whole, refused = path.read_bytes(), 0
    for turn in range(300):
        damaged = bytearray(whole)
        if turn % 3:
            for _ in range(draw.choice([1, 5, 50])):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        else:
            damaged = damaged[: draw.randrange(len(damaged))]
        path.write_bytes(damaged)
        try:
            with ComputationalSequence(path) as file:
                for video in file.videos:
                    file.frames(video)
        except DataFormatError:
            refused += 1
    assert 100 < refused < 300
