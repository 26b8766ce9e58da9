"""Options of the data module: which samples, in which order, with which modalities and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mfm.datamodules
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus, write_mfn, write_mmsa
from mfm.datamodules import AffectDataModule, MOSIDataModule
from mfm.errors import ConfigurationError, DataFormatError

DIMS = {"text": 6, "audio": 4, "vision": 3}


def test_subset_and_limit(pickled: str) -> None:
    ids = read_corpus(pickled).splits["train"].ids

    def train_ids(**options: Any) -> list[str]:
        data = MOSIDataModule(pickled, **options)
        data.setup("fit")
        return sorted(name for batch in data.train_dataloader() for name in batch.ids)

    half = train_ids(train_fraction=0.5)
    assert len(half) == 15
    assert set(half) < set(ids)
    assert half == train_ids(train_fraction=0.5)
    assert half != train_ids(train_fraction=0.5, seed=1)
    assert train_ids(limit=4) == sorted(ids[:4])
    assert len(train_ids(train_fraction=0.001)) == 1
    limited = MOSIDataModule(pickled, limit=4)
    limited.setup("test")
    assert sum(len(batch.ids) for batch in limited.test_dataloader()) == 4


def test_order_of_training(pickled: str) -> None:
    def order(epoch: int, **options: Any) -> list[list[str]]:
        data = MOSIDataModule(pickled, batch_size=4, **options)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        return [batch.ids for batch in loader]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=5)
    assert order(0) != order(0, bucketing=False)


def test_longest_sequence(pickled: str) -> None:
    data = MOSIDataModule(pickled, max_lengths={"audio": 2})
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.features["audio"].shape[1] == 2
    assert batch.features["text"].shape[1] > 2


def test_original_padding(pickled: str) -> None:
    data = MOSIDataModule(pickled, padding="original", normalize="none")
    data.setup("test")
    split = read_corpus(pickled).splits["test"]
    batch = next(iter(data.test_dataloader()))
    for modality, sequences in split.sequences.items():
        expected = np.stack([sequences.original(i) for i in range(len(split))])
        np.testing.assert_array_equal(batch.features[modality].numpy(), expected)
        assert batch.lengths[modality].tolist() == [9] * 12
        assert batch.present[modality].all()


def test_missing_is_for_evaluation_only(pickled: str) -> None:
    data = MOSIDataModule(pickled, missing=["text"])
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    assert next(iter(data.train_dataloader())).present["text"].all()
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for batch in loader:
            assert not batch.present["text"].any()
            assert not batch.features["text"].any()
            assert batch.present["audio"].any()
    assert data.statistics is not None
    assert "text" in data.statistics


def test_missing_modality_need_not_be_in_the_file(tmp_path: Path) -> None:
    path = str(write_mfn(tmp_path / "m", "mmmo", (6, 4, 4), dims={"text": 5, "audio": 3, "video": 2}))
    for split in ("train", "valid", "test"):
        (tmp_path / "m" / f"text_{split}_emb.h5").unlink()
    dims = {"text": 5, "audio": 3, "video": 2}
    for modalities in (None, ["text", "audio", "video"]):
        data = AffectDataModule(path, "mmmo", modalities, missing=["text"], feature_dims=dims)
        assert data.feature_dims == dims
        data.setup("test")
        batch = next(iter(data.test_dataloader()))
        assert batch.features["text"].shape == (4, 1, 5)
        assert not batch.present["text"].any()
        with pytest.raises(DataFormatError, match="no modality 'text' to train with"):
            data.setup("fit")
    with pytest.raises(DataFormatError, match="text"):
        AffectDataModule(path, "mmmo", ["text", "audio"])
    with pytest.raises(DataFormatError, match="text"):
        AffectDataModule(path, "mmmo", ["text", "audio"], missing=["text"])
    assert AffectDataModule(path, "mmmo").feature_dims == {"audio": 3, "video": 2}


def test_dimensions_of_a_trained_model(pickled: str) -> None:
    assert MOSIDataModule(pickled, feature_dims={"text": 6, "audio": 4}).modalities == ["audio", "text"]
    with pytest.raises(DataFormatError, match="'audio' has 4 features a step, the model expects 5"):
        MOSIDataModule(pickled, feature_dims={"text": 6, "audio": 5})
    with pytest.raises(ConfigurationError, match="leaves out text, which the model expects"):
        MOSIDataModule(pickled, modalities=["audio"], feature_dims={"text": 6, "audio": 4})
    with pytest.raises(ConfigurationError, match="names 'vision', which the model does not know"):
        MOSIDataModule(pickled, modalities=["audio", "vision"], feature_dims={"text": 6, "audio": 4})


def test_predict(pickled: str) -> None:
    truth = read_corpus(pickled)
    data = MOSIDataModule(pickled, batch_size=8)
    data.setup("predict")
    assert [n for b in data.predict_dataloader() for n in b.ids] == list(truth.splits["test"].ids)
    assert data.predict_splits == ["test"] * 12
    data = MOSIDataModule(pickled, batch_size=8, predict_split="all")
    data.setup("predict")
    ids = [n for name in ("train", "valid", "test") for n in truth.splits[name].ids]
    assert [n for b in data.predict_dataloader() for n in b.ids] == ids
    assert data.predict_splits == ["train"] * 30 + ["valid"] * 10 + ["test"] * 12
    assert data.evaluation_ids("predict") == ids
    data.setup("fit")
    assert data.evaluation_ids("validate") == list(truth.splits["valid"].ids)
    assert data.evaluation_ids("train") == []


def test_unlabelled_file(tmp_path: Path) -> None:
    path = str(write_mmsa(tmp_path / "new.pkl", "mosi", (4, 3, 3), dims=DIMS, labelled=False))
    data = MOSIDataModule(path)
    data.setup("predict")
    assert not next(iter(data.predict_dataloader())).target_mask.any()
    for stage in ("fit", "validate", "test"):
        with pytest.raises(DataFormatError, match="no labels for CMU-MOSI"):
            MOSIDataModule(path).setup(stage)
    generative = MOSIDataModule(path, labels=False)
    generative.setup("fit")
    assert not next(iter(generative.train_dataloader())).target_mask.any()


def test_target_by_name(tmp_path: Path) -> None:
    path = write_corpus("sims", tmp_path / "s.pkl", (4, 3, 3), dims=DIMS, steps={"text": 4, "audio": 6, "vision": 5})
    data = mfm.datamodules.SIMSDataModule(str(path), target="regression_labels_A")
    data.setup("test")
    expected = read_corpus(path).splits["test"].labels["regression_labels_A"][:, 0]
    np.testing.assert_allclose(next(iter(data.test_dataloader())).target[:, 0].numpy(), expected, rtol=1e-6)
    with pytest.raises(DataFormatError, match="did you mean 'regression_labels_A'"):
        mfm.datamodules.SIMSDataModule(str(path), target="regression_label_A").setup("test")
