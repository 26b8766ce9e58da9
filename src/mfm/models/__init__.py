"""Models in pure torch."""

from mfm.models.decoders import DECODERS
from mfm.models.encoders import ENCODERS
from mfm.models.fusion import FUSIONS
from mfm.models.mfm import MFM, Codes, Factors, MFMOutput
from mfm.models.normalization import Normalizer

__all__ = ["DECODERS", "ENCODERS", "FUSIONS", "MFM", "Codes", "Factors", "MFMOutput", "Normalizer"]
