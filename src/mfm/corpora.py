"""What is known of each corpus, in one place.

A `Corpus` record is used by the readers (to recognise a file), the data modules (which labels to
take), the metrics (which conventions apply), the tests of the shipped configs (which structure to
generate) and the documentation. Importing this module costs nothing: it has no dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mfm.errors import ConfigurationError, nearest

Task = Literal["regression", "binary", "multiclass", "multilabel"]


@dataclass(frozen=True)
class KnownFile:
    """One published file of a corpus, so that `mfm data inspect` can recognise it.

    Attributes:
        name: File (or folder) name as published.
        format: Reader that reads it: `mmsa`, `mult` or `mfn`.
        sizes: Number of samples of train, valid and test.
        dims: Feature dimension of each modality.
        sha256: Hash of the whole file where it is known.
    """

    name: str
    format: Literal["mmsa", "mult", "mfn"]
    sizes: tuple[int, int, int]
    dims: dict[str, int]
    sha256: str | None = None


@dataclass(frozen=True)
class Corpus:
    """What is known of one corpus.

    Attributes:
        name: Short name, as in `--data.corpus`.
        title: Name in print.
        task: Kind of prediction. `regression`: one float a target. `binary`: one 0/1 label.
            `multiclass`: one of `classes`. `multilabel`: a 0/1 label for each target.
        targets: Names of the outputs in order; one entry for `binary` and `multiclass`.
        convention: Which metric definitions apply: a name in `mfm.metrics.CONVENTIONS`.
        monitor: Validation metric for model selection and early stopping, e.g. `val/mae`.
        mode: `min` or `max` of `monitor`.
        label_keys: Names under which the label array is looked for in a file, best first.
        classes: Class names of a `multiclass` corpus in order.
        columns: Columns of the file's label array to keep, when it has more than `targets`.
        label_range: Smallest and largest possible label of a regression corpus.
        threshold: Convention `threshold`: a label is positive when it is greater than this.
        files: Published files.
        citation: Paper to cite.
        obtain: How researchers get the file.
    """

    name: str
    title: str
    task: Task
    targets: tuple[str, ...]
    convention: str
    monitor: str
    mode: Literal["min", "max"]
    label_keys: tuple[str, ...] = ("labels",)
    classes: tuple[str, ...] = ()
    columns: tuple[int, ...] | None = None
    label_range: tuple[float, float] | None = None
    threshold: float | None = None
    files: tuple[KnownFile, ...] = field(default=())
    citation: str = ""
    obtain: str = ""

    @property
    def output_dim(self) -> int:
        """Width of the prediction head: classes for `multiclass`, targets otherwise."""
        return len(self.classes) if self.task == "multiclass" else len(self.targets)


CORPORA: dict[str, Corpus] = {}


def register(corpus: Corpus) -> Corpus:
    """Make a corpus known by its name; a second record of one name is refused."""
    if corpus.name in CORPORA and CORPORA[corpus.name] != corpus:
        raise ConfigurationError(f"corpus {corpus.name!r} is registered already; choose another name")
    CORPORA[corpus.name] = corpus
    return corpus


def get_corpus(name: str) -> Corpus:
    """Look a corpus up by name.

    Raises:
        ConfigurationError: No corpus of that name; the nearest one is named.
    """
    if name not in CORPORA:
        raise ConfigurationError(f"unknown corpus {name!r}: {nearest(name, CORPORA)}")
    return CORPORA[name]


_MMSA = (
    "download the MMSA feature files from the link in the README of github.com/thuiar/MMSA "
    "(folder {folder}) and give the file with --data.path"
)
_MULT = (
    "download the processed files linked from github.com/yaohungt/Multimodal-Transformer "
    "(or MultiBench) and give the file with --data.path"
)
_MFN = (
    "download the folder of .h5 files from the data links of github.com/pliang279/MFN and give the folder "
    "with --data.path"
)
_SENTIMENT = ("regression_labels", "labels")

MOSI = register(
    Corpus(
        name="mosi",
        title="CMU-MOSI",
        task="regression",
        targets=("sentiment",),
        convention="mosi",
        monitor="val/mae",
        mode="min",
        label_keys=_SENTIMENT,
        label_range=(-3.0, 3.0),
        files=(
            KnownFile(
                "aligned_50.pkl",
                "mmsa",
                (1284, 229, 686),
                {"text": 768, "audio": 5, "vision": 20},
                "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
            ),
            KnownFile(
                "unaligned_50.pkl",
                "mmsa",
                (1284, 229, 686),
                {"text": 768, "audio": 5, "vision": 20},
                "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
            ),
        ),
        citation="Zadeh, Zellers, Pincus, Morency: MOSI, 2016, arXiv 1606.06259",
        obtain=_MMSA.format(folder="MOSI/Processed"),
    )
)

MOSEI = register(
    Corpus(
        name="mosei",
        title="CMU-MOSEI",
        task="regression",
        targets=("sentiment",),
        convention="mosei",
        monitor="val/mae",
        mode="min",
        label_keys=_SENTIMENT,
        label_range=(-3.0, 3.0),
        files=(
            KnownFile(
                "aligned_50.pkl",
                "mmsa",
                (16326, 1871, 4659),
                {"text": 768, "audio": 74, "vision": 35},
                "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
            ),
            KnownFile(
                "unaligned_50.pkl",
                "mmsa",
                (16326, 1871, 4659),
                {"text": 768, "audio": 74, "vision": 35},
                "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
            ),
        ),
        citation="Zadeh, Liang, Poria, Cambria, Morency: Multimodal Language Analysis in the Wild, ACL 2018",
        obtain=_MMSA.format(folder="MOSEI/Processed"),
    )
)

SIMS = register(
    Corpus(
        name="sims",
        title="CH-SIMS",
        task="regression",
        targets=("sentiment",),
        convention="sims",
        monitor="val/mae",
        mode="min",
        label_keys=_SENTIMENT,
        label_range=(-1.0, 1.0),
        files=(
            KnownFile(
                "unaligned_39.pkl",
                "mmsa",
                (1368, 456, 457),
                {"text": 768, "audio": 33, "vision": 709},
                "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f",
            ),
        ),
        citation="Yu, Xu, Meng, Zhu, Ma, Wu, Zou, Yang: CH-SIMS, ACL 2020",
        obtain=_MMSA.format(folder="SIMS/Processed"),
    )
)

IEMOCAP = register(
    Corpus(
        name="iemocap",
        title="IEMOCAP",
        task="multilabel",
        targets=("neutral", "happy", "sad", "angry"),
        convention="emotions",
        monitor="val/f1_mean",
        mode="max",
        files=(KnownFile("iemocap_data.pkl", "mult", (2717, 798, 938), {"text": 300, "audio": 74, "vision": 35}),),
        citation="Busso et al.: IEMOCAP: Interactive emotional dyadic motion capture database, 2008",
        obtain=_MULT,
    )
)

POM = register(
    Corpus(
        name="pom",
        title="POM",
        task="regression",
        targets=(
            "confident",
            "passionate",
            "voice_pleasant",
            "dominant",
            "credible",
            "vivid",
            "expertise",
            "entertaining",
            "reserved",
            "trusting",
            "relaxed",
            "outgoing",
            "thorough",
            "nervous",
            "persuasive",
            "humorous",
        ),
        convention="traits",
        monitor="val/mae_mean",
        mode="min",
        columns=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16),
        label_range=(1.0, 7.0),
        files=(KnownFile("pom", "mfn", (600, 100, 203), {"text": 300, "audio": 43, "video": 41}),),
        citation="Park, Shim, Chatterjee, Sagae, Morency: Computational Analysis of Persuasiveness, ICMI 2014",
        obtain=_MFN,
    )
)

MMMO = register(
    Corpus(
        name="mmmo",
        title="ICT-MMMO",
        task="regression",
        targets=("sentiment",),
        convention="threshold",
        threshold=3.5,
        monitor="val/mae",
        mode="min",
        label_range=(1.0, 5.0),
        files=(KnownFile("mmmo", "mfn", (220, 40, 80), {"text": 300, "audio": 74, "video": 36}),),
        citation="Wollmer et al.: YouTube Movie Reviews: Sentiment Analysis in an Audio-Visual Context, 2013",
        obtain=_MFN,
    )
)

YOUTUBE = register(
    Corpus(
        name="youtube",
        title="YouTube",
        task="multiclass",
        targets=("sentiment",),
        classes=("negative", "neutral", "positive"),
        convention="classes",
        monitor="val/acc",
        mode="max",
        files=(KnownFile("youtube", "mfn", (173, 36, 60), {"text": 300, "audio": 74, "video": 36}),),
        citation="Morency, Mihalcea, Doshi: Towards Multimodal Sentiment Analysis, ICMI 2011",
        obtain=_MFN,
    )
)

MOUD = register(
    Corpus(
        name="moud",
        title="MOUD",
        task="multiclass",
        targets=("sentiment",),
        classes=("negative", "positive"),
        convention="classes",
        monitor="val/acc",
        mode="max",
        citation="Perez-Rosas, Mihalcea, Morency: Utterance-Level Multimodal Sentiment Analysis, ACL 2013",
        obtain=_MFN,
    )
)

UR_FUNNY = register(
    Corpus(
        name="ur_funny",
        title="UR-FUNNY",
        task="binary",
        targets=("humour",),
        convention="classes",
        monitor="val/acc",
        mode="max",
        citation="Hasan et al.: UR-FUNNY: A Multimodal Language Dataset for Understanding Humor, EMNLP 2019",
        obtain=_MULT,
    )
)

MUSTARD = register(
    Corpus(
        name="mustard",
        title="MUStARD",
        task="binary",
        targets=("sarcasm",),
        convention="classes",
        monitor="val/acc",
        mode="max",
        citation="Castro et al.: Towards Multimodal Sarcasm Detection, ACL 2019",
        obtain=_MULT,
    )
)

DIGITS = register(
    Corpus(
        name="digits",
        title="Paired digits",
        task="multiclass",
        targets=("digit",),
        classes=tuple("0123456789"),
        convention="classes",
        monitor="val/acc",
        mode="max",
        citation="scikit-learn's digits (UCI, 1998), MNIST (LeCun et al., 1998) and SVHN (Netzer et al., 2011)",
        obtain="put MNIST's four idx files and SVHN's train_32x32.mat and test_32x32.mat into one folder and give that "
        "with --data.path",
    )
)
