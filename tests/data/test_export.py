"""What is exported is what other people's code expects, and reads back as what it was."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfm.data.arrays import ArraySequences
from mfm.data.export import export_mmsa, export_mult
from mfm.data.readers import read_corpus
from mfm.data.records import CorpusData, SplitData
from mfm.data.store import read_store, write_store
from mfm.errors import ConfigurationError, DataFormatError

DIMS = {"text": 4, "audio": 3, "vision": 2}


def make_corpus(seed: int = 0, aligned: bool = True, dims: dict[str, int] | None = None, labels: str = "labels"):
    """Ragged samples with all-zero outer steps, absent modalities and non-finite numbers."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, n in {"train": 6, "valid": 2, "test": 3}.items():
        common = rng.integers(1, 6, size=n)
        sequences = {}
        for name, dim in (dims or DIMS).items():
            lengths = common if aligned else rng.integers(1, 9, size=n)
            samples = [rng.normal(size=(length, dim)).astype(np.float32) for length in lengths]
            for sample in samples:
                if len(sample) > 1:
                    sample[0 if rng.random() < 0.5 else -1] = 0  # a step that could be padding
                sample[0, 0] = np.nan if rng.random() < 0.2 else sample[0, 0] + 1
            if name != "text":
                samples[rng.integers(n)] = np.zeros((0, dim), np.float32)
            sequences[name] = ArraySequences(samples, dim=dim)
        splits[split] = SplitData(
            ids=tuple(f"{split}$_${i}" for i in range(n)),
            sequences=sequences,
            labels={labels: rng.uniform(-3, 3, size=(n, 1))},
            raw_text=tuple(f"word {i} ü" for i in range(n)),
        )
    return CorpusData("corpus", "store", splits, aligned)


def stored(corpus: CorpusData, folder: Path, name: str = "corpus.h5") -> CorpusData:
    write_store(corpus, folder / name)
    return read_store(folder / name)


def assert_same_content(one: CorpusData, two: CorpusData, texts: bool = True) -> None:
    assert list(one.splits) == list(two.splits)
    assert one.aligned == two.aligned
    for name, split in one.splits.items():
        other = two.splits[name]
        assert split.ids == other.ids
        if texts:
            assert split.raw_text == other.raw_text
        for label, values in split.labels.items():
            np.testing.assert_array_equal(values, other.labels[label])
        assert set(split.sequences) == set(other.sequences)
        for modality, sequences in split.sequences.items():
            np.testing.assert_array_equal(sequences.lengths, other.sequences[modality].lengths)
            for index in range(len(split)):
                np.testing.assert_array_equal(sequences.steps(index), other.sequences[modality].steps(index))


def plain_load(path: Path) -> dict[str, dict[str, object]]:
    """What Python's own pickle makes of the file, in a process that knows nothing of mfm; shapes and types only."""
    code = f"""\
import pickle
tree = pickle.load(open({str(path)!r}, 'rb'))
print({{s: {{k: (str(v.dtype), v.shape) if hasattr(v, 'shape') else [type(v).__name__, v[:2]] for k, v in t.items()}}
       for s, t in tree.items()}})
"""
    done = subprocess.run([sys.executable, "-S", "-c", _with_numpy(code)], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout)


def _with_numpy(code: str) -> str:
    return f"import sys; sys.path.append({str(Path(np.__file__).parents[1])!r})\n{code}"


@pytest.mark.parametrize("aligned", [True, False])
def test_store_to_mmsa_and_back(tmp_path, aligned):
    corpus = stored(make_corpus(aligned=aligned), tmp_path)
    export_mmsa(corpus, tmp_path / "out.pkl")
    back = read_corpus(tmp_path / "out.pkl")
    assert back.format == "mmsa"
    assert_same_content(corpus, stored(back, tmp_path, "back.h5"))


@pytest.mark.parametrize("aligned", [True, False])
def test_store_to_mult_and_back(tmp_path, aligned):
    corpus = stored(make_corpus(aligned=aligned), tmp_path)
    notes = export_mult(corpus, tmp_path / "out.pkl")
    back = read_corpus(tmp_path / "out.pkl")
    assert back.format == "mult"
    assert_same_content(corpus, stored(back, tmp_path, "back.h5"), texts=False)
    assert any("transcripts" in note for note in notes)


@given(seed=st.integers(0, 10**6), aligned=st.booleans(), mult=st.booleans(), modalities=st.integers(1, 3))
def test_any_corpus_comes_back(tmp_path_factory, seed, aligned, mult, modalities):
    path = tmp_path_factory.mktemp("export") / "out.pkl"
    corpus = make_corpus(seed, aligned or modalities == 1, dict(list(DIMS.items())[:modalities]))
    (export_mult if mult else export_mmsa)(corpus, path)
    assert_same_content(corpus, read_corpus(path), texts=not mult)


