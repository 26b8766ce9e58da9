"""A store written sample by sample is the store that is written at once."""

from pathlib import Path

import numpy as np
import pytest

from mfm.data.arrays import ArraySequences
from mfm.data.records import SplitData
from mfm.data.store import read_store, store_fingerprint, verify_store, write_store
from mfm.data.store_stream import WordSample, stream_store
from mfm.errors import ConfigurationError, DataFormatError, MFMError

DIMS = {"a/b": 3, "m": 40}
DTYPES = {"a/b": "float32", "m": "float64"}


def make_sample(rng: np.random.Generator, name: str) -> WordSample:
    length = int(rng.integers(1, 9))
    words = tuple(rng.choice(["so", "größer", "new york", ""], size=length).tolist())
    starts = np.sort(rng.uniform(0, 9, length))
    steps, observed = {}, {}
    for index, (modality, dim) in enumerate(DIMS.items()):
        there = length if index or rng.random() > 0.3 else 0
        seen = rng.random(there) > 0.4
        observed[modality] = seen
        steps[modality] = (rng.normal(size=(there, dim)) * seen[:, None]).astype(np.float32)
    return WordSample(name, words, np.stack([starts, starts + 0.3], 1), rng.normal(size=2), steps, observed)


def write(path: Path, samples: list[tuple[str, WordSample]], overwrite: bool = False) -> str:
    with stream_store(path, DIMS, DTYPES, overwrite=overwrite) as store:
        for split, sample in samples:
            store.append(split, sample)
        return store.finish(("a note",), {"source": "x.csd", "source_format": "csd", "source_fingerprint": None})


def make_samples(count: int = 40) -> list[tuple[str, WordSample]]:
    rng = np.random.default_rng(0)
    return [(["test", "train"][i % 2], make_sample(rng, f"v$_${i}")) for i in range(count)]


@pytest.mark.parametrize("buffer", [64, 1024 * 1024])
def test_what_was_appended_is_read(tmp_path, monkeypatch, buffer):
    monkeypatch.setattr("mfm.data.store_stream._BUFFER_BYTES", buffer)
    samples = make_samples()
    fingerprint = write(tmp_path / "x.h5", samples)
    stored = read_store(tmp_path / "x.h5")
    assert stored.aligned
    assert list(stored.splits) == ["train", "test"]
    for name, split in stored.splits.items():
        wanted = [sample for where, sample in samples if where == name]
        assert list(split.ids) == [sample.id for sample in wanted]
        np.testing.assert_array_equal(split.labels["labels"], [sample.labels for sample in wanted])
        assert split.raw_text is not None
        assert split.words is not None
        for index, sample in enumerate(wanted):
            assert len(split.raw_text[index].split()) == len(sample.words)
            texts, times = split.words.of(index)
            assert texts == sample.words
            np.testing.assert_array_equal(times, sample.intervals)
            for modality in DIMS:
                np.testing.assert_array_equal(split.sequences[modality].steps(index), sample.steps[modality])
                np.testing.assert_array_equal(split.sequences[modality].observed(index), sample.observed[modality])
    report = verify_store(tmp_path / "x.h5")
    assert report.ok
    assert report.computed == fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


def test_rows_beyond_one_buffer(tmp_path):
    rng = np.random.default_rng(1)
    length = 9000  # more than a buffer of words, marks and values
    times = np.arange(2.0 * length).reshape(-1, 2)
    values = rng.normal(size=(length, 40)).astype(np.float32)
    seen = np.ones(length, dtype=bool)
    empty = np.zeros((0, 3), dtype=np.float32)
    sample = WordSample(
        "v", ("w",) * length, times, np.zeros(1), {"a/b": empty, "m": values}, {"a/b": seen[:0], "m": seen}
    )
    write(tmp_path / "x.h5", [("train", sample), ("train", sample)])
    split = read_store(tmp_path / "x.h5").splits["train"]
    np.testing.assert_array_equal(split.sequences["m"].steps(1), values)
    assert verify_store(tmp_path / "x.h5").ok


def test_words_and_marks_survive_conversion_and_count_in_the_fingerprint(tmp_path):
    samples = make_samples()
    write(tmp_path / "x.h5", samples)
    write_store(read_store(tmp_path / "x.h5"), tmp_path / "y.h5")
    assert store_fingerprint(tmp_path / "x.h5") == store_fingerprint(tmp_path / "y.h5")
    assert verify_store(tmp_path / "y.h5").ok
    samples[0][1].intervals[0, 0] -= 0.5
    assert write(tmp_path / "x.h5", samples, overwrite=True) != store_fingerprint(tmp_path / "y.h5")
    samples[0][1].intervals[0, 0] += 0.5
    samples[0][1].observed["m"][0] ^= True
    assert write(tmp_path / "x.h5", samples, overwrite=True) != store_fingerprint(tmp_path / "y.h5")


def test_where_nothing_is_marked_all_was_observed():
    split = SplitData(("a",), {"m": ArraySequences([np.ones((2, 1))])})
    assert split.words is None
    assert split.sequences["m"].observed(0).tolist() == [True, True]


def interrupted(path: Path, error: BaseException | type[BaseException]) -> None:
    with stream_store(path, DIMS, DTYPES, overwrite=True) as store:
        store.append("train", make_samples(1)[0][1])
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataFormatError("bad"), OSError(28, "No space left on device")])
def test_interruption_leaves_what_was_there(tmp_path, error):
    (tmp_path / "x.h5").write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        write(tmp_path / "x.h5", [])
    with pytest.raises((KeyboardInterrupt, MFMError)):
        interrupted(tmp_path / "x.h5", error)
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    assert (tmp_path / "x.h5").read_text() == "precious"
