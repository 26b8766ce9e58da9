"""Files of every corpus, stores made of them, and fingerprints."""

import hashlib

import numpy as np
import pytest
from small_corpora import mfn_folder, mmsa, save

from mfm.corpora import CORPORA
from mfm.data.readers import fingerprint, read_corpus
from mfm.data.store import write_store
from mfm.data.synthetic import write_corpus, write_mmsa, write_mult
from mfm.errors import CorpusNotFoundError


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_generated_files_of_every_corpus(tmp_path, name):
    dims = {"text": 6, "audio": 5, "vision": 4}
    known = CORPORA[name].files
    if not known or known[0].format == "mfn":
        dims = {"text": 6, "audio": 5, "video": 4}
    path = write_corpus(name, tmp_path / "corpus", samples=(5, 2, 3), dims=dims)
    data = read_corpus(path)
    assert {split: len(found) for split, found in data.splits.items()} == {"train": 5, "valid": 2, "test": 3}
    for split in data.splits.values():
        assert {key: found.dim for key, found in split.sequences.items()} == dims
        assert split.labels
        assert len(set(split.ids)) == len(split)


def test_fingerprints(tmp_path):
    file = save(tmp_path / "a.pkl", mmsa())
    assert fingerprint(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    write_store(read_corpus(file), tmp_path / "a.h5")
    assert len(fingerprint(tmp_path / "a.h5")) == 64
    mfn_folder(tmp_path / "m")
    before = fingerprint(tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("anything")
    assert fingerprint(tmp_path / "m") == before
    (tmp_path / "m" / "y_test.h5").unlink()
    assert fingerprint(tmp_path / "m") != before
    with pytest.raises(CorpusNotFoundError):
        fingerprint(tmp_path / "nothing")


def test_store_gives_what_its_source_gave(tmp_path):
    for source in (
        write_mmsa(tmp_path / "a.pkl", "mosi", (6, 3, 3), dims={"text": 7, "audio": 5, "vision": 4}, steps=12),
        write_mmsa(tmp_path / "u.pkl", "sims", (6, 3, 3), dims={"text": 7, "audio": 5, "vision": 4}, aligned=False),
        write_mult(tmp_path / "m.pkl", "iemocap", (6, 3, 3), dims={"text": 7, "x": 5}, steps=12),
    ):
        read = read_corpus(source)
        write_store(read, source.with_suffix(".h5"))
        stored = read_corpus(source.with_suffix(".h5"))
        assert (stored.format, stored.aligned, stored.notes) == ("store", read.aligned, read.notes)
        for name, split in read.splits.items():
            other = stored.splits[name]
            assert other.ids == split.ids
            for key, sequences in split.sequences.items():
                np.testing.assert_array_equal(other.sequences[key].lengths, sequences.lengths)
                np.testing.assert_array_equal(other.sequences[key].starts, sequences.starts)
                for index in range(len(split)):
                    np.testing.assert_array_equal(other.sequences[key].steps(index), sequences.steps(index))
