"""The store gives back exactly what was written, and nothing half-written ever stays."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.data.arrays import ArraySequences
from mfm.data.records import CorpusData, SplitData
from mfm.data.store import read_store, store_fingerprint, store_provenance, verify_store, write_store
from mfm.data.store_read import StoredSequences
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError


def make_corpus(seed: int = 0, sizes: dict[str, int] | None = None, dims: dict[str, int] | None = None) -> CorpusData:
    rng = np.random.default_rng(seed)
    splits = {}
    for split, n in (sizes or {"train": 7, "valid": 3, "test": 4}).items():
        sequences = {}
        for name, dim in (dims or {"text": 6, "audio/low level": 3}).items():
            samples = [rng.normal(size=(rng.integers(0, 9), dim)).astype(np.float32) for _ in range(n)]
            sequences[name] = ArraySequences(samples, dim=dim, starts=[10 - len(s) for s in samples], file_steps=10)
        splits[split] = SplitData(
            ids=tuple(f"{split}$_${i}ü" for i in range(n)),
            sequences=sequences,
            labels={"regression_labels": rng.normal(size=(n, 1)), "sub/T": np.full((n, 2), np.nan)},
            raw_text=tuple(f"word {i} — 表情" for i in range(n)),
        )
    return CorpusData(path="/somewhere/aligned_50.pkl", format="mmsa", splits=splits, aligned=False, notes=("pre", "b"))


def assert_same(one: CorpusData, two: CorpusData) -> None:
    assert list(one.splits) == list(two.splits)
    assert (one.aligned, one.notes) == (two.aligned, two.notes)
    for name, split in one.splits.items():
        other = two.splits[name]
        assert split.ids == other.ids
        assert split.raw_text == other.raw_text
        assert split.has_ids == other.has_ids
        assert set(split.labels) == set(other.labels)
        for label in split.labels:
            np.testing.assert_array_equal(split.labels[label], other.labels[label])
        assert set(split.sequences) == set(other.sequences)
        for modality, sequences in split.sequences.items():
            stored = other.sequences[modality]
            assert (sequences.dim, sequences.file_steps) == (stored.dim, stored.file_steps)
            np.testing.assert_array_equal(sequences.lengths, stored.lengths)
            np.testing.assert_array_equal(sequences.starts, stored.starts)
            for index in range(len(split)):
                np.testing.assert_array_equal(sequences.steps(index), stored.steps(index))
                np.testing.assert_array_equal(sequences.original(index), stored.original(index))


def test_round_trip(tmp_path: Path) -> None:
    corpus = make_corpus()
    calls: list[tuple[int, int]] = []
    write_store(corpus, tmp_path / "a.h5", progress=lambda done, total: calls.append((done, total)))
    assert_same(corpus, read_store(tmp_path / "a.h5"))
    assert calls[-1] == (28, 28)
    assert verify_store(tmp_path / "a.h5").ok
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    provenance = store_provenance(tmp_path / "a.h5")
    assert provenance["source"] == "aligned_50.pkl"
    assert provenance["source_format"] == "mmsa"


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 5), dim=st.integers(1, 700))
def test_round_trip_of_any_shape(tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, dim: int) -> None:
    path = tmp_path_factory.mktemp("store") / "x.h5"
    corpus = make_corpus(seed, {"test": n}, {"m": dim})
    write_store(corpus, path)
    assert_same(corpus, read_store(path))
    assert verify_store(path).ok


def test_sequences_longer_than_a_block(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    long = [rng.normal(size=(n, 40)).astype(np.float32) for n in (70_000, 0, 1, 30_000)]
    corpus = CorpusData("x", "mult", {"train": SplitData(("a", "b", "c", "d"), {"m": ArraySequences(long)})}, True)
    write_store(corpus, tmp_path / "x.h5")
    stored = read_store(tmp_path / "x.h5").splits["train"].sequences["m"]
    for index, steps in enumerate(long):
        np.testing.assert_array_equal(stored.steps(index), steps)
    assert verify_store(tmp_path / "x.h5").steps == {"train/m": 100_001}


def test_values_are_compressed_where_it_is_worth_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 60, size=150)
    values = {
        "dense": [rng.normal(size=(n, 50)).astype(np.float32) for n in lengths],
        "alike": [np.repeat(rng.normal(size=(1, 50)), n, axis=0) for n in lengths],
        "small": [rng.normal(size=(n, 2)) for n in lengths],
    }
    sequences = {name: ArraySequences(some, file_steps=60) for name, some in values.items()}
    split = SplitData(tuple(map(str, range(150))), sequences)
    corpus = CorpusData("x", "mult", {"train": split}, True)
    write_store(corpus, tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r") as file:
        stored = {name: part["values"] for name, part in file["splits/train/sequences"].items()}
        packed = {name for name, one in stored.items() if one.compression == "lzf"}
        assert packed == {"alike", "small"}
        assert stored["alike"].id.get_storage_size() < stored["alike"].nbytes / 2
    assert_same(corpus, read_store(tmp_path / "x.h5"))
    assert verify_store(tmp_path / "x.h5").ok


def test_reader_that_disagrees_with_itself_is_told(tmp_path: Path) -> None:
    for count, dim in ((3, 4), (60, 100)):  # few values; many, of which some are tried first
        sequences = ArraySequences(np.ones((count, 50, dim)))
        sequences.lengths = sequences.lengths - 1
        split = SplitData(tuple(map(str, range(count))), {"m": sequences})
        with pytest.raises(DataFormatError, match=rf"sample 0 has shape \(50, {dim}\), expected \(49, {dim}\)"):
            write_store(CorpusData("x", "mult", {"train": split}, True), tmp_path / "x.h5")
        assert list(tmp_path.iterdir()) == []


def test_fingerprint_of_the_source_may_come_late(tmp_path: Path) -> None:
    write_store(make_corpus(), tmp_path / "a.h5", source_fingerprint=lambda: "abc")
    assert store_provenance(tmp_path / "a.h5")["source_fingerprint"] == "abc"

    def fails() -> str:
        raise DataFormatError("cannot be read")

    with pytest.raises(DataFormatError, match="cannot be read"):
        write_store(make_corpus(), tmp_path / "b.h5", source_fingerprint=fails)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_nan_and_infinities_survive(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 0.0]], dtype=np.float32)
    corpus = CorpusData("x", "mult", {"train": SplitData(("a",), {"m": ArraySequences([values])})}, True)
    write_store(corpus, tmp_path / "x.h5")
    np.testing.assert_array_equal(read_store(tmp_path / "x.h5").splits["train"].sequences["m"].steps(0), values)
    assert verify_store(tmp_path / "x.h5").nonfinite == {"train/m": 3}


def test_fingerprint_is_of_the_content_only(tmp_path: Path) -> None:
    corpus = make_corpus()
    write_store(corpus, tmp_path / "a.h5", source_fingerprint="abc")
    write_store(read_store(tmp_path / "a.h5"), tmp_path / "b.h5")
    assert store_fingerprint(tmp_path / "a.h5") == store_fingerprint(tmp_path / "b.h5")
    write_store(make_corpus(seed=1), tmp_path / "c.h5")
    assert store_fingerprint(tmp_path / "c.h5") != store_fingerprint(tmp_path / "a.h5")


def test_selected_modalities(tmp_path: Path) -> None:
    write_store(make_corpus(), tmp_path / "a.h5")
    assert list(read_store(tmp_path / "a.h5", ["text"]).splits["train"].sequences) == ["text"]
    with pytest.raises(DataFormatError, match=r"no modality 'txt'.*did you mean 'text'"):
        read_store(tmp_path / "a.h5", ["txt"])


def test_existing_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        write_store(make_corpus(), tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "precious"
    write_store(make_corpus(), tmp_path / "a.h5", overwrite=True)
    assert verify_store(tmp_path / "a.h5").ok
    with pytest.raises(ConfigurationError, match="does not exist"):
        write_store(make_corpus(), tmp_path / "nowhere" / "a.h5")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("reader"), DataFormatError("bad")])
def test_interruption_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def stop(done: int, total: int) -> None:
        raise error

    with pytest.raises((KeyboardInterrupt, ValueError, DataFormatError)):
        write_store(make_corpus(), tmp_path / "a.h5", progress=stop)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
import numpy as np
from mfm.data.arrays import ArraySequences
from mfm.data.records import CorpusData, SplitData
from mfm.data.store import write_store
from mfm.errors import MFMError
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # the system refuses to write more
samples = np.random.default_rng(0).normal(size=(40, 100, 300))
data = CorpusData("x", "mult", {"train": SplitData(tuple(map(str, range(40))), {"m": ArraySequences(samples)})}, True)
try:
    write_store(data, sys.argv[1])
except MFMError as error:
    print(error)
"""


