"""The published files under $MFM_DATA go through the data module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfm.datamodules import AffectDataModule, MMMODataModule, MOSIDataModule, POMDataModule, YouTubeDataModule
from mfm.errors import DataFormatError

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif("MFM_DATA" not in os.environ, reason="MFM_DATA is not set"),
]


def data(name: str) -> str:
    return str(Path(os.environ["MFM_DATA"]) / name)


@pytest.mark.parametrize(
    ("klass", "path", "options", "sizes", "dims"),
    [
        (
            MOSIDataModule,
            "mosi/context_aligned_10.pkl",
            {},
            (1228, 219, 752),
            {"audio": 73, "text": 100, "vision": 100},
        ),
        (MOSIDataModule, "mosi/words_50.pkl", {}, (1284, 229, 686), {"text": 50, "timing": 4}),
        (MMMODataModule, "mfn/mmmo", {"modalities": ["audio", "video"]}, (220, 40, 80), {"audio": 74, "video": 36}),
        (YouTubeDataModule, "mfn/youtube", {}, (173, 36, 60), {"audio": 74, "video": 36}),
        (POMDataModule, "mfn/pom", {"modalities": ["audio", "video"]}, (600, 100, 203), {"audio": 43, "video": 41}),
    ],
)
def test_published_files(
    klass: type[AffectDataModule], path: str, options: dict[str, Any], sizes: tuple[int, ...], dims: dict[str, int]
) -> None:
    module = klass(data(path), **options)
    module.setup("fit")
    module.setup("test")
    assert module.feature_dims == dims
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    assert tuple(sum(len(batch.ids) for batch in loader) for loader in loaders) == sizes
    assert module.statistics is not None
    for found in module.statistics.values():
        assert np.isfinite(found.mean).all()
        assert (found.std > 0).all()
    assert all(batch.target_mask.all() for batch in module.test_dataloader())


def test_missing_text_is_named() -> None:
    with pytest.raises(DataFormatError, match="text_train_emb"):
        MMMODataModule(data("mfn/mmmo"), modalities=["text", "audio"])
