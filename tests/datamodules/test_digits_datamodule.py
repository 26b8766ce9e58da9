"""The digits as a corpus: what a model gets, from the embedded images and from a user's folder."""

import gzip
import struct

import numpy as np
import pytest
import torch

from mfm.datamodules import DigitsDataModule
from mfm.errors import ConfigurationError, CorpusNotFoundError, MFMError
from mfm.models.normalization import Normalizer

savemat = pytest.importorskip("scipy.io").savemat
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def embedded():
    data = DigitsDataModule(pairs=1, batch_size=50)
    data.setup()
    return data


def test_batches_are_images_of_one_step(embedded):
    batch = next(iter(embedded.val_dataloader()))
    assert {name: tuple(x.shape) for name, x in batch.features.items()} == {
        "plain": (50, 1, 64),
        "styled": (50, 1, 768),
    }
    assert all(bool((lengths == 1).all()) for lengths in batch.lengths.values())
    assert batch.target.dtype == torch.int64
    assert 0 <= min(x.min() for x in batch.features.values()) <= max(x.max() for x in batch.features.values()) <= 1


def test_pixels_share_one_deviation_and_constant_ones_stay(embedded):
    pixels = np.concatenate([batch.features["plain"][:, 0] for batch in embedded._loader("train")]).astype(np.float64)
    found = embedded.statistics["plain"]
    assert pixels.var(axis=0).min() == 0  # scikit-learn's first column is empty
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.std, np.sqrt(pixels.var(axis=0).mean()), rtol=1e-5)
    normalizer = Normalizer({"plain": 64})
    normalizer.set_statistics({"plain": torch.tensor(found.mean)}, {"plain": torch.tensor(found.std)})
    x = {"plain": torch.tensor(pixels[:5, None], dtype=torch.float32)}
    scaled = normalizer(x, {"plain": torch.ones(5, dtype=torch.int64)})
    assert float(scaled["plain"].abs().max()) < 10
    torch.testing.assert_close(normalizer.inverse(scaled)["plain"], x["plain"])


def test_splits_do_not_depend_on_the_seed_of_training(embedded):
    other = DigitsDataModule(pairs=1, batch_size=50, seed=7)
    other.setup("test")
    assert other.evaluation_ids("test") == embedded.evaluation_ids("test")
    assert other.fingerprint == embedded.fingerprint
    assert DigitsDataModule(pairs=1, pairing_seed=1).fingerprint != embedded.fingerprint


def test_options_of_every_corpus_hold(embedded):
    data = DigitsDataModule(pairs=1, modalities=["styled"], limit=7)
    data.setup("fit")
    assert data.feature_dims == {"styled": 768}
    assert len(data.evaluation_ids("validate")) == 7
    absent = DigitsDataModule(pairs=1, missing=["plain"])
    absent.setup("test")
    assert not next(iter(absent.test_dataloader())).present["plain"].any()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"pairs": 0}, "--data.pairs"), ({"pairing_seed": -1}, "--data.pairing_seed"),
     ({"modalities": ["plane"]}, "did you mean 'plain'"), ({"corpus": "mosi"}, "AffectDataModule"),
     ({"feature_dims": {"plain": 64, "styled": 192}}, "768")],
)  # fmt: skip
def test_refusals(options, named):
    with pytest.raises(MFMError, match=named):
        DigitsDataModule(**options)


def test_a_folder_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(CorpusNotFoundError, match="idx"):
        DigitsDataModule(path=str(tmp_path / "nowhere"))


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_a_folder_of_published_files(tmp_path):
    generator = np.random.default_rng(0)
    for part, name, count in (("train", "train", 120), ("t10k", "test", 30)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
        cropped = generator.integers(0, 256, (32, 32, 3, count)).astype(np.uint8)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": cropped, "y": np.where(labels == 0, 10, labels)[:, None]})
    data = DigitsDataModule(path=str(tmp_path), pairs=2)
    data.setup()
    assert data.feature_dims == {"mnist": 784, "svhn": 3072}
    batch = next(iter(data.test_dataloader()))
    row = batch.ids.index(next(one for one in batch.ids if one.startswith("3:")))
    assert int(batch.target[row]) == 3
    with pytest.raises(ConfigurationError, match="normalize"):
        DigitsDataModule(path=str(tmp_path), normalize="shard")
