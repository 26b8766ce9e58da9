"""Models in pure torch."""

from mfm.models import (  # noqa: F401 - register their networks by name
    ef_lstm,
    graph_mfn,
    lf_dnn,
    lf_lstm,
    lmf,
    mfn_network,
    mult,
    tfn,
)
from mfm.models.decoders import DECODERS
from mfm.models.encoders import ENCODERS
from mfm.models.fusion import FUSIONS
from mfm.models.mfm import MFM, Codes, Factors, MFMOutput
from mfm.models.networks import NETWORKS, Network
from mfm.models.normalization import Normalizer

__all__ = [
    "DECODERS",
    "ENCODERS",
    "FUSIONS",
    "MFM",
    "NETWORKS",
    "Codes",
    "Factors",
    "MFMOutput",
    "Network",
    "Normalizer",
]
