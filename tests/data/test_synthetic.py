"""Generated files are the real files' structure, open with anybody's tools, and hold a learnable world."""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from mfm.corpora import CORPORA, get_corpus
from mfm.data.labels import decode_labels
from mfm.data.readers import read_corpus
from mfm.data.records import SPLITS, CorpusData
from mfm.data.synthetic import (
    SyntheticCorpus,
    default_dims,
    synthetic_corpus,
    write_corpus,
    write_mfn,
    write_mmsa,
    write_mult,
)
from mfm.errors import ConfigurationError, DataFormatError

SMALL = {"text": 7, "audio": 4, "vision": 3}


def assert_is(data: CorpusData, world: SyntheticCorpus, labels: str = "labels") -> None:
    """What a reader found is what was generated."""
    truth = world.records()
    for name, split in truth.splits.items():
        found = data.splits[name]
        assert set(found.sequences) == set(split.sequences)
        for modality, sequences in split.sequences.items():
            other = found.sequences[modality]
            assert (other.dim, other.file_steps) == (sequences.dim, sequences.file_steps)
            np.testing.assert_array_equal(other.lengths, sequences.lengths)
            for index in range(len(split)):
                np.testing.assert_array_equal(other.steps(index), sequences.steps(index))


@pytest.mark.parametrize("corpus", sorted(CORPORA))
def test_every_corpus_is_read_back(tmp_path: Path, corpus: str) -> None:
    record = get_corpus(corpus)
    path = write_corpus(corpus, tmp_path / "corpus", (9, 4, 5))
    data = read_corpus(path)
    assert {name: s.dim for name, s in data.splits["train"].sequences.items()} == default_dims(record)
    assert [len(data.splits[name]) for name in SPLITS] == [9, 4, 5]
    for name in SPLITS:
        targets = decode_labels(data.splits[name], record)
        assert targets.mask.all()
        assert targets.values.shape == ((len(data.splits[name]), record.output_dim) if targets.values.ndim == 2 else
                                        (len(data.splits[name]),))  # fmt: skip
    assert data.aligned == (corpus != "sims")
    unlabelled = read_corpus(write_corpus(corpus, tmp_path / "new", (0, 0, 3), labelled=False))
    assert [len(unlabelled.splits[name]) for name in SPLITS] == [0, 0, 3]
    assert not decode_labels(unlabelled.splits["test"], record, required=False).mask.any()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("defects", [True, False])
def test_mmsa_holds_the_generated_values(tmp_path: Path, aligned: bool, defects: bool) -> None:
    options: dict[str, Any] = {"dims": SMALL, "aligned": aligned, "defects": defects, "seed": 3}
    options["steps"] = 9 if aligned else {"text": 9, "audio": 30, "vision": 12}
    path = write_mmsa(tmp_path / "a.pkl", "mosi", (300, 20, 20), **options)
    world = synthetic_corpus("mosi", (300, 20, 20), **options)
    data = read_corpus(path)
    assert_is(data, world)
    assert data.splits["train"].ids == world.splits["train"].ids
    assert data.splits["train"].raw_text == world.splits["train"].raw_text
    np.testing.assert_allclose(
        data.splits["train"].labels["regression_labels"], world.splits["train"].labels, rtol=1e-6
    )


def test_transcripts_have_a_word_a_step_and_say_what_the_label_says() -> None:
    split = synthetic_corpus("mosi", (400, 0, 0), dims=SMALL, steps=30, seed=2).splits["train"]
    spoken = [sentence.split() for sentence in split.raw_text]
    assert [len(words) for words in spoken] == split.lengths["text"].tolist()
    vocabulary = sorted({word for words in spoken for word in words})
    counts = np.array([[words.count(word) / len(words) for word in vocabulary] for words in spoken])
    # ratings read from the words of samples that the reader has not seen
    reader = RidgeCV(alphas=np.logspace(-4, 2, 13)).fit(counts[:200], split.labels[:200, 0])
    assert 0.5 < reader.score(counts[200:], split.labels[200:, 0]) < 0.95


