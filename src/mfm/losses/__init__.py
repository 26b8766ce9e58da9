"""Losses in pure torch; objectives return named parts."""

from mfm.losses.mmd import KERNELS, mmd
from mfm.losses.objective import LossParts, MFMObjective
from mfm.losses.prediction import PREDICTION_LOSSES, prediction_loss
from mfm.losses.reconstruction import RECONSTRUCTION_LOSSES, reconstruction_loss

__all__ = [
    "KERNELS",
    "PREDICTION_LOSSES",
    "RECONSTRUCTION_LOSSES",
    "LossParts",
    "MFMObjective",
    "mmd",
    "prediction_loss",
    "reconstruction_loss",
]
