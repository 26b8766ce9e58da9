"""What tests of commands share: an empty working directory, a small corpus, and runs on it."""

import shutil
from pathlib import Path

import pytest
from training_runs import fit

from mfm.data.synthetic import write_corpus


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory):
    """A small file with the structure of MMSA's MOSI."""
    path = tmp_path_factory.mktemp("data") / "mosi.pkl"
    write_corpus("mosi", path, samples=(24, 12, 13), seed=3)
    return path


@pytest.fixture(scope="session")
def finished_run(corpus_file, tmp_path_factory):
    """Two epochs of `demo.yaml` on that file; of all tests, so that none may write to it."""
    return fit(corpus_file, run_dir=tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def surrogate_run(corpus_file, tmp_path_factory):
    """The same for one epoch with a surrogate."""
    options = ("--model.surrogate", "joint", "--trainer.max_epochs", "1")
    return fit(corpus_file, *options, run_dir=tmp_path_factory.mktemp("surrogate") / "run")


@pytest.fixture
def run(finished_run, workplace):
    """A copy of the finished run as `run` in the working directory."""
    shutil.copytree(finished_run, "run")
    return Path("run")
