"""Two images of one digit as a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mfm.data.digits import EMBEDDED, PairedDigits, embedded_digits, is_image_folder, published_digits
from mfm.data.records import CorpusData
from mfm.datamodules.base import AffectDataModule, Normalize
from mfm.datamodules.opening import settle_dims
from mfm.errors import ConfigurationError


class DigitsDataModule(AffectDataModule):
    """Two images of one digit, paired by class (Tsai et al., ICLR 2019: MNIST and SVHN).

    The default needs no file: scikit-learn's digits (`plain`) with other images of the same digit in a rendered style
    (`styled`), whose rotation, colour and texture are known. With a folder of MNIST's idx files and SVHN's
    `train_32x32.mat` and `test_32x32.mat`: modalities `mnist` and `svhn`.

    Args:
        path: Folder, store, or `scikit-learn` for the embedded digits.
        pairs: Partners of each image of the first modality.
        pairing_seed: Seed of splits, partners and styles; not the seed of training, so that runs with different ones
            are tested on the same images.
        normalize: As in `AffectDataModule`; pixels share one deviation by default.
        **kwargs: As of `AffectDataModule`.

    Attributes:
        paired: The pairs and what is known of them; None for a store.
    """

    corpus_default = "digits"

    def __init__(
        self,
        path: str = EMBEDDED,
        pairs: int = 3,
        pairing_seed: int = 0,
        normalize: Normalize = "shared",
        **kwargs: Any,
    ) -> None:
        for name, value, least in (("pairs", pairs, 1), ("pairing_seed", pairing_seed, 0)):
            if value < least:
                raise ConfigurationError(f"--data.{name} is {value}; it must be at least {least}")
        self.pairs, self.pairing_seed = pairs, pairing_seed
        self.paired: PairedDigits | None = None
        super().__init__(path=path, normalize=normalize, **kwargs)

    def _open(
        self, modalities: list[str] | None, feature_dims: dict[str, int] | None
    ) -> tuple[CorpusData, dict[str, int]]:
        """See `AffectDataModule._open`."""
        if self.path == EMBEDDED:
            self.paired = embedded_digits(self.pairs, self.pairing_seed)
        elif Path(self.path).is_dir() and is_image_folder(self.path):
            self.paired = published_digits(self.path, self.pairs, self.pairing_seed)
        else:
            return super()._open(modalities, feature_dims)
        return self.paired.data, settle_dims(self.paired.data, modalities, feature_dims)

    @property
    def fingerprint(self) -> str:
        """See `AffectDataModule.fingerprint`."""
        return super().fingerprint if self.paired is None else self.paired.fingerprint
