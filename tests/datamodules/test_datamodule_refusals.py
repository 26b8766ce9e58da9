"""What a data module does not take: options, files and labels that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfm.corpora import CORPORA, get_corpus
from mfm.data.arrays import ArraySequences
from mfm.data.records import CorpusData, Sequences, SplitData
from mfm.data.store import write_store
from mfm.datamodules import AffectDataModule, MOSIDataModule, YouTubeDataModule
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError


def splits_of(n: int = 4, **changes: Any) -> dict[str, SplitData]:
    """Three small splits; `changes` are passed to the training split."""
    rng = np.random.default_rng(0)

    def make(name: str, **fields: Any) -> SplitData:
        sequences: dict[str, Sequences] = {
            m: ArraySequences(rng.normal(size=(n, 3, d)), dim=d) for m, d in (("text", 3), ("audio", 2))
        }
        values = {
            "ids": tuple(f"{name}{i}" for i in range(n)),
            "sequences": sequences,
            "labels": {"labels": rng.uniform(-3, 3, size=(n, 1))},
        }
        return SplitData(**{**values, **fields})

    return {"train": make("train", **changes), "valid": make("valid"), "test": make("test")}


def store_of(path: Path, splits: dict[str, SplitData]) -> str:
    write_store(CorpusData("x.pkl", "mult", splits, aligned=True), path, overwrite=True)
    return str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"train_fraction": 0.0}, "train_fraction is 0"),
        ({"train_fraction": 1.5}, "train_fraction is 1.5"),
        ({"limit": 0}, "limit is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"normalize": "standart"}, "did you mean 'standard'"),
        ({"padding": "orig"}, "did you mean 'original'"),
        ({"predict_split": "val"}, "did you mean 'valid'"),
        ({"duplicate_ids": "no"}, "Known: keep, refuse"),
        ({"missing": ["txt"]}, "did you mean 'text'"),
        ({"missing": ["text", "audio", "vision"]}, "takes away all modalities"),
        ({"missing_rate": 1.0}, "at least 0 and below 1"),
        ({"missing_rate": {"txt": 0.5}}, "did you mean 'text'"),
        ({"missing_rate": 0.5, "modalities": ["text"]}, "the only modality"),
        ({"max_lengths": 0}, "at least 1"),
        ({"max_lengths": {"txt": 4}}, "did you mean 'text'"),
        ({"corpus": "mosei"}, "MOSIDataModule is for 'mosi'"),
        ({"modalities": []}, "at least one"),
    ],
)
def test_bad_options(pickled: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MOSIDataModule(pickled, **options)


def test_corpus_is_needed(pickled: str) -> None:
    with pytest.raises(ConfigurationError, match="corpus is needed"):
        AffectDataModule(pickled)
    with pytest.raises(ConfigurationError, match="did you mean 'mosi'"):
        AffectDataModule(pickled, "mosy")
    with pytest.raises(DataFormatError, match="did you mean 'text'"):
        MOSIDataModule(pickled, modalities=["txt"])


@pytest.mark.parametrize("corpus", sorted(CORPORA))
def test_file_that_is_not_there(tmp_path: Path, corpus: str) -> None:
    with pytest.raises(CorpusNotFoundError) as raised:
        AffectDataModule(str(tmp_path / "nowhere.pkl"), corpus)
    message, record = str(raised.value), get_corpus(corpus)
    assert "nowhere.pkl does not exist" in message
    assert record.title in message
    assert record.obtain in message
    for file in record.files:
        assert file.name in message
        assert (file.sha256 or "") in message


def test_missing_and_empty_splits(tmp_path: Path) -> None:
    splits = splits_of()
    path = store_of(tmp_path / "a.h5", {"test": splits["test"]})
    data = MOSIDataModule(path)
    data.setup("test")
    data.setup("predict")
    for stage, split in (("fit", "train"), ("validate", "valid")):
        with pytest.raises(DataFormatError, match=f"no split '{split}'; there are: test"):
            MOSIDataModule(path).setup(stage)
    with pytest.raises(DataFormatError, match="no split 'train'"):
        MOSIDataModule(path, predict_split="train").setup("predict")
    everything_there = MOSIDataModule(path, predict_split="all")
    everything_there.setup("predict")
    assert everything_there.predict_splits == ["test"] * 4
    path = store_of(tmp_path / "b.h5", splits_of(0))
    with pytest.raises(DataFormatError, match="split 'train' is empty"):
        MOSIDataModule(path).setup("fit")
    with pytest.raises(DataFormatError, match="nothing to predict"):
        MOSIDataModule(path, predict_split="all").setup("predict")


def test_doubled_ids(tmp_path: Path) -> None:
    twice = splits_of(ids=("a", "b", "a", "b"))
    path = store_of(tmp_path / "a.h5", twice)
    with pytest.raises(DataFormatError, match=r"2 id\(s\) occur more than once in split 'train', first 'a'"):
        MOSIDataModule(path).setup("fit")
    MOSIDataModule(path, duplicate_ids="keep").setup("fit")
    path = store_of(tmp_path / "b.h5", splits_of(ids=("a", "b", "test1", "test0")))
    with pytest.raises(DataFormatError, match=r"2 id\(s\) are in both 'train' and 'test', first 'test1'"):
        MOSIDataModule(path).setup("test")
    path = store_of(tmp_path / "c.h5", splits_of(ids=("a", "b", "a", "b"), has_ids=False))
    MOSIDataModule(path).setup("fit")


def test_feature_without_a_value(tmp_path: Path) -> None:
    values = np.ones((4, 3, 3), dtype=np.float32)
    values[:, :, 1] = np.nan
    splits = splits_of(sequences={"text": ArraySequences(values), "audio": ArraySequences(np.ones((4, 3, 2)))})
    path = store_of(tmp_path / "a.h5", splits)
    with pytest.raises(DataFormatError, match="feature 1 of modality 'text' has no finite value"):
        MOSIDataModule(path).setup("fit")
    MOSIDataModule(path, normalize="none").setup("fit")
    MOSIDataModule(path, modalities=["audio"]).setup("fit")


@pytest.mark.parametrize(
    ("labels", "message"), [(np.full((4, 1), 3.0), "no class"), (np.full((4, 1), np.nan), "all NaN")]
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: Any, message: str) -> None:
    path = store_of(tmp_path / "a.h5", splits_of(labels={"labels": labels}))
    with pytest.raises(DataFormatError, match=message):
        YouTubeDataModule(path).setup("fit")


def test_loader_before_setup(pickled: str) -> None:
    with pytest.raises(ConfigurationError, match="call setup"):
        MOSIDataModule(pickled).train_dataloader()
