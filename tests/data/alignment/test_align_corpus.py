"""A corpus is aligned video by video, every item is accounted for, and nothing half-written stays."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from csd_files import corpus_files, words_of, write_csd

from mfm.data.alignment.align import AlignmentOptions
from mfm.data.alignment.corpus import align_corpus
from mfm.data.alignment.folds import read_folds, seeded_folds
from mfm.data.alignment.sources import Sources
from mfm.data.store import read_store, store_provenance, verify_store
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError

FOLDS = {"train": ["v0", "v1", "v2"], "dev": ["v3", "gone"], "test": ["v5"]}


def align(tmp_path, options=None, features=("x", "y"), folds=FOLDS, **more):
    files = corpus_files(tmp_path)
    if folds is not None:
        (tmp_path / "folds.json").write_text(json.dumps(folds))
    sources = Sources(
        files["pivot"],
        {name: files[name] for name in features},
        files["labels"],
        None if folds is None else tmp_path / "folds.json",
    )
    outcome = align_corpus(sources, tmp_path / "o.h5", tmp_path / "o.json", options or AlignmentOptions(), **more)
    return outcome, read_store(tmp_path / "o.h5"), json.loads((tmp_path / "o.json").read_text())


def test_store_and_report(tmp_path):
    outcome, data, report = align(tmp_path, record={"command": "mfm data align"})
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 9, "valid": 3, "test": 3}
    assert data.splits["valid"].ids == ("v3$_$0", "v3$_$1", "v3$_$2")
    assert data.splits["test"].sequences["y"].lengths.tolist() == [0, 0, 0]
    assert data.splits["train"].raw_text[1] == "w4 w5 w6"
    assert verify_store(tmp_path / "o.h5").computed == outcome.fingerprint == report["fingerprint"]
    assert report["videos"]["v4"]["skipped"] == "not_in_folds"
    assert report["videos"]["extra"]["skipped"] == "not_in_labels"
    assert report["videos"]["v5"]["absent"] == ["y"]
    assert report["folds"]["in_no_file"] == ["gone"]
    assert report["command"] == "mfm data align"
    assert any("gone" in note for note in data.notes)
    hashes = {
        part: hashlib.sha256(Path(file["path"]).read_bytes()).hexdigest() for part, file in report["files"].items()
    }
    assert hashes == {part: file["sha256"] for part, file in report["files"].items()}
    hashes["folds"] = hashlib.sha256((tmp_path / "folds.json").read_bytes()).hexdigest()
    together = hashlib.sha256("".join(f"{part} {hashes[part]}\n" for part in sorted(hashes)).encode())
    assert store_provenance(tmp_path / "o.h5")["source_fingerprint"] == together.hexdigest()


@pytest.mark.parametrize("options", [AlignmentOptions(), AlignmentOptions(max_length=2, require_all=True)])
def test_counts_add_up(tmp_path, options):
    _, data, report = align(tmp_path, options)
    seen = {"words": 7 * 13, "segments": 6 * 3, "x": 6 * 13, "y": 5 * 60}
    totals = {**report["totals"], **report["totals"]["features"]}
    for source, count in seen.items():
        tallies = [{**video, **video["features"]}[source] for video in report["videos"].values()]
        for tally in [totals[source], *tallies]:
            assert tally["seen"] == tally["used"] + sum(tally["dropped"].values())
        assert totals[source]["seen"] == count == sum(tally["seen"] for tally in tallies)
        assert totals[source]["used"] == sum(tally["used"] for tally in tallies)
    samples = sum(len(split) for split in data.splits.values())
    assert totals["segments"]["used"] == samples == sum(len(video["samples"]) for video in report["videos"].values())
    for name in ("x", "y"):
        marks = [s.sequences[name].observed(i).sum() for s in data.splits.values() for i in range(len(s))]
        assert report["totals"]["observed"][name] == sum(marks)
    if options.require_all:
        assert report["videos"]["v5"]["skipped"] == "lacks_feature"
        assert report["totals"]["truncated_segments"] == samples


def test_without_folds_the_split_is_seeded_and_said(tmp_path):
    outcome, data, _ = align(tmp_path, folds=None)
    assert "drawn by video" in outcome.notes[0]
    videos = [{name.split("$_$")[0] for name in split.ids} for split in data.splits.values()]
    assert sum(map(len, videos)) == len(set().union(*videos)) == 6
    assert seeded_folds("abcdefgh", (0.5, 0.25, 0.25), 3) == seeded_folds("hgfedcba", (0.5, 0.25, 0.25), 3)
    assert seeded_folds("abcdefgh", (0.5, 0.25, 0.25), 3) != seeded_folds("abcdefgh", (0.5, 0.25, 0.25), 4)
    for shares in ((0.5, 0.5, 0.5), (math.nan, 0, 1)):
        with pytest.raises(ConfigurationError, match="add up to 1"):
            seeded_folds("ab", shares, 0)
    with pytest.raises(ConfigurationError, match="seed is -1"):
        seeded_folds("ab", (1, 0, 0), -1)


def test_progress_and_interruption(tmp_path):
    calls = []
    align(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 7) for done in range(1, 8)]
    before = {path.name: path.read_bytes() for path in (tmp_path / "o.h5", tmp_path / "o.json")}

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(tmp_path, progress=stop, overwrite=True)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "o.h5", tmp_path / "o.json")}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".o.h5.videos"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"labels": {"u": ([[0.0, 9.0]], [[1.0]])}}, DataFormatError, "no video in common"),
        ({"x": {"u": ([[0.0, 9.0]], [[1.0]])}}, DataFormatError, "has none of the 6 videos"),
        ({"pivot": {"v0": (None, words_of("a"))}}, DataFormatError, "has no intervals"),
        ({"pivot": {"v0": (np.zeros((0, 2)), words_of([]))}}, DataFormatError, "no segment of .* has a word"),
        ({"x": {"v0": (np.zeros((0, 2)), np.zeros((0, 3)))}}, DataFormatError, "has no interval in any video"),
        (
            {"x": {"v0": (np.zeros((2, 3)), np.zeros((2, 3)))}},
            DataFormatError,
            r"intervals of 'v0' have shape \(2, 3\)",
        ),
        ({"labels": {"v0": ([[500.0, 501.0]], [[1.0]])}}, DataFormatError, "no_words 1.*times in seconds"),
        ({"folds": '{"train": ["v0"], "test": ["v0"]}'}, ConfigurationError, "'v0' is in 'train' and in 'test'"),
        ({"folds": '{"train": ["u"]}'}, DataFormatError, "names none of the 6 videos"),
        ({"labels": {"v0": ([[0, 9]], [[1.0]]), "v1": ([[0, 9]], [[1, 2]])}}, DataFormatError, "'v1' have 2 columns"),
        ({"x": {"v0": ([[0, 9]], [[1j]])}}, DataFormatError, "holds complex128 where numbers"),
        ({"folds": "[1"}, DataFormatError, "is not JSON"),
        ({"folds": '{"train": "v0"}'}, DataFormatError, "one list of videos for each split"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path, change, error, words):
    files = corpus_files(tmp_path)
    (tmp_path / "folds.json").write_text(change.get("folds", json.dumps(FOLDS)))
    for part in set(change) - {"folds"}:
        write_csd(files[part], {key: tuple(map(as_array, entry)) for key, entry in change[part].items()})
    before = sorted(tmp_path.iterdir())
    sources = Sources(files["pivot"], {"x": files["x"]}, files["labels"], tmp_path / "folds.json")
    with pytest.raises(error, match=words):
        align_corpus(sources, tmp_path / "o.h5", tmp_path / "o.json", AlignmentOptions())
    assert sorted(tmp_path.iterdir()) == before


def as_array(part):
    return None if part is None else np.asarray(part)


def test_targets_are_not_taken_from_the_user(tmp_path):
    files = corpus_files(tmp_path)
    sources = Sources(files["pivot"], {"x": files["x"]}, files["labels"])
    options = AlignmentOptions()
    with pytest.raises(ConfigurationError, match="is a file that is read"):
        align_corpus(sources, files["x"], tmp_path / "o.json", options, overwrite=True)
    with pytest.raises(ConfigurationError, match="store and report are both"):
        align_corpus(sources, tmp_path / "o", tmp_path / "o", options)
    (tmp_path / "o.json").write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        align_corpus(sources, tmp_path / "o.h5", tmp_path / "o.json", options)
    with pytest.raises(ConfigurationError, match="no feature"):
        align_corpus(Sources(files["pivot"], {}, files["labels"]), tmp_path / "p.h5", tmp_path / "p.json", options)
    for wrong in (AlignmentOptions(min_overlap=-1.0), AlignmentOptions(max_length=0)):
        with pytest.raises(ConfigurationError, match="must be"):
            align_corpus(sources, tmp_path / "p.h5", tmp_path / "p.json", wrong)
    with pytest.raises(CorpusNotFoundError, match="leave them out for a seeded split"):
        read_folds(tmp_path / "nothing.json")
