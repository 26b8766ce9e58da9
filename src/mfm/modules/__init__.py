"""LightningModules."""

from mfm.modules.base import AffectModule, Prediction, StepOutput
from mfm.modules.factor_model import FactorModule
from mfm.modules.mfm import MFMModule
from mfm.modules.misa import MISAModule
from mfm.modules.missing_references import DiscriminativeReferenceModule, MissingReferenceModule
from mfm.modules.network import NetworkModule
from mfm.modules.variants import AblationModule

__all__ = [
    "AblationModule",
    "AffectModule",
    "DiscriminativeReferenceModule",
    "FactorModule",
    "MFMModule",
    "MISAModule",
    "MissingReferenceModule",
    "NetworkModule",
    "Prediction",
    "StepOutput",
]
