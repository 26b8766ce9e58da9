"""Files written whole or not at all, and in pieces."""

from __future__ import annotations

import io

import pytest

from mfm import files


class Recorder(io.BytesIO):
    """Bytes in memory that remember how many came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        self.sizes.append(len(data))
        return super().write(data)


@pytest.mark.parametrize(("size", "pieces"), [(0, []), (5, [5]), (8, [8]), (19, [8, 8, 3])])
def test_pieces_make_up_the_whole(monkeypatch: pytest.MonkeyPatch, size: int, pieces: list[int]) -> None:
    monkeypatch.setattr(files, "_PIECE", 8)
    data = bytes(range(size))
    for given in (data, memoryview(data)):
        file = Recorder()
        assert files.write_pieces(file, given) == size
        assert file.getvalue() == data
        assert file.sizes == pieces
