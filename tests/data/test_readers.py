import hashlib
import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from mfm.corpora import CORPORA
from mfm.data.readers import fingerprint, read_corpus
from mfm.data.readers import padded as padded_module
from mfm.data.readers.padded import mapping_of
from mfm.data.readers.parts import label_array
from mfm.data.store import write_store
from mfm.data.synthetic import write_corpus, write_mmsa, write_mult
from mfm.errors import ConfigurationError, CorpusNotFoundError, DataFormatError, MFMError, UnsafePickleError

RNG = np.random.default_rng(0)
SIZES = {"train": 6, "valid": 3, "test": 4}


def save(path: Path, tree, protocol=4) -> Path:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        pickle.dump(tree, file, protocol=protocol)
    return path


def features(samples, steps, dim, lengths=None, side="pre", dtype="f4"):
    array = RNG.normal(size=(samples, steps, dim)).astype(dtype)
    for sample, length in enumerate(lengths if lengths is not None else []):
        pad = slice(0, steps - length) if side == "pre" else slice(length, steps)
        array[sample, pad] = 0
    return array


def mmsa_split(name, count, steps=8, **other):
    lengths = [1 + index % steps for index in range(count)]
    return {
        "raw_text": np.array([f"word {index}" for index in range(count)], dtype=object),
        "text": features(count, steps, 5, lengths),
        "audio": features(count, steps, 3, lengths, dtype="f8"),
        "vision": features(count, steps, 2, lengths),
        "id": [f"{name}v{index // 2}$_${index}" for index in range(count)],
        "annotations": ["Positive"] * count,
        "classification_labels": [float(index % 3) for index in range(count)],
        "regression_labels": RNG.normal(size=count).astype("f4"),
    } | other


def mmsa(**other):
    return {name: mmsa_split(name, count, **other) for name, count in SIZES.items()}


def objects(items):
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pkl"


def test_mmsa_aligned(path):
    tree = mmsa()
    data = read_corpus(save(path, tree))
    assert (data.format, data.aligned, list(data.splits)) == ("mmsa", True, ["train", "valid", "test"])
    split, source = data.splits["train"], tree["train"]
    assert split.ids[:2] == ("trainv0$_$0", "trainv0$_$1")
    assert split.has_ids
    assert split.raw_text[3] == "word 3"
    assert set(split.sequences) == {"text", "audio", "vision"}
    for name, sequences in split.sequences.items():
        assert (len(sequences), sequences.file_steps, sequences.dim) == source[name].shape
        assert sequences.dtype == source[name].dtype
        assert sequences.lengths.tolist() == [1, 2, 3, 4, 5, 6]
        assert sequences.starts.tolist() == [7, 6, 5, 4, 3, 2]
        for index in range(6):
            steps = sequences.steps(index)
            assert steps.dtype == np.float32
            np.testing.assert_array_equal(steps, source[name][index, 7 - index :].astype("f4"))
            np.testing.assert_array_equal(sequences.original(index), source[name][index].astype("f4"))
    assert set(split.labels) == {"classification_labels", "regression_labels"}
    np.testing.assert_array_equal(split.labels["regression_labels"][:, 0], source["regression_labels"])
    assert split.labels["classification_labels"].dtype == np.float64