def test_mult_and_mfn_hold_the_generated_values(tmp_path: Path) -> None:
    assert_is(
        read_corpus(write_mult(tmp_path / "i.pkl", "iemocap", (8, 4, 4), dims=SMALL, steps=6)),
        synthetic_corpus("iemocap", (8, 4, 4), dims=SMALL, steps=6),
    )
    dims = {"text": 5, "audio": 3, "video": 2}
    for corpus in ("mmmo", "youtube", "pom", "moud"):
        path = write_mfn(tmp_path / corpus, corpus, (8, 4, 4), dims=dims)
        assert_is(read_corpus(path), synthetic_corpus(corpus, (8, 4, 4), dims=dims))
    with h5py.File(tmp_path / "pom" / "y_train.h5") as file:
        assert file["d1"].shape == (8, 17)
    with h5py.File(tmp_path / "youtube" / "text_train_emb.h5") as file:
        assert (list(file), file["d1"].shape, file["d1"].dtype) == (["d1"], (8, 20, 5), np.float64)


def test_pickles_have_the_published_structure(tmp_path: Path) -> None:
    write_mmsa(tmp_path / "a.pkl", "sims", (4, 2, 2), dims=SMALL, steps={"text": 5, "audio": 9, "vision": 6},
               aligned=False)  # fmt: skip
    strings = {arg for _, arg, _ in pickletools.genops((tmp_path / "a.pkl").read_bytes()) if isinstance(arg, str)}
    for key in (*SPLITS, *SMALL, "raw_text", "text_bert", "id", "annotations", "classification_labels",
                "regression_labels", "regression_labels_T", "audio_lengths", "vision_lengths"):  # fmt: skip
        assert key in strings
    assert {"_reconstruct", "ndarray", "dtype"} <= strings
    write_mult(tmp_path / "b.pkl", "mosei", (4, 2, 2), dims=SMALL, steps=5)
    assert (tmp_path / "b.pkl").read_bytes()[:2] == b"\x80\x02"


def test_streamed_arrays_are_what_pickle_itself_writes(tmp_path: Path) -> None:
    import pickle

    from mfm.data.streamed_pickle import StreamingPickler
    from mfm.data.synthetic_files import _Counter, _streamed

    world = synthetic_corpus("mosi", (600, 0, 0), dims=SMALL, steps=5)
    array = world.array("train", "text")
    with (tmp_path / "streamed.pkl").open("wb") as file:
        StreamingPickler(file).dump({"text": _streamed(world, "train", "text", np.float32, _Counter(0, None))})

    def instructions(data: bytes) -> list[tuple[str, object]]:
        # frames and the memo of the bytes differ, the instructions do not
        skip = ("FRAME", "MEMOIZE")
        return [(op.name, arg) for op, arg, _ in pickletools.genops(data) if op.name not in skip]

    expected = instructions(pickle._dumps({"text": array}, protocol=4))  # type: ignore[attr-defined]
    found = instructions((tmp_path / "streamed.pkl").read_bytes())
    assert [name.replace("BINBYTES8", "BINBYTES") for name, _ in found] == [name for name, _ in expected]
    assert [a for n, a in found if n == "BINBYTES8"] == [array.tobytes()]


def test_defects_are_there(tmp_path: Path) -> None:
    world = synthetic_corpus("mosi", (300, 10, 10), dims=SMALL, steps=12, defects=True)
    audio, text, vision = (world.array("train", name) for name in ("audio", "text", "vision"))
    assert np.isneginf(audio).any()
    assert np.isnan(audio).any()
    assert np.isfinite(text).all()
    real = (text != 0).any(axis=2)
    np.testing.assert_array_equal(real.sum(axis=1), world.splits["train"].lengths["text"])
    assert not real[real.sum(axis=1) < 12, 0].any()  # pre-padded
    empty = (vision == 0).all(axis=(1, 2))
    np.testing.assert_array_equal(empty, world.splits["train"].silent["vision"])
    assert 0 < empty.sum() < 60
    inner = real & (vision == 0).all(axis=2) & ~empty[:, None]
    assert inner.any()
    clean = synthetic_corpus("mosi", (300, 10, 10), dims=SMALL, steps=12)
    assert all(np.isfinite(clean.array("train", name)).all() for name in SMALL)
    lengths = world.splits["train"].lengths["text"]
    assert (lengths.min(), lengths.max()) == (1, 12)


