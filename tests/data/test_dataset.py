"""Samples and batches against plain loops over the arrays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from mfm.corpora import get_corpus
from mfm.data.arrays import ArraySequences
from mfm.data.collate import collate
from mfm.data.dataset import AffectConcat, AffectDataset
from mfm.data.records import CorpusData, FloatArray, Sequences, SplitData
from mfm.data.store import read_store, write_store
from mfm.errors import ConfigurationError, DataFormatError

MOSI = get_corpus("mosi")


def make_split(n: int = 9, seed: int = 0, dims: dict[str, int] | None = None) -> SplitData:
    rng = np.random.default_rng(seed)
    sequences: dict[str, Sequences] = {}
    for name, dim in (dims or {"text": 5, "timing": 2}).items():
        samples = [rng.normal(size=(rng.integers(0, 8), dim)).astype(np.float32) for _ in range(n)]
        sequences[name] = ArraySequences(samples, starts=[10 - len(s) for s in samples], file_steps=10)
    return SplitData(tuple(f"s{i}" for i in range(n)), sequences, {"labels": rng.uniform(-3, 3, size=(n, 1))})


class Forbidden(Sequences):
    """Sequences that must not be read."""

    def __init__(self, n: int, dim: int) -> None:
        self.dim, self.file_steps, self.dtype = dim, 10, np.dtype(np.float32)
        self.lengths, self.starts = np.ones(n, np.int64), np.zeros(n, np.int64)

    def steps(self, index: int) -> FloatArray:
        raise AssertionError("read although absent")

    original = steps


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), limit=st.none() | st.integers(1, 9), memory=st.booleans())
def test_batches_equal_plain_loops(seed: int, limit: int | None, memory: bool) -> None:
    split = make_split(seed=seed)
    data = AffectDataset(split, MOSI, max_lengths=limit, in_memory=memory)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(9)[:4].tolist()
    batch = collate(data.__getitems__(chosen))
    assert batch.ids == [f"s{i}" for i in chosen]
    for name, sequences in split.sequences.items():
        expected = [sequences.steps(i)[:limit] for i in chosen]
        longest = max(1, *(len(e) for e in expected))
        assert batch.features[name].shape == (4, longest, sequences.dim)
        assert batch.features[name].dtype == torch.float32
        assert batch.lengths[name].tolist() == [len(e) for e in expected]
        assert batch.present[name].tolist() == [len(e) > 0 for e in expected]
        for row, steps in zip(batch.features[name].numpy(), expected, strict=True):
            np.testing.assert_array_equal(row[: len(steps)], steps)
            assert not row[len(steps) :].any()
    np.testing.assert_allclose(batch.target.numpy(), split.labels["labels"][chosen], rtol=1e-6)
    assert batch.target_mask.all()


def test_limits_by_modality() -> None:
    data = AffectDataset(make_split(), MOSI, max_lengths={"text": 2})
    assert data.lengths["text"].max() == 2
    assert data.lengths["timing"].max() > 2


@pytest.mark.parametrize("memory", [True, False])
def test_original_padding_is_the_file_as_it_is(memory: bool) -> None:
    split = make_split()
    batch = collate(AffectDataset(split, MOSI, padding="original", in_memory=memory).__getitems__([3, 0]))
    for name, sequences in split.sequences.items():
        assert batch.features[name].shape == (2, 10, sequences.dim)
        assert batch.lengths[name].tolist() == [10, 10]
        assert batch.present[name].all()
        for row, index in zip(batch.features[name].numpy(), (3, 0), strict=True):
            length = len(sequences.steps(index))
            np.testing.assert_array_equal(row[10 - length :], sequences.steps(index))
            assert not row[: 10 - length].any()


def test_absent_modality_is_never_read() -> None:
    split = make_split()
    split = SplitData(split.ids, {**split.sequences, "video": Forbidden(9, 7)}, split.labels)
    for memory in (True, False):
        data = AffectDataset(split, MOSI, absent=["video"], in_memory=memory)
        batch = collate(data.__getitems__([0, 1]))
        assert batch.features["video"].shape == (2, 1, 7)
        assert not batch.features["video"].any()
        assert batch.lengths["video"].tolist() == [0, 0]
        assert not batch.present["video"].any()
        assert set(data.statistics()) == {"text", "timing"}
    elsewhere = AffectDataset(make_split(), MOSI, modalities=["text", "video"], absent=["video"], dims={"video": 7})
    assert elsewhere[0].features["video"].shape == (0, 7)


def test_subset_of_samples() -> None:
    data = AffectDataset(make_split(), MOSI, indices=[7, 2])
    assert len(data) == 2
    assert data.ids == ["s7", "s2"]
    assert [sample.id for sample in data.__getitems__([1, 0, 1])] == ["s2", "s7", "s2"]
    np.testing.assert_array_equal(data.costs, sum(s.lengths[[7, 2]] for s in make_split().sequences.values()))


def test_sample_without_any_step() -> None:
    split = SplitData(("a",), {"m": ArraySequences([np.zeros((0, 3))])}, {"labels": np.zeros((1, 1))})
    batch = collate([AffectDataset(split, MOSI)[0]])
    assert batch.features["m"].shape == (1, 1, 3)
    assert batch.lengths["m"].tolist() == [0]
    assert batch.present["m"].tolist() == [False]


def test_classes_arrive_as_integers() -> None:
    split = SplitData(("a", "b"), make_split(2).sequences, {"labels": np.array([[0.0, 1, 0], [0, 0, 1]])})
    batch = collate(AffectDataset(split, get_corpus("youtube")).__getitems__([0, 1]))
    assert batch.target.dtype == torch.int64
    assert batch.target.tolist() == [1, 2]
    assert batch.target_mask.shape == (2,)


def test_without_labels() -> None:
    batch = collate(AffectDataset(make_split(), MOSI, labels=False).__getitems__([0, 1]))
    assert batch.target.shape == (2, 1)
    assert not batch.target_mask.any()


def test_long_sequences_and_many_modalities() -> None:
    split = SplitData(
        ("a", "b"),
        {f"m{i}": ArraySequences([np.full((n, 1), i), np.ones((1, 1))]) for i, n in enumerate((1500, 2, 3, 4))},
        {"labels": np.zeros((2, 1))},
    )
    batch = collate(AffectDataset(split, MOSI).__getitems__([0, 1]))
    assert batch.features["m0"].shape == (2, 1500, 1)
    assert batch.features["m3"].shape == (2, 4, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modalities": ["txt"]}, ConfigurationError, "no modality 'txt': did you mean 'text'"),
        ({"max_lengths": 0}, ConfigurationError, "at least 1"),
        ({"max_lengths": {"txt": 3}}, ConfigurationError, "did you mean 'text'"),
        ({"padding": "orignal"}, ConfigurationError, "did you mean 'original'"),
        ({"padding": "original", "max_lengths": 5}, ConfigurationError, "drop max_lengths"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AffectDataset(make_split(), MOSI, **options)


def test_original_padding_of_a_ragged_file() -> None:
    split = SplitData(("a",), {"m": ArraySequences([np.ones((2, 1))])}, {"labels": np.zeros((1, 1))})
    with pytest.raises(DataFormatError, match="stores no padding"):
        AffectDataset(split, MOSI, padding="original")


def test_concatenation() -> None:
    one, two = AffectDataset(make_split(3), MOSI), AffectDataset(make_split(4, seed=1), MOSI)
    both = AffectConcat([one, two])
    assert len(both) == 7
    assert both.ids == one.ids + two.ids
    assert [s.id for s in both.__getitems__(range(7))] == both.ids
    np.testing.assert_array_equal(both[5].features["text"], two[2].features["text"])
    assert both.costs.tolist() == one.costs.tolist() + two.costs.tolist()


@pytest.mark.parametrize("method", [None, "fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_a_store(tmp_path: Path, method: str | None) -> None:
    split = make_split(12)
    write_store(CorpusData("x", "mult", {"train": split}, aligned=False), tmp_path / "a.h5")
    stored = read_store(tmp_path / "a.h5").splits["train"]
    data = AffectDataset(stored, MOSI, in_memory=False)
    data[0]  # the handle is open before workers start
    loader = DataLoader(
        data, batch_size=5, collate_fn=collate, num_workers=2 if method else 0, multiprocessing_context=method
    )
    expected = [collate(AffectDataset(split, MOSI).__getitems__(c)) for c in (range(5), range(5, 10), range(10, 12))]
    for found, wanted in zip(loader, expected, strict=True):
        assert found.ids == wanted.ids
        for name in wanted.features:
            assert torch.equal(found.features[name], wanted.features[name])


def test_picklable() -> None:
    data = AffectDataset(make_split(), MOSI)
    assert len(pickle.dumps(data)) > 0