@pytest.mark.parametrize(
    "form",
    [
        list,  # list of arrays
        lambda array: array.tolist(),
        lambda array: objects(list(array)),
        lambda array: array.astype(object),
        lambda array: [[step.tolist() for step in sample] for sample in array],
        np.asfortranarray,
        lambda array: array.astype(">f8"),
        lambda array: array.astype("f2"),
    ],
    ids=["list", "lists", "objects", "object array", "lists of lists", "fortran", "big endian", "float16"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_in_any_form(path, form, protocol):
    tree = mmsa()
    whole = tree["train"]["audio"].astype("f2").astype("f8")
    tree["train"]["audio"] = form(whole)
    audio = read_corpus(save(path, tree, protocol)).splits["train"].sequences["audio"]
    assert (len(audio), audio.file_steps, audio.dim) == (6, 8, 3)
    for index in range(6):
        np.testing.assert_array_equal(audio.original(index), whole[index].astype("f4"))


def test_unaligned_lengths_from_the_file_win(path):
    tree = {}
    for name, count in SIZES.items():
        lengths = [4] * count
        audio = features(count, 20, 3, lengths, side="post")
        audio[0, 0] = audio[0, 3] = 0  # real steps that are all zero at both ends
        vision = features(count, 15, 2, [7] * count, side="post")
        vision[1] = 0
        mask = np.zeros((count, 3, 8), dtype="i8")
        mask[:, 0] = 101
        mask[:, 1, :5] = 1
        tree[name] = mmsa_split(
            name,
            count,
            text=features(count, 8, 5),
            text_bert=mask,
            audio=audio,
            vision=vision,
            audio_lengths=lengths,
            vision_lengths=np.array([7] * count),
        )
    data = read_corpus(save(path, tree))
    assert not data.aligned
    sequences = data.splits["train"].sequences
    assert sequences["audio"].lengths.tolist() == [4] * 6
    assert sequences["audio"].starts.tolist() == [0] * 6
    assert sequences["vision"].lengths.tolist() == [7, 0, 7, 7, 7, 7]
    assert sequences["text"].lengths.tolist() == [5] * 6
    assert sequences["text"].steps(0).shape == (5, 5)
    assert any("text_bert" in note for note in data.notes)


def test_text_bert_with_another_number_of_steps_is_noted_and_unused(path):
    tree = mmsa()
    for name, count in SIZES.items():
        tree[name]["text_bert"] = np.ones((count, 3, 11), "f4")
    data = read_corpus(save(path, tree))
    assert data.splits["train"].sequences["text"].lengths.tolist() == [1, 2, 3, 4, 5, 6]
    assert any("not used" in note for note in data.notes)


def test_sims_labels_by_modality(path):
    tree = mmsa()
    for name, count in SIZES.items():
        for letter in "TAV":
            tree[name][f"regression_labels_{letter}"] = np.full(count, 0.5)
    labels = read_corpus(save(path, tree)).splits["test"].labels
    assert {f"regression_labels_{letter}" for letter in "TAV"} < set(labels)


def test_extra_modalities_under_any_name(path):
    tree = mmsa()
    for name, count in SIZES.items():
        tree[name]["eye gaze"] = features(count, 8, 4)
        tree[name]["matrix"] = np.ones((count, 4))  # not (N, T, D)
        tree[name]["words"] = [["a"], ["b", "c"]] * count
    data = read_corpus(save(path, tree))
    assert set(data.splits["train"].sequences) == {"text", "audio", "vision", "eye gaze"}


def test_modalities_asked_for(path):
    save(path, mmsa())
    data = read_corpus(path, ["vision", "text"])
    assert list(data.splits["train"].sequences) == ["vision", "text"]
    with pytest.raises(DataFormatError, match="did you mean 'vision'"):
        read_corpus(path, ["visin"])
    for wrong in ([], ["text", "text"]):
        with pytest.raises(ConfigurationError):
            read_corpus(path, wrong)


def test_spans_do_not_depend_on_the_choice_of_modalities(path):
    tree = mmsa()
    tree["train"]["audio"][3] = 0
    tree["train"]["audio"][4, :6] = 0
    save(path, tree)
    whole = read_corpus(path).splits["train"].sequences["audio"]
    alone = read_corpus(path, ["audio"]).splits["train"].sequences["audio"]
    assert whole.lengths.tolist() == alone.lengths.tolist() == [1, 2, 3, 0, 5, 6]


def test_file_with_only_unlabelled_test(path):
    split = mmsa_split("test", 4)
    for key in ("regression_labels", "classification_labels", "annotations"):
        del split[key]
    data = read_corpus(save(path, {"test": split}))
    assert list(data.splits) == ["test"]
    assert data.splits["test"].labels == {}


def test_other_names_of_valid_and_missing_ids(path):
    tree = mmsa()
    tree["dev"] = tree.pop("valid")
    for split in tree.values():
        del split["id"]
    data = read_corpus(save(path, tree))
    assert data.splits["valid"].ids == ("valid_0", "valid_1", "valid_2")
    assert not data.splits["valid"].has_ids
    assert any("'dev'" in note for note in data.notes)


def test_missing_labels_are_nan(path):
    tree = mmsa()
    tree["train"]["regression_labels"] = [1.0, None, 0.5, "", float("nan"), -1]
    labels = read_corpus(save(path, tree)).splits["train"].labels["regression_labels"]
    np.testing.assert_array_equal(labels[:, 0], [1, np.nan, 0.5, np.nan, np.nan, -1])


def test_float64_beyond_float32_becomes_infinite_without_a_warning(path, recwarn):
    tree = mmsa()
    tree["train"]["audio"][5, 7] = 1e300
    audio = read_corpus(save(path, tree)).splits["train"].sequences["audio"]
    assert np.isposinf(audio.steps(5)[-1]).all()
    assert not recwarn.list


# ------------------------------------------------------------------------------------------------ MulT


def mult(labels, dims=None, ids=None, steps=None):
    tree = {}
    for name, count in SIZES.items():
        found = {
            key: features(count, (steps or {}).get(key, 8), dim, [3] * count)
            for key, dim in (dims or {"text": 300, "audio": 4, "vision": 3}).items()
        }
        tree[name] = found | {"labels": labels(count)}
        if ids is not None:
            tree[name]["id"] = ids(name, count)
    return tree


def test_mult_sentiment(path):
    tree = mult(lambda count: RNG.normal(size=(count, 1, 1)))
    data = read_corpus(save(path, tree, protocol=2))
    assert (data.format, data.aligned) == ("mult", True)
    np.testing.assert_array_equal(data.splits["test"].labels["labels"], tree["test"]["labels"][:, :, 0])
    assert not data.splits["test"].has_ids


def test_mult_iemocap(path):
    classes = {}

    def one_hot(count):
        classes[count] = RNG.integers(0, 2, size=(count, 4))
        return np.eye(2, dtype="i8")[classes[count]]

    data = read_corpus(save(path, mult(one_hot)))
    np.testing.assert_array_equal(data.splits["train"].labels["labels"], classes[6])


def test_mult_binary_and_list_labels(path):
    data = read_corpus(save(path, mult(lambda count: [[index % 2] for index in range(count)])))
    assert data.splits["valid"].labels["labels"].tolist() == [[0], [1], [0]]


def test_mult_noalign_and_extra_modality(path):
    tree = mult(
        lambda count: np.zeros((count, 1, 1)), {"text": 5, "timing": 4, "vision": 2}, steps={"text": 9, "vision": 30}
    )
    data = read_corpus(save(path, tree))
    assert not data.aligned
    sequences = data.splits["train"].sequences
    assert {name: found.file_steps for name, found in sequences.items()} == {"text": 9, "timing": 8, "vision": 30}
    assert sequences["vision"].starts.tolist() == [27] * 6


def test_mult_ids_of_three_parts(path):
    tree = mult(
        lambda count: np.zeros((count, 1, 1)),
        ids=lambda name, count: np.array([[f"{name}_x", f"{index}.5", f"{index + 1}"] for index in range(count)], "S"),
    )
    assert read_corpus(save(path, tree)).splits["valid"].ids[1] == "valid_x_1.5_2"


def test_mult_ids_that_repeat_are_numbered(path):
    tree = mult(
        lambda count: np.zeros((count, 1, 1)),
        ids=lambda name, count: np.array([[b"vid", b"", b""]] * count),
    )
    data = read_corpus(save(path, tree))
    names = [name for split in data.splits.values() for name in split.ids]
    assert names == [f"vid#{index}" for index in range(13)]  # through all splits: no name is in two
    assert any("numbered" in note for note in data.notes)


def test_mult_empty_ids_are_made_up(path):
    tree = mult(lambda count: np.zeros((count, 1, 1)), ids=lambda name, count: np.array([b""] * count))
    split = read_corpus(save(path, tree)).splits["test"]
    assert split.ids[0] == "test_0"
    assert not split.has_ids


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.arange(3.0), [[0], [1], [2]]),
        (np.arange(3.0).reshape(3, 1, 1), [[0], [1], [2]]),
        (np.arange(6.0).reshape(3, 2), [[0, 1], [2, 3], [4, 5]]),
        (np.arange(9.0).reshape(3, 1, 3), [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (np.array([[[0, 1], [1, 0]]] * 3), [[1, 0]] * 3),
        (np.array([[[np.nan, 1]]] * 3), [[np.nan]] * 3),
        ([True, False, True], [[1], [0], [1]]),
    ],
)
def test_label_shapes(labels, expected):
    np.testing.assert_array_equal(label_array(labels, 3, "x"), expected)


# ------------------------------------------------------------------------------------------------- MFN


def mfn_folder(folder, modalities=None, labels=lambda count: np.ones(count), dataset="d1"):
    folder.mkdir()
    arrays = {}
    for name, count in SIZES.items():
        for modality, dim in (modalities or {"text": 300, "audio": 74, "video": 36}).items():
            file = f"text_{name}_emb.h5" if modality == "text" else f"{modality}_{name}.h5"
            arrays[name, modality] = features(count, 20, dim, [5] * count, dtype="f8")
            with h5py.File(folder / file, "w") as opened:
                opened[dataset] = arrays[name, modality]
        with h5py.File(folder / f"y_{name}.h5", "w") as opened:
            opened[dataset] = labels(count)
    return arrays


def test_mfn_folder(tmp_path):
    arrays = mfn_folder(tmp_path / "mmmo")
    data = read_corpus(tmp_path / "mmmo")
    assert (data.format, data.aligned) == ("mfn", True)
    assert {name: found.dim for name, found in data.splits["train"].sequences.items()} == {
        "audio": 74,
        "text": 300,
        "video": 36,
    }
    np.testing.assert_array_equal(
        data.splits["test"].sequences["video"].steps(2), arrays["test", "video"][2, 15:].astype("f4")
    )
    assert data.splits["test"].labels["labels"].shape == (4, 1)
    assert data.splits["test"].ids[3] == "test_3"


def test_mfn_word_numbers_beside_the_features_are_not_a_modality(tmp_path):
    mfn_folder(tmp_path / "m")
    for name, count in SIZES.items():
        with h5py.File(tmp_path / "m" / f"text_{name}.h5", "w") as opened:
            opened["d1"] = np.ones((count, 20))
    assert read_corpus(tmp_path / "m").splits["train"].sequences["text"].dim == 300


def test_mfn_partial_download(tmp_path):
    mfn_folder(tmp_path / "m")
    (tmp_path / "m" / "text_train_emb.h5").unlink()
    data = read_corpus(tmp_path / "m")
    assert set(data.splits["train"].sequences) == {"audio", "video"}
    assert any("text_train_emb.h5" in note for note in data.notes)
    assert set(read_corpus(tmp_path / "m", ["video"]).splits["train"].sequences) == {"video"}
    (tmp_path / "m" / "audio_test.h5").unlink()
    with pytest.raises(DataFormatError) as caught:
        read_corpus(tmp_path / "m", ["text", "audio", "video"])
    assert "text_train_emb.h5" in str(caught.value)
    assert "audio_test.h5" in str(caught.value)
    assert "text_valid_emb.h5" not in str(caught.value)


def test_mfn_without_any_text_names_every_file(tmp_path):
    mfn_folder(tmp_path / "pom", {"audio": 43, "video": 41}, lambda count: np.ones((count, 17)))
    with pytest.raises(DataFormatError, match=r"text_train_emb\.h5, text_valid_emb\.h5, text_test_emb\.h5"):
        read_corpus(tmp_path / "pom", ["text", "audio"])
    assert any("no files of text" in note for note in read_corpus(tmp_path / "pom").notes)


@pytest.mark.parametrize(("dim", "names"), [(325, {"text": 300, "audio": 5, "video": 20}), (99, {"features": 99})])
def test_mfn_modalities_side_by_side(tmp_path, dim, names):
    arrays = mfn_folder(tmp_path / "mosi", {"X": dim}, dataset="data")
    data = read_corpus(tmp_path / "mosi")
    sequences = data.splits["train"].sequences
    assert {name: found.dim for name, found in sequences.items()} == names
    joined = np.concatenate([sequences[name].steps(0) for name in names], axis=1)
    np.testing.assert_array_equal(joined, arrays["train", "X"][0, 15:].astype("f4"))
    assert data.notes


def test_mfn_unlabelled_single_split(tmp_path):
    mfn_folder(tmp_path / "m")
    for file in (tmp_path / "m").iterdir():
        if "test" not in file.name or file.name.startswith("y"):
            file.unlink()
    data = read_corpus(tmp_path / "m")
    assert list(data.splits) == ["test"]
    assert data.splits["test"].labels == {}


# ------------------------------------------------------------------------------- any corpus, any process


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


def _sum_in_child(sequences, queue):
    queue.put([float(np.nansum(sequences.steps(index))) for index in range(len(sequences))])


@pytest.mark.parametrize("as_list", [False, True])
def test_workers_started_by_spawn_map_the_file_again(path, as_list):
    tree = mmsa(steps=100)
    if as_list:
        tree["train"]["audio"] = list(tree["train"]["audio"])
    audio = read_corpus(save(path, tree)).splits["train"].sequences["audio"]
    state = pickle.dumps(audio)
    assert len(state) < tree["train"]["text"].nbytes  # a place in the file, not its numbers
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_sum_in_child, args=(audio, queue))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    assert found == [float(np.nansum(audio.steps(index))) for index in range(6)]


