import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from mfm.corpora import Corpus, KnownFile
from mfm.data import inspect as inspect_module
from mfm.data.inspect import inspect_corpus, video_of
from mfm.data.readers import fingerprint, read_corpus
from mfm.data.store import write_store
from mfm.data.synthetic import write_corpus, write_mmsa

RNG = np.random.default_rng(3)


def save(path, tree):
    path.unlink(missing_ok=True)
    path.write_bytes(pickle.dumps(tree))
    return path


@pytest.fixture
def tree():
    audio = RNG.normal(size=(5, 6, 3))
    text = RNG.normal(size=(5, 6, 2)).astype("f4")
    for sample, length in enumerate([1, 2, 4, 6, 3]):
        audio[sample, : 6 - length] = text[sample, : 6 - length] = 0
    audio[2, 3] = 0  # a real step that is all zero
    audio[3, 5, 0], audio[3, 5, 1], audio[3, 4, 2] = np.nan, -np.inf, np.inf
    audio[4] = 0  # absent
    train = {
        "text": text,
        "audio": audio,
        "id": ["a$_$0", "a$_$1", "b$_$0", "b$_$0", "c$_$2"],
        "raw_text": ["x"] * 5,
        "regression_labels": [0.5, -1.25, 3.0, None, 0.0],
        "classification_labels": [0, 1, 2, 2, 0],
    }
    test = {key: value[:2] for key, value in train.items()} | {"id": ["c$_$9", "a$_$1"]}
    return {"train": train, "test": test}


def test_everything_that_is_counted(tmp_path, tree):
    path = save(tmp_path / "x.pkl", tree)
    report = inspect_corpus(path)
    assert (report.format, report.aligned, report.bytes) == ("mmsa", True, path.stat().st_size)
    assert report.fingerprint == fingerprint(path)
    train = report.splits["train"]
    audio = train.modalities["audio"]
    assert (audio.shape, audio.dtype, audio.padding) == ((5, 6, 3), "float64", "pre")
    assert (audio.nan, audio.infinite, audio.absent, audio.zero_steps, audio.outside) == (1, 2, 1, 1, 0)
    lengths = audio.lengths
    assert (lengths.minimum, lengths.median, lengths.maximum) == (1, 3.0, 6)
    assert (lengths.lower_quartile, lengths.upper_quartile) == tuple(np.percentile([1, 2, 4, 6], [25, 75]))
    assert lengths.mean == 13 / 4
    assert train.modalities["text"].absent == 0
    assert train.duplicated_ids == {"b$_$0": 2}
    assert report.shared_ids == {"train/test": 1}
    assert report.shared_videos == {"train/test": 2}
    (ratings,) = train.labels["regression_labels"]
    assert (ratings.missing, ratings.minimum, ratings.maximum, ratings.classes) == (1, -1.25, 3.0, None)
    assert sum(ratings.histogram) == 4
    (classes,) = train.labels["classification_labels"]
    assert classes.classes == {"0": 2, "1": 1, "2": 2}
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["splits"]["train"]["samples"] == 5


def test_content_outside_of_given_lengths_is_counted(tmp_path, tree):
    for split in tree.values():
        split["audio_lengths"] = [1] * len(split["audio"])
    report = inspect_corpus(save(tmp_path / "x.pkl", tree))
    content = (tree["train"]["audio"] != 0).any(axis=2)
    assert report.splits["train"].modalities["audio"].outside == content.sum() - 4


def test_one_pass_over_the_numbers(tmp_path, tree, monkeypatch):
    path = save(tmp_path / "x.pkl", tree)
    seen = []
    inspect_corpus(path, progress=lambda done, total: seen.append((done, total)))
    total = sum(split[name].nbytes for split in tree.values() for name in ("text", "audio"))
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)

    def again(rows):
        raise AssertionError("read twice")

    monkeypatch.setattr("mfm.data.spans.content_mask", again)
    inspect_corpus(path)


def test_subset_of_modalities(tmp_path, tree):
    report = inspect_corpus(save(tmp_path / "x.pkl", tree), ["audio"])
    assert list(report.splits["train"].modalities) == ["audio"]
    assert report.splits["train"].modalities["audio"].lengths.maximum == 6


