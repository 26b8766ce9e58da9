"""One data module a corpus; all they add is the name of the corpus' record."""

from __future__ import annotations

from mfm.datamodules.base import AffectDataModule


class MOSIDataModule(AffectDataModule):
    """CMU-MOSI: sentiment in [-3, 3] of 2,199 opinion clips (Zadeh et al., 2016, arXiv 1606.06259).

    Files: `aligned_50.pkl` or `unaligned_50.pkl` of MMSA, or a MulT pickle.
    """

    corpus_default = "mosi"


class MOSEIDataModule(AffectDataModule):
    """CMU-MOSEI: sentiment in [-3, 3] of 22,856 clips (Zadeh et al., ACL 2018).

    Files: `aligned_50.pkl` or `unaligned_50.pkl` of MMSA, or a MulT pickle; convert the 4 GB to a store first
    (`mfm data convert`).
    """

    corpus_default = "mosei"


class SIMSDataModule(AffectDataModule):
    """CH-SIMS: sentiment in [-1, 1] of 2,281 Chinese clips (Yu et al., ACL 2020).

    File: `unaligned_39.pkl` of MMSA. `target` may name `regression_labels_T`, `_A` or `_V`, the ratings of one
    modality alone.
    """

    corpus_default = "sims"


class IEMOCAPDataModule(AffectDataModule):
    """IEMOCAP: neutral, happy, sad, angry, each present or absent (Busso et al., 2008).

    File: `iemocap_data.pkl` of MulT.
    """

    corpus_default = "iemocap"


class POMDataModule(AffectDataModule):
    """POM: 16 speaker traits in [1, 7] of 903 film reviews (Park et al., ICMI 2014).

    Folder of .h5 files published with the Memory Fusion Network.
    """

    corpus_default = "pom"


class MMMODataModule(AffectDataModule):
    """ICT-MMMO: sentiment in [1, 5] of 340 film reviews, positive above 3.5 (Woellmer et al., 2013).

    Folder of .h5 files published with the Memory Fusion Network.
    """

    corpus_default = "mmmo"


class YouTubeDataModule(AffectDataModule):
    """YouTube: negative, neutral or positive, 269 clips (Morency et al., ICMI 2011).

    Folder of .h5 files published with the Memory Fusion Network.
    """

    corpus_default = "youtube"


class MOUDDataModule(AffectDataModule):
    """MOUD: negative or positive, Spanish clips (Perez-Rosas et al., ACL 2013).

    Folder of .h5 files in the layout of the Memory Fusion Network.
    """

    corpus_default = "moud"