def test_a_file_that_changed_under_a_worker_is_noticed(path):
    audio = read_corpus(save(path, mmsa(steps=100))).splits["train"].sequences["audio"]
    state = audio.rows.__getstate__()
    path.unlink()
    path.write_bytes(b"x" * 100)
    with pytest.raises(DataFormatError, match="changed"):
        audio.rows.__setstate__(state)


def test_memory_of_the_map_is_given_back(path, monkeypatch):
    monkeypatch.setattr(padded_module, "RELEASE_BYTES", 10_000)
    tree = mmsa(steps=200)
    audio = read_corpus(save(path, tree)).splits["train"].sequences["audio"]
    assert mapping_of(audio.rows._rows) is not None
    for index in range(6):
        np.testing.assert_array_equal(audio.original(index), tree["train"]["audio"][index].astype("f4"))


# --------------------------------------------------------------------------------------------- fingerprints


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


# -------------------------------------------------------------------------------------------------- bad input


def broken(**changes):
    tree = mmsa()
    tree["train"] |= changes
    return tree


BAD_TREES = {
    "list": ([1, 2], "list of 2"),
    "no splits": ({"a": {}}, "no split named"),
    "empty": ({}, "holds nothing"),
    "split is a list": ({"train": [1]}, "split 'train' is list"),
    "split twice": ({"valid": {}, "dev": {}}, "twice"),
    "no modality": ({"train": {"labels": np.ones(3)}}, "no modality"),
    "unequal N": (broken(audio=features(5, 8, 3)), "differ in their number"),
    "two-dimensional": (broken(audio=np.ones((6, 3))), "expected (N, T, D)"),
    "text for numbers": (broken(text=[["a"]] * 6), "expected (N, T, D)"),
    "T differs": (broken(audio=[np.ones((8 - i % 2, 3)) for i in range(6)]), "sample 1 has shape (7, 3)"),
    "D differs in lists": (broken(audio=[[[1.0, 2.0], [3.0]]] * 6), "steps differ in D"),
    "D differs between splits": (broken(audio=features(6, 8, 4)), "another dimension"),
    "labels of another N": (broken(regression_labels=np.ones(5)), "for 6 samples"),
    "labels of four axes": (broken(regression_labels=np.ones((6, 2, 3, 4))), "expected (N,)"),
    "labels of two long axes": (broken(regression_labels=np.ones((6, 2, 3))), "expected (N,)"),
    "labels of text": (broken(regression_labels=["good"] * 6), "expected numbers"),
    "one label": (broken(regression_labels=1.0), "for 6 samples"),
    "ids of another N": (broken(id=["a"]), "1 entries for 6 samples"),
    "ids are a number": (broken(id=3), "expected 6 texts"),
    "lengths beyond T": (broken(audio_lengths=[9] * 6), "says 9 steps for sample 0, but the array has room for 8"),
    "lengths below 0": (broken(audio_lengths=[-1] * 6), "-1 steps"),
    "lengths of halves": (broken(audio_lengths=[1.5] * 6), "1.5 steps"),
    "lengths of another N": (broken(audio_lengths=[1] * 5), "5 entries for 6"),
    "text_bert of another shape": (broken(text_bert=np.ones((6, 2, 8))), "expected (6, 3, T)"),
    "huge integers": (broken(regression_labels=[10**400] * 6), "expected numbers"),
}


