"""Excerpts of published files, aligned in every way, equal the plain scans; needs MFM_DATA."""

import json

import h5py
import numpy as np
import pytest
from csd_files import write_csd
from plain_alignment import plain_video, shared
from test_unaligned import belongs, plain_frames, plain_words, pooled, valid

from mfm.data.alignment.corpus import align_corpus
from mfm.data.alignment.placing import AlignmentOptions
from mfm.data.alignment.sources import Sources
from mfm.data.store import read_store

pytestmark = pytest.mark.realdata

VIDEOS = ("0h-zjBukYpk", "8OtFthrtaJM")  # of the 16 with audio and vision
SECONDS = 80.0
FEATURES = {"text": "CMU_MOSI_GloVe50", "audio": "MOSI16_Librosa", "vision": "MOSI16_FaceGeometry"}
ALIGNED = {
    "mean": {},
    "max": {"reduction": "max"},
    "last": {"reduction": "last"},
    "weighted": {"reduction": "weighted"},
    "overlap": {"membership": "overlap"},
    "containment": {"membership": "containment"},
    "nearest": {"nearest_within": 0.5},
    "nearest of any": {"nearest_within": 100.0, "membership": "overlap", "reduction": "weighted"},
    "file order": {"word_order": "file"},
    "cut": {"max_length": 5, "reduction": "max"},
    "longer overlap": {"min_overlap": 0.05},
    "pauses kept": {"pauses": ()},
    "rows shifted": {"shift_rows": {"pivot": -1, "text": -1}},
}
UNALIGNED = {
    "frames": {"unaligned": True},
    "frames that overlap": {"unaligned": True, "membership": "overlap"},
    "frames contained": {"unaligned": True, "membership": "containment"},
    "pooled": {"unaligned": True, "pool": {"audio": 10, "vision": 3}, "max_frames": {"audio": 20}},
    "frames of words": {"reduction": "all"},
}


@pytest.fixture(scope="module")
def files(data_root, tmp_path_factory):
    """Part -> a file with the first minute of two videos; the plain scans take long."""
    folder = tmp_path_factory.mktemp("excerpts")
    names = {"pivot": "CMU_MOSI_ModifiedTimestampedWords", "labels": "CMU_MOSI_Opinion_Labels", **FEATURES}
    found = {}
    for part, name in names.items():
        with h5py.File(data_root / "csd" / f"{name}.csd") as file:
            data = file[next(iter(file))]["data"]
            videos = {video: (data[video]["intervals"][:], data[video]["features"][:]) for video in VIDEOS}
        early = {video: intervals[:, 1] < SECONDS for video, (intervals, _) in videos.items()}
        excerpt = {key: (intervals[early[key]], values[early[key]]) for key, (intervals, values) in videos.items()}
        found[part] = write_csd(folder / f"{part}.csd", excerpt)
    return found


def align(files, folder, options, features=tuple(FEATURES)):
    (folder / "folds.json").write_text(json.dumps({"train": VIDEOS[:1], "test": VIDEOS[1:]}))
    sources = Sources(files["pivot"], {name: files[name] for name in features}, files["labels"], folder / "folds.json")
    align_corpus(sources, folder / "o.h5", folder / "o.json", options)
    report = json.loads((folder / "o.json").read_text())
    for tally in (report["totals"]["words"], report["totals"]["segments"], *report["totals"]["features"].values()):
        assert tally["seen"] == tally["used"] + sum(tally["dropped"].values())
    return read_store(folder / "o.h5").splits


def read(path, video, rows=0):
    """[(start, end, content)] in the order of the file, the content shifted."""
    with h5py.File(path) as file:
        group = file[next(iter(file))]["data"][video]
        times, values = group["intervals"][:].astype(float).tolist(), group["features"][:].tolist()
    first, last = max(0, -rows), len(times) - max(0, rows)
    return [(*times[row + rows], values[row]) for row in range(first, last)]


def parts(files, video, options):
    shift = options.shift_rows.get
    words = [(a, b, text[0].decode()) for a, b, text in read(files["pivot"], video, shift("pivot", 0))]
    labels = [(a, b) for a, b, _ in read(files["labels"], video)]
    return words, labels, {name: read(files[name], video, shift(name, 0)) for name in FEATURES}


@pytest.mark.parametrize("changes", ALIGNED.values(), ids=ALIGNED)
def test_words_equal_a_plain_scan(files, tmp_path, changes):
    options = AlignmentOptions(require_all=True, **changes)
    for split, video in zip(align(files, tmp_path, options).values(), VIDEOS, strict=True):
        words, labels, features = parts(files, video, options)
        wanted, _ = plain_video(
            words, labels, features, how=options.reduction, membership=options.membership, minimum=options.min_overlap,
            pauses=options.pauses, max_length=options.max_length, within=options.nearest_within,
            by_file=options.word_order == "file",
        )  # fmt: skip
        assert len(split) == len(wanted) > 3
        for index, (segment, (chosen, vectors)) in enumerate(sorted(wanted.items())):
            assert split.ids[index] == f"{video}$_${segment}"
            assert split.words.of(index)[0] == tuple(words[row][2] for row in chosen)
            for name, found in vectors.items():
                sequences = split.sequences[name]
                if not any(vector is not None for vector in found):
                    assert not len(sequences.steps(index))
                    continue
                steps = [[0.0] * sequences.dim if vector is None else vector for vector in found]
                np.testing.assert_allclose(sequences.steps(index), steps, rtol=1e-6, atol=1e-6)
                assert sequences.observed(index).tolist() == [vector is not None for vector in found]


@pytest.mark.parametrize("changes", UNALIGNED.values(), ids=UNALIGNED)
def test_frames_equal_a_plain_scan(files, tmp_path, changes):
    options = AlignmentOptions(**changes)
    for split, video in zip(align(files, tmp_path, options).values(), VIDEOS, strict=True):
        words, labels, features = parts(files, video, options)
        usable = {name: plain_frames(frames) for name, frames in features.items()}
        wanted = {}
        for number, label in enumerate(labels):
            chosen = plain_words(words, label, options.membership, 1e-5) if valid(label) else []
            if chosen:
                wanted[number] = {
                    name: frames_of(name, frames, label, [words[row] for row in chosen], options)
                    for name, frames in usable.items()
                }
        assert list(split.ids) == [f"{video}$_${number}" for number in wanted]
        for index, found in enumerate(wanted.values()):
            for name, frames in found.items():
                steps = np.array(frames, dtype=np.float32).reshape(len(frames), split.sequences[name].dim)
                np.testing.assert_allclose(split.sequences[name].steps(index), steps, rtol=1e-6, atol=1e-6)


def frames_of(name, frames, label, words, options):
    if not options.unaligned:
        return [frame[2] for word in words for frame in frames if shared(frame, word) > 1e-5]
    inside = [frame[2] for frame in frames if belongs(frame, label, options.membership, 1e-5)]
    pool, most = options.pool.get(name, 1), options.max_frames.get(name)
    inside = inside if most is None else inside[: most * pool]
    return pooled(inside, pool) if pool > 1 else inside
