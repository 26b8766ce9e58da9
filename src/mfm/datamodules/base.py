"""The data module that every corpus uses."""

from __future__ import annotations

import logging
import warnings
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from mfm.corpora import CORPORA, Corpus, get_corpus
from mfm.data.batch import AffectBatch, draw_absent, without
from mfm.data.collate import collate
from mfm.data.dataset import AffectConcat, AffectDataset, Padding, resolve_max_lengths
from mfm.data.readers import fingerprint
from mfm.data.records import SPLITS, CorpusData, SplitData
from mfm.data.sampling import LengthBucketBatchSampler
from mfm.data.statistics import FeatureStatistics
from mfm.datamodules.opening import check_ids, open_corpus
from mfm.datamodules.options import check_choice, check_missing, check_numbers, missing_rates
from mfm.errors import ConfigurationError, DataFormatError

Normalize = Literal["standard", "shared", "none"]
DuplicateIds = Literal["refuse", "keep"]
PredictSplit = Literal["train", "valid", "test", "all"]
_STAGES = {"validate": "valid", "sanity_check": "valid", "test": "test", "predict": "predict"}


@rank_zero_only
def _report(message: str) -> None:
    logging.getLogger(__name__).info(message)


class AffectDataModule(LightningDataModule):
    """Batches of a corpus' file: a published pickle or folder, or a store written by `mfm data convert`.

    The file's header is read at once; samples are read when they are needed. Statistics for
    normalisation are of the training split only and go to the model, which keeps them in its checkpoint.

    Args:
        path: File or folder. `mfm data inspect PATH` says what is in it.
        corpus: Name of the corpus, which decides labels and metrics. Needed unless the class names one.
        modalities: Modalities to use, under the file's names; all by default.
        batch_size: Samples a batch and process.
        max_lengths: Longest sequence, one number for all modalities or one for each; the first steps are kept.
        num_workers: Processes that read ahead. 0 reads in the main process, which suffices for most corpora.
        normalize: `standard`: features are brought to mean 0 and deviation 1 by statistics of the training split's
            real steps, NaN and infinities left out. `shared`: to mean 0, all features of a modality by one deviation,
            for pixels. `none`: features as they are.
        train_fraction: Part of the training split to use, in (0, 1], drawn by `seed`.
        missing: Modalities taken away at every evaluation (validate, test, predict), e.g. `[text]`. At
            evaluation, the file need not have them.
        missing_rate: Probability in [0, 1) that a training sample loses a modality, one for all or one for each;
            every sample keeps at least one.
        limit: Use only the first so many samples of each split, for trials.
        bucketing: Make training batches of samples of similar length, which saves padding.
        padding: `masked`: real steps only. `original`: all T steps as stored, padding counted as real steps, as
            the authors of MFM did.
        labels: False: take no labels, for purely generative models.
        target: Name of the label array in the file, e.g. `regression_labels_T`; by the corpus by default.
        duplicate_ids: `refuse` a file in which ids occur twice or in two splits, or `keep` them.
        in_memory: Keep each split in memory; by default when it needs less than 256 MB.
        seed: Seed of the order of training samples and of `train_fraction`. Filled in from `--seed_everything` by the
            command line; a value given there is replaced.
        predict_split: Split to predict, or `all` that the file has.
        feature_dims: Features a step of each modality that a trained model expects; checked against the file. Filled in
            from the checkpoint. As an attribute: modality -> D of what is used, sorted.

    Attributes:
        corpus_record: What is known of the corpus.
        corpus_name: Its name.
        corpus_data: What the file holds, its header read and its samples not yet.
        aligned: Whether step t of all modalities is the same moment.
        statistics: After `setup("fit")`: modality -> statistics of the training split; None without normalisation.

    Raises:
        CorpusNotFoundError: Nothing is at `path`; the message says how to get it.
        DataFormatError: The file is damaged or does not fit.
        ConfigurationError: An option cannot be used.
    """

    corpus_default: ClassVar[str | None] = None

    def __init__(
        self,
        path: str,
        corpus: str | None = None,
        modalities: list[str] | None = None,
        batch_size: int = 32,
        max_lengths: int | dict[str, int] | None = None,
        num_workers: int = 0,
        normalize: Normalize = "standard",
        train_fraction: float = 1.0,
        missing: list[str] | None = None,
        missing_rate: float | dict[str, float] = 0.0,
        limit: int | None = None,
        bucketing: bool = True,
        padding: Padding = "masked",
        labels: bool = True,
        target: str | None = None,
        duplicate_ids: DuplicateIds = "refuse",
        in_memory: bool | None = None,
        seed: int = 0,
        predict_split: PredictSplit = "test",
        feature_dims: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        path = str(path)  # a Path in the checkpoint would make it unreadable
        # not logged here: the whole configuration is, and model and data share names
        self.save_hyperparameters(logger=False)
        check_numbers(
            batch_size=batch_size, num_workers=num_workers, train_fraction=train_fraction, limit=limit, seed=seed
        )
        check_choice("normalize", normalize, Normalize)
        check_choice("padding", padding, Padding)
        check_choice("duplicate_ids", duplicate_ids, DuplicateIds)
        check_choice("predict_split", predict_split, PredictSplit)
        self.path, self.batch_size, self.num_workers = path, batch_size, num_workers
        self.normalize, self.train_fraction, self.limit, self.bucketing = normalize, train_fraction, limit, bucketing
        self.padding, self.labels, self.target, self.in_memory = padding, labels, target, in_memory
        self.duplicate_ids, self.seed, self.predict_split = duplicate_ids, seed, predict_split
        self.missing = list(missing or [])
        self.corpus_record = self._record(corpus)
        self.corpus_name = self.corpus_record.name
        self.corpus_data, self.feature_dims = self._open(modalities, feature_dims)
        self.modalities = sorted(self.feature_dims)
        check_missing(self.missing, self.modalities)
        self.missing_rates = missing_rates(missing_rate, self.modalities)
        self.max_lengths = resolve_max_lengths(max_lengths, self.modalities)
        self.aligned = self.corpus_data.aligned
        self.statistics: dict[str, FeatureStatistics] | None = None
        self._datasets: dict[str, AffectDataset | AffectConcat] = {}
        self._fingerprint: str | None = None

    def _open(
        self, modalities: list[str] | None, feature_dims: dict[str, int] | None
    ) -> tuple[CorpusData, dict[str, int]]:
        """What is at `path`, and the dimensions of the modalities in use; for corpora that are no single file."""
        return open_corpus(self.path, self.corpus_record, modalities, self.missing, feature_dims)

    def _record(self, corpus: str | None) -> Corpus:
        known = type(self).corpus_default
        if corpus is None and known is None:
            raise ConfigurationError(f"--data.corpus is needed; it is one of {', '.join(sorted(CORPORA))}")
        if corpus is not None and known is not None and corpus != known:
            raise ConfigurationError(
                f"--data.corpus is {corpus!r}, but {type(self).__name__} is for {known!r}; use AffectDataModule"
            )
        return get_corpus(corpus or known or "")

    @property
    def output_dim(self) -> int:
        """Width of the prediction head."""
        return self.corpus_record.output_dim

    @property
    def fingerprint(self) -> str:
        """Identifies the whole file: a store's recorded fingerprint, SHA-256 otherwise."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.path)
        return self._fingerprint

    # ------------------------------------------------------------------------------------------------- preparing

    def setup(self, stage: str | None = None) -> None:
        """Prepare the splits that a stage needs.

        Args:
            stage: `fit`, `validate`, `test` or `predict`; None for all that the file has, labels permitting.

        Raises:
            DataFormatError: A split is missing or empty, labels do not fit, ids are doubled, or a feature of the
                training split has no finite value.
        """
        if self.duplicate_ids == "refuse":
            check_ids(self.corpus_data)
        if stage in ("fit", None):
            self._setup_fit()
        if stage in ("fit", "validate", None):
            self._prepare("valid")
        if stage in ("test", None):
            self._prepare("test")
        if stage in ("predict", None):
            self._setup_predict()

    def _setup_fit(self) -> None:
        for name in self.missing:
            if name not in self._split("train").sequences:
                raise DataFormatError(
                    f"{self.path} has no modality {name!r} to train with; --data.missing takes modalities away at "
                    "evaluation only: leave it out with --data.modalities"
                )
        for name in ("train", "valid"):  # told before anything is computed
            self._split(name)
        train = self._prepare("train")
        if self.normalize != "none" and self.statistics is None:
            self.statistics = train.statistics()
            if self.normalize == "shared":
                self.statistics = {name: found.with_one_deviation() for name, found in self.statistics.items()}
            bad = {name: found.nonfinite for name, found in self.statistics.items() if found.nonfinite}
            if bad:
                counts = ", ".join(f"{name} {count:,}" for name, count in bad.items())
                _report(f"NaN and infinite values in the training split, left out of the statistics: {counts}")

    def _setup_predict(self) -> None:
        there = [name for name in SPLITS if name in self.corpus_data.splits and len(self.corpus_data.splits[name])]
        chosen = there if self.predict_split == "all" else [str(self.predict_split)]
        if not chosen:
            raise DataFormatError(f"{self.path}: nothing to predict, every split is empty")
        parts = [self._dataset(name, evaluation=True, required=False) for name in chosen]
        self._datasets["predict"] = AffectConcat(parts)
        self._predict_splits = [name for name, part in zip(chosen, parts, strict=True) for _ in range(len(part))]

    @property
    def target_center(self) -> NDArray[np.float32] | None:
        """Median of each training label, (K,), of a regression corpus; None for classes and before `setup("fit")`."""
        train = self._datasets.get("train")
        if self.corpus_record.task != "regression" or not self.labels or not isinstance(train, AffectDataset):
            return None
        values, mask = train.used_targets
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a target without any label
            center = np.nanmedian(np.where(mask, values, np.nan), axis=0)
        return np.asarray(np.nan_to_num(center), dtype=np.float32)

    @property
    def predict_splits(self) -> list[str]:
        """Split of each sample that `predict` goes through, in order."""
        return list(self._predict_splits)

    def evaluation_ids(self, stage: str) -> list[str]:
        """Ids of all samples of an evaluation (`validate`, `sanity_check`, `test`, `predict`) in the file's order."""
        name = _STAGES.get(str(getattr(stage, "value", stage)), "")
        return list(self._datasets[name].ids) if name in self._datasets else []

    def _split(self, name: str) -> SplitData:
        if name not in self.corpus_data.splits:
            raise DataFormatError(f"{self.path} has no split {name!r}; there are: {', '.join(self.corpus_data.splits)}")
        if not len(self.corpus_data.splits[name]):
            raise DataFormatError(f"{self.path}: split {name!r} is empty; give a file with samples in it")
        return self.corpus_data.splits[name]

    def _prepare(self, name: str) -> AffectDataset:
        if name not in self._datasets:
            self._datasets[name] = self._dataset(name, evaluation=name != "train", required=True)
        prepared = self._datasets[name]
        assert isinstance(prepared, AffectDataset)
        return prepared

    def _dataset(self, name: str, *, evaluation: bool, required: bool) -> AffectDataset:
        split = self._split(name)
        return AffectDataset(
            split,
            self.corpus_record,
            modalities=self.modalities,
            max_lengths=self.max_lengths or None,
            absent=self.missing if evaluation else (),
            padding=self.padding,
            labels=self.labels,
            required=required,
            target=self.target,
            in_memory=self.in_memory,
            indices=self._indices(len(split), training=not evaluation),
            dims=self.feature_dims,
            where=f"{self.path}, split {name!r}",
        )

    def _indices(self, samples: int, *, training: bool) -> NDArray[np.int64]:
        indices = np.arange(min(samples, self.limit) if self.limit is not None else samples)
        if training and self.train_fraction < 1:
            count = max(1, round(self.train_fraction * len(indices)))
            drawn = np.random.default_rng([self.seed, 1]).permutation(len(indices))[:count]
            indices = np.sort(indices[drawn])
        return indices

    # --------------------------------------------------------------------------------------------------- batches

    def _loader(self, name: str, *, shuffle: bool = False) -> DataLoader[Any]:
        if name not in self._datasets:
            raise ConfigurationError(f"no {name} batches yet: call setup() for the stage first")
        dataset = self._datasets[name]
        sampler = LengthBucketBatchSampler(
            batch_size=self.batch_size,
            lengths=dataset.costs,
            shuffle=shuffle,
            bucketing=self.bucketing,
            seed=self.seed,
        )
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            # each pass draws a seed for workers: from the global generator, it would make a run depend on
            # how often its data was looked at, and a resumed run differ
            generator=torch.Generator().manual_seed(self.seed),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; in one order for ever when Lightning overfits on a few."""
        overfitting = float(getattr(self.trainer, "overfit_batches", 0)) > 0
        return self._loader("train", shuffle=not overfitting)

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches in the order of the file."""
        return self._loader("valid")

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches in the order of the file."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of `predict_split` in the order of the file."""
        return self._loader("predict")

    def on_after_batch_transfer(self, batch: AffectBatch, dataloader_idx: int) -> AffectBatch:
        """Take modalities away from training samples at random.

        The global generator is used, whose state is in the checkpoint: a resumed run draws the same.
        """
        if self.missing_rates and self.trainer is not None and self.trainer.training:
            return without(batch, draw_absent(batch, self.missing_rates))
        return batch
