"""What a data module gives to a model: splits, statistics, batches, in generated files of every format."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import mfm.datamodules
from mfm.corpora import get_corpus
from mfm.data.readers import fingerprint, read_corpus
from mfm.data.store import read_store
from mfm.data.synthetic import write_corpus, write_mmsa, write_mult
from mfm.datamodules import AffectDataModule, MOSIDataModule


def test_what_is_known_before_setup(pickled: str) -> None:
    torch.manual_seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    data = MOSIDataModule(pickled)
    assert data.feature_dims == {"audio": 4, "text": 6, "vision": 3}
    assert (data.corpus_name, data.aligned, data.output_dim) == ("mosi", True, 1)
    assert data.corpus_record is get_corpus("mosi")
    assert data.statistics is None
    assert data.fingerprint == fingerprint(pickled)
    # the initialisation of a model must not depend on the data module
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_batches_hold_the_file(pickled: str, stored: str) -> None:
    truth = read_corpus(pickled)
    for path in (pickled, stored):
        data = MOSIDataModule(path, batch_size=7)
        data.setup("fit")
        data.setup("test")
        for name, loader in (
            ("train", data.train_dataloader()),
            ("valid", data.val_dataloader()),
            ("test", data.test_dataloader()),
        ):
            split = truth.splits[name]
            seen = []
            for batch in loader:
                seen += batch.ids
                for row, sample in enumerate(batch.ids):
                    index = split.ids.index(sample)
                    for modality, sequences in split.sequences.items():
                        length = int(batch.lengths[modality][row])
                        assert length == sequences.lengths[index]
                        np.testing.assert_array_equal(
                            batch.features[modality][row, :length].numpy(), sequences.steps(index)
                        )
                        assert batch.present[modality][row] == (length > 0)
                    assert batch.target[row, 0] == pytest.approx(split.labels["regression_labels"][index, 0], abs=1e-6)
            assert sorted(seen) == sorted(split.ids)
            if name != "train":
                assert tuple(seen) == split.ids


def test_statistics_are_of_the_training_split_only(pickled: str) -> None:
    data = MOSIDataModule(pickled)
    data.setup("fit")
    sequences = read_corpus(pickled).splits["train"].sequences["audio"]
    steps = np.concatenate([sequences.steps(i) for i in range(30)]).astype(np.float64)
    finite = np.where(np.isfinite(steps), steps, np.nan)
    assert data.statistics is not None
    np.testing.assert_allclose(data.statistics["audio"].mean, np.nanmean(finite, axis=0), rtol=1e-10)
    np.testing.assert_allclose(data.statistics["audio"].std, np.nanstd(finite, axis=0), rtol=1e-10)
    assert data.statistics["audio"].nonfinite == (~np.isfinite(steps)).sum() > 0
    plain = MOSIDataModule(pickled, normalize="none")
    plain.setup("fit")
    assert plain.statistics is None


def test_nonfinite_values_are_reported(pickled: str, caplog: pytest.LogCaptureFixture) -> None:
    data = MOSIDataModule(pickled)
    with caplog.at_level(logging.INFO):
        data.setup("fit")
    assert "left out of the statistics: audio" in caplog.text


def test_every_class_names_its_corpus(tmp_path: Path) -> None:
    classes = {
        klass.corpus_default: klass
        for klass in vars(mfm.datamodules).values()
        if isinstance(klass, type) and issubclass(klass, AffectDataModule) and klass.corpus_default
    }
    del classes["digits"]  # needs no file; see test_digits
    assert set(classes) == {"mosi", "mosei", "sims", "iemocap", "pom", "mmmo", "youtube", "moud"}
    for corpus, klass in classes.items():
        steps = {} if corpus != "mosei" else {"steps": 8}
        data = klass(str(write_corpus(corpus, tmp_path / corpus, (5, 3, 3), **steps)), batch_size=5)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert data.corpus_name == corpus
        assert klass.__doc__
        assert get_corpus(corpus).title in klass.__doc__
        if data.corpus_record.task == "multiclass":
            assert batch.target.shape == (5,)
        else:
            assert batch.target.shape == (5, data.output_dim)
        assert data.aligned == (corpus != "sims")


def test_unaligned_modalities_have_their_own_lengths(tmp_path: Path) -> None:
    path = write_mmsa(tmp_path / "u.pkl", "mosi", (20, 5, 5), dims={"text": 6, "audio": 4, "vision": 3}, aligned=False,
                      steps={"text": 5, "audio": 40, "vision": 20})  # fmt: skip
    data = MOSIDataModule(str(path), batch_size=20)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.lengths["audio"].max() > batch.lengths["vision"].max() > batch.lengths["text"].max()


def test_other_modality_names(tmp_path: Path) -> None:
    path = write_mult(tmp_path / "w.pkl", "mosi", (6, 3, 3), dims={"text": 4, "timing": 2}, steps=5)
    data = AffectDataModule(str(path), corpus="mosi")
    assert data.feature_dims == {"text": 4, "timing": 2}
    one = AffectDataModule(str(path), corpus="mosi", modalities=["timing"])
    one.setup("fit")
    assert set(next(iter(one.train_dataloader())).features) == {"timing"}
    assert one.statistics is not None
    assert set(one.statistics) == {"timing"}


def test_reading_draws_no_global_random_numbers(pickled: str) -> None:
    data = MOSIDataModule(pickled, batch_size=4, train_fraction=0.5)
    data.setup("fit")
    state = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(list(loader)) > 1
    assert torch.equal(torch.get_rng_state(), state)


def test_hyperparameters_are_plain(pickled: str) -> None:
    data = MOSIDataModule(Path(pickled), missing=["text"], missing_rate={"audio": 0.1})  # type: ignore[arg-type]
    assert type(data.hparams["path"]) is str
    for value in data.hparams.values():
        assert isinstance(value, str | int | float | bool | list | dict | None)
    assert set(data.hparams) == set(AffectDataModule.__init__.__annotations__) - {"return"}
    assert MOSIDataModule(**{k: v for k, v in data.hparams.items() if k != "corpus"}).missing == ["text"]


def test_store_of_the_module_is_lazy(stored: str) -> None:
    data = MOSIDataModule(stored, in_memory=False)
    data.setup("fit")
    assert not data._datasets["train"]._cache  # type: ignore[union-attr]
    assert len(pickle.dumps(data._datasets["train"])) > 0
    assert read_store(stored).splits["train"].ids == data._datasets["train"].split.ids  # type: ignore[union-attr]
