"""MMSA's pickles: steps, lengths, labels and ids, and the published file."""

import numpy as np
import pytest
from small_corpora import SIZES, broken, features, mmsa, mmsa_split, save

from mfm.data.readers import read_corpus
from mfm.errors import ConfigurationError, DataFormatError


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


@pytest.mark.realdata
def test_real_context_aligned(data_root):
    data = read_corpus(data_root / "mosi/context_aligned_10.pkl")
    assert [len(split) for split in data.splits.values()] == [1228, 219, 752]
    assert {name: found.dim for name, found in data.splits["test"].sequences.items()} == {
        "text": 100,
        "audio": 73,
        "vision": 100,
    }
    # the last ten utterances of a video up to this one
    place = [int(name.split("$_$")[1]) for name in data.splits["test"].ids]
    np.testing.assert_array_equal(data.splits["test"].sequences["text"].lengths, np.minimum(place, 10))