def test_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr  # HDF5 itself would crash at exit
    assert "File too large" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFoundError, match="no such file"):
        read_store(tmp_path / "none.h5")
    (tmp_path / "empty.h5").write_bytes(b"")
    with pytest.raises(DataFormatError, match="not a readable HDF5 file"):
        read_store(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["d1"] = [1.0]
    with pytest.raises(DataFormatError, match="not a store of this project"):
        read_store(tmp_path / "other.h5")


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    write_store(make_corpus(), tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / "cut.h5").write_bytes(whole[:size])
        with pytest.raises(DataFormatError):
            read_store(tmp_path / "cut.h5")


def test_newer_version_is_named(tmp_path: Path) -> None:
    write_store(make_corpus(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["schema_version"] = 7
    with pytest.raises(DataFormatError, match=r"store version 7.*reads version 1; install a newer"):
        read_store(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file.attrs["schema_version"]
    with pytest.raises(DataFormatError, match="convert the source again"):
        read_store(tmp_path / "a.h5")


def test_missing_parts_are_one_sentence(tmp_path: Path) -> None:
    for part in ("splits/train/ids", "splits/test/sequences/text/offsets", "splits/train/sequences", "splits"):
        write_store(make_corpus(), tmp_path / "a.h5", overwrite=True)
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            del file[part]
        with pytest.raises(DataFormatError, match="damaged store"):
            read_store(tmp_path / "a.h5")


def test_verify_finds_changes(tmp_path: Path) -> None:
    changes = {
        "values": lambda g: g["values"].__setitem__((0, 0), 5.0),
        "starts": lambda g: g["starts"].__setitem__(0, 9),
        "offsets": lambda g: g["offsets"].__setitem__(-1, 3),
    }
    for change in changes.values():
        write_store(make_corpus(), tmp_path / "a.h5", overwrite=True)
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            change(file["splits/train/sequences/text"])
        report = verify_store(tmp_path / "a.h5")
        assert not report.ok
        assert report.problems
    write_store(make_corpus(), tmp_path / "a.h5", overwrite=True)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["splits/train/labels/regression_labels"][0, 0] = 1.5
    assert "fingerprint" in verify_store(tmp_path / "a.h5").problems[0]


def test_verify_checks_alignment(tmp_path: Path) -> None:
    split = SplitData(("a",), {"m": ArraySequences([np.ones((2, 1))]), "n": ArraySequences([np.ones((3, 1))])})
    write_store(CorpusData("x", "mult", {"train": split}, aligned=True), tmp_path / "a.h5")
    assert "marked as aligned" in verify_store(tmp_path / "a.h5").problems[0]


def test_damaged_chunk_is_one_sentence(tmp_path: Path) -> None:
    write_store(make_corpus(dims={"m": 200}, sizes={"train": 60}), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r") as file:
        chunk = file["splits/train/sequences/m/values"].id.get_chunk_info(0)
    with (tmp_path / "a.h5").open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    report = verify_store(tmp_path / "a.h5")
    assert "cannot be read" in report.problems[0]


def _read_in_worker(sequences: StoredSequences, index: int) -> float:
    return float(sequences.steps(index).sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readable_in_workers(tmp_path: Path, method: str) -> None:
    write_store(make_corpus(), tmp_path / "a.h5")
    sequences = read_store(tmp_path / "a.h5").splits["train"].sequences["text"]
    here = [_read_in_worker(sequences, i) for i in range(7)]  # the handle is open before the fork
    with multiprocessing.get_context(method).Pool(1) as pool:
        there = pool.starmap(_read_in_worker, [(sequences, i) for i in range(7)])
    assert here == there


def test_handle_is_not_pickled_and_replacement_is_noticed(tmp_path: Path) -> None:
    write_store(make_corpus(), tmp_path / "a.h5")
    sequences = read_store(tmp_path / "a.h5").splits["train"].sequences["text"]
    sequences.steps(0)
    assert isinstance(sequences, StoredSequences)
    state = sequences.__getstate__()
    assert state["_values"] is None
    assert len(pickle.dumps(sequences)) < 10_000
    lazy = read_store(tmp_path / "a.h5").splits["train"].sequences["text"]
    write_store(make_corpus(seed=3), tmp_path / "a.h5", overwrite=True)
    with pytest.raises(DataFormatError, match="replaced by another store"):
        lazy.steps(0)


def test_no_torch(tmp_path: Path) -> None:
    code = "import sys, mfm.data.store, mfm.data.synthetic; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})
