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
from mfm.datamodules.digits import DigitsDataModule

__all__ = [
    "AffectDataModule",
    "DigitsDataModule",
    "IEMOCAPDataModule",
    "MMMODataModule",
    "MOSEIDataModule",
    "MOSIDataModule",
    "MOUDDataModule",
    "POMDataModule",
    "SIMSDataModule",
    "YouTubeDataModule",
]
