"""Options, splits, statistics and labels of the data module, on generated files of every format."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mfm.datamodules
from mfm.corpora import CORPORA, get_corpus
from mfm.data.arrays import ArraySequences
from mfm.data.readers import fingerprint, read_corpus
from mfm.data.records import CorpusData, Sequences, SplitData
from mfm.data.store import read_store, write_store
from mfm.data.synthetic import write_corpus, write_mfn, write_mmsa, write_mult
from mfm.datamodules import AffectDataModule, MOSIDataModule, YouTubeDataModule
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError

DIMS = {"text": 6, "audio": 4, "vision": 3}
SAMPLES = (30, 10, 12)


@pytest.fixture(scope="module")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_mmsa(tmp_path_factory.mktemp("d") / "a.pkl", "mosi", SAMPLES, dims=DIMS, steps=9))


@pytest.fixture(scope="module")
def stored(pickled: str) -> str:
    path = Path(pickled).with_name("a.h5")
    write_store(read_corpus(pickled), path)
    return str(path)


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


def everything(loader: Any) -> dict[str, Any]:
    return {name: batch for batch in loader for name in batch.ids}


# ---------------------------------------------------------------------------------------------------- the main path


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
    path = write_mmsa(tmp_path / "u.pkl", "mosi", (20, 5, 5), dims=DIMS, aligned=False,
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


# ------------------------------------------------------------------------------------------------------- options


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


def test_reading_draws_no_global_random_numbers(pickled: str) -> None:
    data = MOSIDataModule(pickled, batch_size=4, train_fraction=0.5)
    data.setup("fit")
    state = torch.get_rng_state()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert len(list(loader)) > 1
    assert torch.equal(torch.get_rng_state(), state)


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


# --------------------------------------------------------------------------------------------------------- mistakes


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


def test_hyperparameters_are_plain(pickled: str) -> None:
    data = MOSIDataModule(Path(pickled), missing=["text"], missing_rate={"audio": 0.1})  # type: ignore[arg-type]
    assert type(data.hparams["path"]) is str
    for value in data.hparams.values():
        assert isinstance(value, str | int | float | bool | list | dict | None)
    assert set(data.hparams) == set(AffectDataModule.__init__.__annotations__) - {"return"}
    assert MOSIDataModule(**{k: v for k, v in data.hparams.items() if k != "corpus"}).missing == ["text"]


def test_loader_before_setup(pickled: str) -> None:
    with pytest.raises(ConfigurationError, match="call setup"):
        MOSIDataModule(pickled).train_dataloader()


def test_store_of_the_module_is_lazy(stored: str) -> None:
    data = MOSIDataModule(stored, in_memory=False)
    data.setup("fit")
    assert not data._datasets["train"]._cache  # type: ignore[union-attr]
    assert len(pickle.dumps(data._datasets["train"])) > 0
    assert read_store(stored).splits["train"].ids == data._datasets["train"].split.ids  # type: ignore[union-attr]