def test_reproducible_and_without_global_randomness(tmp_path: Path) -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one = write_mmsa(tmp_path / "a.pkl", "mosi", (8, 3, 3), dims=SMALL, steps=5).read_bytes()
    assert one == write_mmsa(tmp_path / "b.pkl", "mosi", (8, 3, 3), dims=SMALL, steps=5).read_bytes()
    assert one != write_mmsa(tmp_path / "c.pkl", "mosi", (8, 3, 3), dims=SMALL, steps=5, seed=1).read_bytes()
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def pooled(world: SyntheticCorpus, split: str, modality: str) -> np.ndarray:
    sequences = world.records().splits[split].sequences[modality]
    return np.stack([sequences.steps(index).mean(axis=0) for index in range(len(sequences))])


@pytest.mark.parametrize(("modality", "low", "high"), [("text", 0.75, 0.99), ("audio", 0.45, 0.97)])
def test_labels_can_be_learned_but_not_perfectly(modality: str, low: float, high: float) -> None:
    world = synthetic_corpus("mosi", (800, 10, 300), dims={"text": 40, "audio": 12}, steps=12)
    model = RidgeCV(np.logspace(-2, 4, 7)).fit(pooled(world, "train", modality), world.splits["train"].labels[:, 0])
    predicted = model.predict(pooled(world, "test", modality))
    assert low < np.corrcoef(predicted, world.splits["test"].labels[:, 0])[0, 1] < high


def test_labels_of_all_tasks() -> None:
    ratings = synthetic_corpus("mosi", (500, 1, 1), dims=SMALL).splits["train"].labels
    assert (ratings.min(), ratings.max()) == (-3.0, 3.0)
    assert (ratings == 0).any()
    traits = synthetic_corpus("pom", (200, 1, 1), dims=SMALL).splits["train"].labels
    assert traits.shape == (200, 16)
    assert traits.min() >= 1
    assert traits.max() <= 7
    classes = synthetic_corpus("youtube", (500, 1, 1), dims=SMALL).splits["train"].labels
    assert set(classes.ravel()) == {0.0, 1.0, 2.0}
    assert np.bincount(classes.ravel().astype(int)).min() > 80
    emotions = synthetic_corpus("iemocap", (500, 1, 1), dims=SMALL).splits["train"].labels
    assert emotions.shape == (500, 4)
    assert 0.15 < emotions.mean() < 0.5


def test_private_factors_do_not_tell_the_label() -> None:
    world = synthetic_corpus("mosi", (2000, 1, 1), dims=SMALL)
    split = world.splits["train"]
    for private in split.private.values():
        assert np.abs(np.corrcoef(private.T, split.shared.T)[-1, :-1]).max() < 0.08


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {"text": 0}}, "must be positive"),
        ({"steps": 0}, "must be positive"),
        ({"steps": {"txt": 5}}, "did you mean 'text'"),
        ({"steps": {"text": 5}}, "steps lacks audio, vision"),
        ({"steps": {"text": 5, "audio": 6, "vision": 5}}, "one number of steps"),
        ({"samples": (5, -1, 2)}, "must be positive"),
        ({"corpus": "mosy"}, "did you mean 'mosi'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        synthetic_corpus(**{"corpus": "mosi", **options})


def test_nothing_half_written(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert 0 < done <= total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_mmsa(tmp_path / "a.pkl", "mosi", (8, 3, 3), dims=SMALL, steps=5, progress=stop)

    def fail(done: int, total: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataFormatError, match="No space left on device"):
        write_mmsa(tmp_path / "a.pkl", "mosi", (8, 3, 3), dims=SMALL, steps=5, progress=fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.pkl").write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        write_mmsa(tmp_path / "a.pkl", "mosi", (8, 3, 3), dims=SMALL, steps=5)
    with pytest.raises(ConfigurationError, match="does not exist"):
        write_mfn(tmp_path / "no" / "where", "mmmo", (8, 3, 3))


def test_empty_splits(tmp_path: Path) -> None:
    world = synthetic_corpus("mosi", (0, 1, 2), dims=SMALL)
    assert world.array("train", "text").shape == (0, 20, 7)
    write_mmsa(tmp_path / "a.pkl", "mosi", (0, 1, 2), dims=SMALL)
