"""A source's fingerprint, found while the source is read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mfm.data.readers import fingerprint, fingerprint_meanwhile, registry
from mfm.errors import CorpusNotFoundError


def test_same_as_before_or_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_READ_BYTES", 1000)
    (tmp_path / "a.pkl").write_bytes(bytes(range(256)) * 41)
    with fingerprint_meanwhile(tmp_path / "a.pkl") as found:
        assert found() == fingerprint(tmp_path / "a.pkl")


def test_fault_is_told_where_it_is_asked_for(tmp_path: Path) -> None:
    with fingerprint_meanwhile(tmp_path / "none") as found, pytest.raises(CorpusNotFoundError, match="does not exist"):
        found()


def test_hashing_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    blocks = 0

    def slow(path: Path, progress: Callable[[int, int], None]) -> str:
        nonlocal blocks
        for blocks in range(1000):
            begun.set()
            time.sleep(0.001)
            progress(blocks, 1000)
        return "0" * 64

    monkeypatch.setattr(registry, "fingerprint", slow)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path, begun)
    assert blocks < 900
    assert threading.active_count() == before


def _interrupted(path: Path, begun: threading.Event) -> None:
    with fingerprint_meanwhile(path):
        assert begun.wait(10)
        raise KeyboardInterrupt
