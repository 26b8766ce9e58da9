"""The data module under Lightning: epochs, missing modalities, workers, processes."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor

from mfm.data.batch import AffectBatch
from mfm.data.readers import read_corpus
from mfm.data.store import write_store
from mfm.data.synthetic import write_mmsa
from mfm.datamodules import MOSIDataModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*"),
]
SAMPLES = (21, 9, 11)


class Recorder(LightningModule):
    """Notes what it gets; trains one number. Its buffer makes DDP synchronise in every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("offset", torch.zeros(1))
        self.seen: dict[str, list[AffectBatch]] = {"train": [], "val": [], "test": [], "predict": []}

    def _take(self, stage: str, batch: AffectBatch) -> Tensor:
        assert isinstance(batch, AffectBatch)
        assert isinstance(batch.ids, list)
        self.seen[stage].append(batch)
        return ((batch.target - self.weight - self.offset) ** 2).mean()

    def training_step(self, batch: AffectBatch, batch_idx: int) -> Tensor:
        return self._take("train", batch)

    def validation_step(self, batch: AffectBatch, batch_idx: int) -> None:
        self._take("val", batch)

    def test_step(self, batch: AffectBatch, batch_idx: int) -> None:
        self._take("test", batch)

    def predict_step(self, batch: AffectBatch, batch_idx: int) -> list[str]:
        self._take("predict", batch)
        return batch.ids

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def ids(self, stage: str) -> list[str]:
        return [name for batch in self.seen[stage] for name in batch.ids]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("d")
    path = write_mmsa(folder / "a.pkl", "mosi", SAMPLES, dims={"text": 6, "audio": 4}, steps=9)
    write_store(read_corpus(path), folder / "a.h5")
    return str(folder / "a.h5")


def trainer(folder: Path, **options: Any) -> Trainer:
    plain = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, **{**plain, "num_sanity_val_steps": 0, **options}
    )


def test_every_stage(stored: str, tmp_path: Path) -> None:
    data, model = MOSIDataModule(stored, batch_size=4, predict_split="all"), Recorder()
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, datamodule=data)
    truth = read_corpus(stored)
    train = model.ids("train")
    assert sorted(train[:21]) == sorted(train[21:]) == sorted(truth.splits["train"].ids)
    assert train[:21] != train[21:]  # Lightning told the sampler which epoch it is
    assert model.ids("val") == [*truth.splits["valid"].ids] * 2
    run.test(model, datamodule=data, verbose=False)
    assert model.ids("test") == list(truth.splits["test"].ids)
    predictions = run.predict(model, datamodule=data)
    assert predictions is not None
    everything = [n for split in ("train", "valid", "test") for n in truth.splits[split].ids]
    assert [n for batch in predictions for n in batch] == everything == data.evaluation_ids("predict")


def test_missing_rate_is_for_training_only_and_reproducible(stored: str, tmp_path: Path) -> None:
    def gone(rate: Any) -> tuple[list[list[bool]], Recorder]:
        seed_everything(3)
        model = Recorder()
        trainer(tmp_path, max_epochs=2).fit(model, datamodule=MOSIDataModule(stored, batch_size=8, missing_rate=rate))
        return [batch.present["text"].tolist() for batch in model.seen["train"]], model

    once, model = gone(0.4)
    assert once == gone(0.4)[0]
    assert not all(all(row) for row in once)
    for batch in model.seen["train"]:
        assert (batch.present["text"] | batch.present["audio"]).all()
        assert not batch.features["text"][~batch.present["text"]].any()
        assert (batch.lengths["text"][~batch.present["text"]] == 0).all()
    assert all(batch.present["text"].all() for batch in model.seen["val"])
    only_audio, model = gone({"audio": 0.9})
    assert all(all(row) for row in only_audio)
    assert not all(batch.present["audio"].all() for batch in model.seen["train"])


def test_overfitting_repeats_the_same_batches(stored: str, tmp_path: Path) -> None:
    model = Recorder()
    trainer(tmp_path, max_epochs=3, overfit_batches=2).fit(model, datamodule=MOSIDataModule(stored, batch_size=4))
    batches = [batch.ids for batch in model.seen["train"]]
    assert batches[0:2] == batches[2:4] == batches[4:6]


# a spawned worker imports torch for seconds
@pytest.mark.parametrize(("method", "epochs"), [("fork", 2), ("spawn", 1)])
def test_workers(stored: str, tmp_path: Path, method: str, epochs: int) -> None:
    plain, model = Recorder(), Recorder()
    trainer(tmp_path, max_epochs=epochs).fit(plain, datamodule=MOSIDataModule(stored, batch_size=8, in_memory=False))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        data = MOSIDataModule(stored, batch_size=8, in_memory=False, num_workers=1)
        trainer(tmp_path, max_epochs=epochs).fit(model, datamodule=data)
    finally:
        multiprocessing.set_start_method(before, force=True)
    for stage in ("train", "val"):
        assert model.ids(stage) == plain.ids(stage)
        for one, two in zip(model.seen[stage], plain.seen[stage], strict=True):
            for name in one.features:
                assert torch.equal(one.features[name], two.features[name])


class Writer(Recorder):
    """Saves what each process saw."""

    folder: str = ""

    def on_fit_end(self) -> None:
        self._save("train", "val")

    def on_test_end(self) -> None:
        self._save("test")

    def on_predict_end(self) -> None:
        self._save("predict")

    def _save(self, *stages: str) -> None:
        for stage in stages:
            batches = [batch.ids for batch in self.seen[stage]]
            torch.save(batches, Path(self.folder) / f"{stage}{self.global_rank}.pt")


@pytest.mark.parametrize("injected", [True, False])
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler`.*")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_two_processes(stored: str, tmp_path: Path, injected: bool) -> None:
    """Nothing lost or doubled in evaluation, whether Lightning injects its sampler (its default) or not."""
    model = Writer()
    model.folder = str(tmp_path)
    options = {"strategy": "ddp_fork", "devices": 2, "use_distributed_sampler": injected}
    data = MOSIDataModule(stored, batch_size=4, predict_split="all")
    trainer(tmp_path, max_epochs=2, **options).fit(model, datamodule=data)
    trainer(tmp_path, **options).test(model, datamodule=MOSIDataModule(stored, batch_size=4), verbose=False)
    trainer(tmp_path, **options).predict(model, datamodule=data, return_predictions=False)
    truth = read_corpus(stored)
    ranks = {
        stage: [torch.load(tmp_path / f"{stage}{rank}.pt", weights_only=True) for rank in (0, 1)]
        for stage in ("train", "val", "test", "predict")
    }
    first, second = ranks["train"]
    assert len(first) == len(second) == 6  # 21 samples in 2 x 4 a step, 2 epochs
    for epoch in (slice(0, 3), slice(3, 6)):
        seen = [n for rank in (first, second) for batch in rank[epoch] for n in batch]
        assert sorted(seen) == sorted(truth.splits["train"].ids)
    assert first[:3] != first[3:]
    for stage, split in (("val", "valid"), ("test", "test")):
        times = 2 if stage == "val" else 1
        seen = [n for rank in ranks[stage] for batch in rank for n in batch]
        assert sorted(seen) == sorted([*truth.splits[split].ids] * times)
    seen = [n for rank in ranks["predict"] for batch in rank for n in batch]
    assert seen == [n for split in ("train", "valid", "test") for n in truth.splits[split].ids]
