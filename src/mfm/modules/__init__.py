"""LightningModules."""

from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.mfm import MFMModule

__all__ = ["AffectModule", "MFMModule", "Prediction", "StepOutput"]
