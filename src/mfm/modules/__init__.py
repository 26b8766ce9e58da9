"""LightningModules."""

from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.mfm import MFMModule
from mfm.modules.variants import AblationModule

__all__ = ["AblationModule", "AffectModule", "MFMModule", "Prediction", "StepOutput"]