def test_mmsa_pickle_opens_without_us_and_has_its_keys(tmp_path):
    export_mmsa(make_corpus(aligned=False), tmp_path / "out.pkl")
    train = plain_load(tmp_path / "out.pkl")["train"]
    assert {"raw_text", "text", "audio", "vision", "id", "annotations", "classification_labels", "regression_labels",
            "audio_lengths", "vision_lengths"} <= set(train)  # fmt: skip
    for name, dim in DIMS.items():
        dtype, (samples, _, features) = train[name]
        assert (dtype, samples, features) == ("float32", 6, dim)
    assert train["regression_labels"][1] == (6,)
    assert train["id"] == ["list", ["train$_$0", "train$_$1"]]


def test_ratings_become_classes_and_words(tmp_path):
    split = SplitData(
        ("a", "b", "c", "d"),
        {"text": ArraySequences([np.ones((1, 1))] * 4)},
        {"regression_labels": np.array([[-1.2], [0.0], [3.0], [np.nan]])},
    )
    export_mmsa(CorpusData("x", "store", {"test": split}, True), tmp_path / "out.pkl")
    back = read_corpus(tmp_path / "out.pkl").splits["test"]
    np.testing.assert_array_equal(back.labels["classification_labels"], [[0], [1], [2], [np.nan]])
    assert plain_load(tmp_path / "out.pkl")["test"]["annotations"] == ["list", ["Negative", "Neutral"]]


def test_mult_shapes(tmp_path):
    export_mult(make_corpus(), tmp_path / "out.pkl")
    train = plain_load(tmp_path / "out.pkl")["train"]
    assert train["labels"] == ("float64", (6, 1, 1))
    assert train["id"][1] == (6, 3)
    corpus = make_corpus()
    for split in corpus.splits.values():
        split.labels["labels"] = np.tile([1.0, 0.0, 0.0, np.nan], (len(split), 1))
    export_mult(corpus, tmp_path / "emotions.pkl")
    assert plain_load(tmp_path / "emotions.pkl")["train"]["labels"] == ("float64", (6, 4, 2))
    np.testing.assert_array_equal(
        read_corpus(tmp_path / "emotions.pkl").splits["test"].labels["labels"], corpus.splits["test"].labels["labels"]
    )


def test_published_layout_is_kept(tmp_path):
    """A pre-padded source of T = 12 comes out pre-padded with T = 12, whichever side is the format's."""
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(length, 2)) for length in (3, 12, 7)]
    sequences = ArraySequences(samples, starts=[9, 0, 5], file_steps=12)
    split = SplitData(("a", "b", "c"), {"text": sequences}, {"labels": np.ones((3, 1))})
    export_mmsa(CorpusData("x", "mult", {"train": split}, True), tmp_path / "out.pkl")
    back = read_corpus(tmp_path / "out.pkl").splits["train"].sequences["text"]
    assert back.file_steps == 12
    assert back.starts.tolist() == [9, 0, 5]


def test_losses_are_said(tmp_path):
    corpus = make_corpus(dims={"text": 4})
    corpus.splits["train"].labels["traits"] = np.zeros((6, 2))
    zero = ArraySequences([np.zeros((2, 4)), np.ones((1, 4)), np.ones((2, 4))])
    object.__setattr__(corpus.splits["test"], "sequences", {"text": zero})
    notes = "\n".join(export_mmsa(corpus, tmp_path / "out.pkl"))
    assert "no audio and no vision" in notes
    assert "traits have no place" in notes.replace("label array(s) ", "")
    assert "test: text is all zero in 1 sample(s)" in notes


def test_refusals(tmp_path):
    corpus = make_corpus()
    with pytest.raises(ConfigurationError, match=r"no label array 'label': did you mean 'labels'"):
        export_mult(corpus, tmp_path / "out.pkl", target="label")
    with pytest.raises(DataFormatError, match="no features"):
        export_mmsa(CorpusData("x", "store", {}, True), tmp_path / "out.pkl")
    with pytest.raises(ConfigurationError, match="create it first"):
        export_mmsa(corpus, tmp_path / "nowhere" / "out.pkl")
    (tmp_path / "out.pkl").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        export_mmsa(corpus, tmp_path / "out.pkl")
    assert (tmp_path / "out.pkl").read_text() == "mine"
    export_mmsa(corpus, tmp_path / "out.pkl", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.pkl"]