@pytest.mark.parametrize("case", BAD_TREES)
def test_bad_trees_end_in_one_sentence(path, case):
    tree, words = BAD_TREES[case]
    with pytest.raises(DataFormatError) as caught:
        read_corpus(save(path, tree))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_modality_missing_in_one_split(path):
    tree = mmsa()
    del tree["valid"]["audio"]
    save(path, tree)
    assert any("audio is left out" in note for note in read_corpus(path).notes)
    with pytest.raises(DataFormatError, match="no 'audio' in split valid"):
        read_corpus(path, ["audio"])


def test_misshapen_extra_array_is_ignored_unless_asked_for(path):
    tree = broken(gaze=[[[1.0], [2.0, 3.0]]] * 6)
    save(path, tree)
    assert any("gaze" in note for note in read_corpus(path).notes)
    with pytest.raises(DataFormatError, match="gaze"):
        read_corpus(path, ["gaze"])


def h5(file, **content):
    with h5py.File(file, "w") as opened:
        for key, value in content.items():
            opened[key] = value


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda p: None, CorpusNotFoundError, "does not exist"),
        (lambda p: p.write_bytes(b""), DataFormatError, "is empty"),
        (lambda p: p.mkdir(), DataFormatError, "not a folder of MFN files"),
        (lambda p: p.write_text("video,label\n"), DataFormatError, "not a readable pickle"),
        (lambda p: p.write_bytes(pickle.dumps(mmsa())[:-100]), DataFormatError, "ends too early"),
        (lambda p: p.write_bytes(pickle.dumps({"train": os.getcwd})), UnsafePickleError, "getcwd"),
        (lambda p: h5(p, d1=np.ones((3, 20, 5))), DataFormatError, "give the folder"),
        (lambda p: h5(p, **{"x/data/v": 1.0, "x/metadata/k": 1.0}), DataFormatError, "computational sequence"),
        (lambda p: h5(p, other=1.0), DataFormatError, "not a store"),
        (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\nxxxx"), DataFormatError, "damaged"),
    ],
)
def test_bad_files_end_in_one_sentence(tmp_path, make, error, words):
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(error, match=words) as caught:
        read_corpus(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("audio_train.h5", b"nonsense", "not a readable HDF5"),
        ("audio_train.h5", {"a": np.ones(3), "b": np.ones(3)}, "expected one"),
        ("audio_train.h5", {"d1": np.ones((6, 20))}, "expected .N, T, D"),
        ("audio_train.h5", {"d1": np.ones((5, 20, 74))}, "differ in their number"),
        ("y_train.h5", {"d1": np.ones(5)}, "for 6 samples"),
        ("y_train.h5", {"d1": np.array([b"good"] * 6)}, "array of numbers"),
    ],
)
def test_bad_mfn_files_end_in_one_sentence(tmp_path, file, content, words):
    mfn_folder(tmp_path / "m")
    (tmp_path / "m" / file).unlink()
    if isinstance(content, bytes):
        (tmp_path / "m" / file).write_bytes(content)
    else:
        h5(tmp_path / "m" / file, **content)
    with pytest.raises(DataFormatError, match=words) as caught:
        read_corpus(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_damaged_files_give_records_or_one_of_our_errors(path):
    tree = {"train": mmsa_split("train", 2, steps=2), "valid": mmsa_split("valid", 1, steps=2)}
    clean = pickle.dumps(tree, protocol=2)
    generator = np.random.default_rng(1)
    read = 0
    for _ in range(300):
        data = bytearray(clean)
        for place in generator.integers(0, len(data), size=3):
            data[place] = generator.integers(256)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            for split in read_corpus(path).splits.values():
                for sequences in split.sequences.values():
                    assert sequences.lengths.max(initial=0) <= sequences.file_steps
            read += 1
        except MFMError:
            continue
    assert read


# --------------------------------------------------------------------------------------------------- real files


@pytest.fixture
def real():
    folder = os.environ.get("MFM_DATA")
    if not folder:
        pytest.skip("MFM_DATA is not set")
    return Path(folder)


@pytest.mark.realdata
def test_real_context_aligned(real):
    data = read_corpus(real / "mosi/context_aligned_10.pkl")
    assert [len(split) for split in data.splits.values()] == [1228, 219, 752]
    assert {name: found.dim for name, found in data.splits["test"].sequences.items()} == {
        "text": 100,
        "audio": 73,
        "vision": 100,
    }
    # the last ten utterances of a video up to this one
    place = [int(name.split("$_$")[1]) for name in data.splits["test"].ids]
    np.testing.assert_array_equal(data.splits["test"].sequences["text"].lengths, np.minimum(place, 10))


@pytest.mark.realdata
def test_real_words(real):
    data = read_corpus(real / "mosi/words_50.pkl")
    assert [len(split) for split in data.splits.values()] == [1284, 229, 686]
    assert data.format == "mult"
    assert set(data.splits["train"].sequences) == {"text", "timing"}
    assert len({name for split in data.splits.values() for name in split.ids}) == 2199


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "sizes", "dims", "columns"),
    [
        ("mmmo", [220, 40, 80], {"audio": 74, "video": 36}, 1),
        ("youtube", [173, 36, 60], {"audio": 74, "video": 36}, 3),
        ("pom", [600, 100, 203], {"audio": 43, "video": 41}, 17),
    ],
)
def test_real_mfn(real, name, sizes, dims, columns):
    data = read_corpus(real / "mfn" / name)
    assert [len(split) for split in data.splits.values()] == sizes
    assert {key: found.dim for key, found in data.splits["train"].sequences.items()} == dims
    assert data.splits["train"].labels["labels"].shape == (sizes[0], columns)
    with pytest.raises(DataFormatError, match=r"text_train_emb\.h5"):
        read_corpus(real / "mfn" / name, ["text", "audio", "video"])
