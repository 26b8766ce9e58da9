"""Readers of published image files against bytes made by hand; pairs by class; the rendered style."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm.data.digit_styles import SIDE, STYLE_FACTORS, draw_styles, render_digit, style_factors
from mfm.data.digits import embedded_digits, is_image_folder, published_digits
from mfm.data.image_files import read_idx, read_mnist, read_svhn
from mfm.data.images import ImageSequences, pair_by_class, split_by_class
from mfm.errors import CorpusNotFoundError, DataFormatError, MFMError, MissingDependencyError

savemat = pytest.importorskip("scipy.io").savemat


def idx_bytes(array):
    """The format as its authors describe it: two zeros, type 8, number of dimensions, sizes big-endian, data."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def labels_of(count):
    return (np.arange(count) % 10).astype(np.uint8)


def write_published(folder, *, train=120, test=20, packed=False):
    """MNIST and SVHN files in which the first pixel of each image says which it is."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(count)
        for name, content in (("images-idx3", images), ("labels-idx1", labels_of(count))):
            file = folder / f"{part}-{name}-ubyte"
            if packed:
                (folder / f"{file.name}.gz").write_bytes(gzip.compress(idx_bytes(content)))
            else:
                file.write_bytes(idx_bytes(content))
        cropped = np.zeros((32, 32, 3, count), np.uint8)
        cropped[0, 1, 2] = np.arange(count)  # row 0, column 1, channel 2
        digits = labels_of(count)[:, None]
        name = "train" if part == "train" else "test"
        savemat(folder / f"{name}_32x32.mat", {"X": cropped, "y": np.where(digits == 0, 10, digits)})
    return folder


# ------------------------------------------------------------------------------------------------------- readers
def test_idx_file_is_read_as_its_header_says(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    (tmp_path / "b.gz").write_bytes(gzip.compress(idx_bytes(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)
    np.testing.assert_array_equal(read_idx(tmp_path / "b.gz"), array)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0", b"\x89PNG....", b"\0\0\x0d\x01\0\0\0\x01abcd", b"\0\0\x08\x03\0\0\0\x01",
     idx_bytes(labels_of(5))[:-1], idx_bytes(labels_of(5)) + b"x", b"\0\0\x08\0"],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True])
def test_other_and_truncated_idx_files_are_refused(content, packed, tmp_path):
    file = tmp_path / ("x.gz" if packed else "x")
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataFormatError, match=file.name):
        read_idx(file)


def test_a_truncated_gzip_is_refused(tmp_path):
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(idx_bytes(labels_of(100)))[:-9])
    with pytest.raises(DataFormatError, match="get it again"):
        read_idx(file)


def test_svhn_is_turned_channels_first_and_its_ten_is_zero(tmp_path):
    write_published(tmp_path)
    found = read_svhn(tmp_path / "train_32x32.mat")
    assert found.images.shape == (120, 3, 32, 32)
    np.testing.assert_array_equal(found.images[:, 2, 0, 1], np.arange(120))
    np.testing.assert_array_equal(found.labels, labels_of(120))


@pytest.mark.parametrize(
    "content",
    [{"y": np.ones((3, 1))}, {"X": np.zeros((4, 4, 3, 3)), "y": np.ones((3, 1))},
     {"X": np.zeros((4, 4, 3, 3), np.uint8), "y": np.ones((2, 1))},
     {"X": np.zeros((4, 4, 3, 3), np.uint8), "y": np.full((3, 1), 11)}],
)  # fmt: skip
def test_other_mat_files_are_refused(content, tmp_path):
    savemat(tmp_path / "x.mat", content)
    with pytest.raises(DataFormatError, match=r"x\.mat"):
        read_svhn(tmp_path / "x.mat")


def test_damaged_mat_files_are_refused(tmp_path):
    write_published(tmp_path)
    whole = (tmp_path / "test_32x32.mat").read_bytes()
    for content in (whole[:300], whole[:50], b"nothing of the kind"):
        (tmp_path / "test_32x32.mat").write_bytes(content)
        with pytest.raises(DataFormatError, match="get it again"):
            read_svhn(tmp_path / "test_32x32.mat")


def test_without_scipy_or_scikit_learn_the_pip_line_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    for call in (lambda: read_svhn(tmp_path / "x.mat"), lambda: embedded_digits(1, 0)):
        with pytest.raises(MissingDependencyError, match=r"pip install 'mfm-lightning\[images\]'"):
            call()


def test_mnist_images_and_labels_must_belong_together(tmp_path):
    write_published(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels_of(119)))
    with pytest.raises(DataFormatError, match="119"):
        read_mnist(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(CorpusNotFoundError, match="train-labels"):
        read_mnist(tmp_path, "train")


# --------------------------------------------------------------------------------------------------------- pairs
labels_strategy = st.lists(st.integers(0, 3), min_size=8, max_size=40).map(lambda x: np.array([*range(4)] * 2 + x))


@given(labels_strategy, labels_strategy, st.integers(1, 5), st.integers(0, 9))
def test_pairs_show_one_class_and_occur_once(first, second, rounds, seed):
    left, right = pair_by_class(first, second, rounds, np.random.default_rng(seed))
    np.testing.assert_array_equal(first[left], second[right])
    assert len(set(zip(left.tolist(), right.tolist(), strict=True))) == len(left)
    partners = np.bincount(left, minlength=len(first))
    most = np.array([(second == one).sum() for one in first])
    np.testing.assert_array_equal(partners, np.minimum(rounds, most))


@given(labels_strategy, st.integers(1, 5), st.integers(0, 9))
def test_nobody_is_its_own_partner(labels, rounds, seed):
    left, right = pair_by_class(labels, labels, rounds, np.random.default_rng(seed), same=True)
    assert (left != right).all()
    np.testing.assert_array_equal(labels[left], labels[right])


def test_a_class_without_a_partner_is_named():
    with pytest.raises(DataFormatError, match="class 1"):
        pair_by_class(np.array([0, 1]), np.array([0, 0]), 1, np.random.default_rng(0))
    with pytest.raises(DataFormatError, match="class 1"):
        pair_by_class(np.array([0, 0, 1]), np.array([0, 0, 1]), 1, np.random.default_rng(0), same=True)


@given(labels_strategy, st.integers(0, 9))
def test_parts_cover_everything_once(labels, seed):
    parts = split_by_class(labels, {"a": 0.5, "b": 0.25, "c": 0.25}, np.random.default_rng(seed))
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(labels)))
    for one in np.unique(labels):
        count = (labels == one).sum()
        assert abs((labels[parts["a"]] == one).sum() - count / 2) <= 0.5


# -------------------------------------------------------------------------------------------------------- corpora
@pytest.fixture(scope="module")
def embedded():
    return embedded_digits(1, 5)


def test_embedded_digits_share_no_image_between_splits(embedded):
    seen = {name: set(np.concatenate(list(one.values())).tolist()) for name, one in embedded.sources.items()}
    assert set.union(*seen.values()) == set(range(1797))
    assert sum(len(one) for one in seen.values()) == 1797
    for name, split in embedded.data.splits.items():
        pair = embedded.sources[name]
        assert (pair["plain"] != pair["styled"]).all()
        assert split.sequences["plain"].dim == 64
        assert split.sequences["styled"].dim == 3 * SIDE**2
        assert len(split) == len(set(split.ids)) == len(embedded.styles[name])
        assert split.sequences["styled"].steps(0).shape == (1, 3 * SIDE**2)


def test_the_embedded_second_image_is_the_source_that_is_named(embedded):
    from sklearn.datasets import load_digits

    loaded = load_digits()
    split, sources = embedded.data.splits["test"], embedded.sources["test"]
    labels = split.labels["labels"][:, 0]
    for name in ("plain", "styled"):
        np.testing.assert_array_equal(loaded.target[sources[name]], labels)
    np.testing.assert_allclose(
        split.sequences["plain"].steps(3).reshape(8, 8), loaded.images[sources["plain"][3]] / 16, atol=0.5 / 255
    )


def test_pairs_follow_from_their_seed_alone(embedded):
    again, other = embedded_digits(1, 5), embedded_digits(1, 6)
    assert again.fingerprint == embedded.fingerprint != other.fingerprint
    for name, split in embedded.data.splits.items():
        assert again.data.splits[name].ids == split.ids != other.data.splits[name].ids
        np.testing.assert_array_equal(again.styles[name], embedded.styles[name])
        one, two = (x.sequences["styled"].steps(4) for x in (split, again.data.splits[name]))
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("packed", [False, True])
def test_published_files_are_paired_and_nothing_of_training_is_tested(packed, tmp_path):
    folder = write_published(tmp_path / "files", packed=packed)
    assert is_image_folder(folder)
    paired = published_digits(folder, 2, 0)
    splits = paired.data.splits
    assert list(splits) == ["train", "valid", "test"]
    assert {name: s.dim for name, s in splits["train"].sequences.items()} == {"mnist": 784, "svhn": 3072}
    for name, split in splits.items():
        for modality, sequences in split.sequences.items():
            pixel = 0 if modality == "mnist" else 2 * 32 * 32 + 1
            first = [round(float(sequences.steps(place)[0, pixel]) * 255) for place in range(len(split))]
            np.testing.assert_array_equal(first, paired.sources[name][modality])
            np.testing.assert_array_equal(labels_of(120)[first], split.labels["labels"][:, 0])
    for modality in ("mnist", "svhn"):
        assert not set(paired.sources["train"][modality]) & set(paired.sources["valid"][modality])
    assert len({one for split in splits.values() for one in split.ids}) == sum(len(split) for split in splits.values())


def test_a_folder_that_lacks_a_file_says_which(tmp_path):
    folder = write_published(tmp_path / "files")
    (folder / "test_32x32.mat").unlink()
    with pytest.raises(MFMError, match="test_32x32"):
        published_digits(folder, 1, 0)


# ---------------------------------------------------------------------------------------------------------- style
def test_a_style_without_rotation_keeps_the_digit_in_its_colour():
    image = np.zeros((8, 8))
    image[2:6, 3:5] = 1.0
    red, stripes_down = 0.0, 0.0
    rendered = render_digit(image, np.array([0.0, red, stripes_down])).astype(float) / 255
    assert rendered.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(rendered[:, 8, 8], [1.0, 0.2, 0.2], atol=0.01)  # hsv (0, .8, 1)
    outside = rendered[:, 0]
    np.testing.assert_allclose(outside, np.broadcast_to(outside[0], outside.shape))  # grey
    np.testing.assert_allclose(rendered[0, 0], rendered[0, -1])  # stripes run down
    turned = render_digit(image, np.array([np.pi / 2, red, stripes_down])).astype(float) / 255
    ink = rendered[0] - rendered[1], turned[0] - turned[1]
    np.testing.assert_allclose(np.abs(ink[1] - np.rot90(ink[0])), 0, atol=0.02)


def test_style_factors_have_no_jump_and_the_range_they_promise():
    styles = draw_styles(500, np.random.default_rng(0))
    factors = style_factors(styles)
    assert factors.shape == (500, sum(len(one) for one in STYLE_FACTORS.values()))
    assert np.abs(factors).max() <= 1
    around = np.array([[0.1, 0.0, 0.0], [0.1, 1.0, np.pi]])
    np.testing.assert_allclose(*style_factors(around), atol=1e-12)


def test_image_sequences_are_one_step_in_unit_range():
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 1, 3, 4)
    sequences = ImageSequences(images, np.array([1, 0, 1]))
    assert (len(sequences), sequences.dim, sequences.lengths.tolist()) == (3, 12, [1, 1, 1])
    np.testing.assert_allclose(sequences.steps(0), images[1].reshape(1, -1) / 255, rtol=1e-6)