@pytest.mark.parametrize("aligned", [True, False])
def test_store_says_what_its_source_said(tmp_path, aligned):
    source = write_mmsa(tmp_path / "x.pkl", "mosi", (9, 4, 4), dims={"text": 6, "audio": 5}, aligned=aligned)
    write_store(read_corpus(source), tmp_path / "x.h5", source_fingerprint=fingerprint(source))
    one, other = inspect_corpus(source), inspect_corpus(tmp_path / "x.h5")
    for name, split in one.splits.items():
        assert other.splits[name].labels == split.labels
        for key, found in split.modalities.items():
            stored = other.splits[name].modalities[key]
            assert (stored.shape, stored.lengths, stored.padding) == (found.shape, found.lengths, found.padding)
            assert (stored.absent, stored.zero_steps) == (found.absent, found.zero_steps)
            assert (stored.nan, stored.infinite) == (found.nan, found.infinite)


def test_folder_without_names(tmp_path):
    report = inspect_corpus(write_corpus("youtube", tmp_path / "y", samples=(4, 2, 2), dims={"audio": 3, "video": 2}))
    assert report.shared_ids == {}
    assert not report.splits["train"].has_ids
    assert len(report.splits["train"].labels["labels"]) == 3


def known(name, corpus, dims, sha256=None):
    file = KnownFile(name, "mmsa", (5, 3, 2), dims, sha256)
    return Corpus(corpus, corpus.upper(), "regression", ("y",), "mosi", "val/mae", "min", files=(file,))


def test_matches(tmp_path, tree, monkeypatch):
    tree["valid"] = {key: value[:3] for key, value in tree["train"].items()}
    path = save(tmp_path / "x.pkl", tree)
    dims = {"text": 2, "audio": 3, "vision": 9}
    records = {
        "a": known("aligned.pkl", "a", dims),
        "b": known("unaligned.pkl", "b", dims),
        "c": known("aligned.pkl", "c", {"text": 7}),
    }
    monkeypatch.setattr(inspect_module, "CORPORA", records)
    (match,) = inspect_corpus(path).matches
    assert (match.corpus, match.same_features, match.sha256) == ("a", True, "unknown")
    records["a"] = known("aligned.pkl", "a", dims, sha256="0" * 64)
    assert inspect_corpus(path).matches[0].sha256 == "differs"
    assert inspect_corpus(path, sha256=False).matches[0].sha256 == "not computed"
    records["d"] = known("other.pkl", "d", {}, sha256=fingerprint(path))
    (match,) = inspect_corpus(path).matches
    assert (match.corpus, match.sha256) == ("d", "identical")
    write_store(read_corpus(path), tmp_path / "x.h5", source_fingerprint=fingerprint(path))
    assert inspect_corpus(tmp_path / "x.h5").matches[0].sha256 == "identical"
    del records["a"], records["d"]
    (match,) = inspect_corpus(path).matches
    assert (match.corpus, match.same_features) == ("c", False)


def test_large_files_are_hashed_only_when_asked(tmp_path, tree, monkeypatch):
    monkeypatch.setattr(inspect_module, "HASH_LIMIT", 10)
    path = save(tmp_path / "x.pkl", tree)
    assert inspect_corpus(path).fingerprint is None
    assert inspect_corpus(path, sha256=True).fingerprint == fingerprint(path)


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("03bSnISJMiM$_$11", "03bSnISJMiM"),
        ("-3g5yACwYnA_4.84_13.4", "-3g5yACwYnA"),
        ("v[3]", "v"),
        ("v#12", "v"),
        ("plain_name", "plain_name"),
    ],
)
def test_video_of(name, video):
    assert video_of(name) == video


@pytest.mark.realdata
def test_real_files():
    folder = os.environ.get("MFM_DATA")
    if not folder:
        pytest.skip("MFM_DATA is not set")
    words = inspect_corpus(Path(folder) / "mosi/words_50.pkl")
    assert {match.corpus for match in words.matches} == {"mosi"}
    assert set(words.shared_videos.values()) == {0}
    youtube = inspect_corpus(Path(folder) / "mfn/youtube")
    assert [match.corpus for match in youtube.matches] == ["youtube"]
    assert youtube.splits["train"].modalities["audio"].padding == "post"
    assert youtube.splits["train"].modalities["audio"].absent == 125
