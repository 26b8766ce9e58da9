"""A small file with the structure of MMSA's MOSI, and the store made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfm.data.readers import read_corpus
from mfm.data.store import write_store
from mfm.data.synthetic import write_mmsa

DIMS = {"text": 6, "audio": 4, "vision": 3}
SAMPLES = (30, 10, 12)


@pytest.fixture(scope="session")
def pickled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_mmsa(tmp_path_factory.mktemp("d") / "a.pkl", "mosi", SAMPLES, dims=DIMS, steps=9))


@pytest.fixture(scope="session")
def stored(pickled: str) -> str:
    path = Path(pickled).with_name("a.h5")
    write_store(read_corpus(pickled), path)
    return str(path)
