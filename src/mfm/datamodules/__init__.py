"""LightningDataModules: one with everything, one small subclass a corpus."""

from mfm.datamodules.base import AffectDataModule
from mfm.datamodules.corpora import (
    IEMOCAPDataModule,
    MMMODataModule,
    MOSEIDataModule,
    MOSIDataModule,
    MOUDDataModule,
    POMDataModule,
    SIMSDataModule,
    YouTubeDataModule,
)

__all__ = [
    "AffectDataModule",
    "IEMOCAPDataModule",
    "MMMODataModule",
    "MOSEIDataModule",
    "MOSIDataModule",
    "MOUDDataModule",
    "POMDataModule",
    "SIMSDataModule",
    "YouTubeDataModule",
]
