"""Samples out of arrays in any form, and out of a mapped file in any process."""

import multiprocessing
import pickle

import numpy as np
import pytest
from small_corpora import mmsa, objects, save

from mfm.data.readers import padded as padded_module
from mfm.data.readers import read_corpus
from mfm.data.readers.padded import mapping_of
from mfm.errors import DataFormatError


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
