"""Where training starts: predictions at the labels' median, and not again when a run goes on."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from mfm.data.synthetic import write_corpus
from mfm.datamodules import IEMOCAPDataModule, MMMODataModule, POMDataModule
from mfm.modules import MFMModule


def trainer(epochs, **options):
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_train_batches=0 if epochs == 0 else 1.0,
        **options,
    )


def module(data):
    return MFMModule(feature_dims=data.feature_dims, corpus=data.corpus_name, z=4, z_y=4, f=8, f_y=8, lr=1e-9)


@pytest.mark.parametrize("kind", [MMMODataModule, POMDataModule])
def test_predictions_start_at_the_median_of_each_target(kind, tmp_path):
    data = kind(str(write_corpus(kind.corpus_default, tmp_path / "c", (9, 4, 4))))
    data.setup("fit")
    model = module(data)
    trainer(1).fit(model, datamodule=data)
    labels = next(iter(data._datasets["train"].split.labels.values()))
    columns = data.corpus_record.columns or (0,)
    expected = np.median(np.asarray(labels).reshape(9, -1)[:, list(columns)], axis=0)
    assert model.model.head[-1].bias.detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_classes_have_no_centre(tmp_path):
    data = IEMOCAPDataModule(str(write_corpus("iemocap", tmp_path / "c", (5, 3, 3))))
    data.setup("fit")
    assert data.target_center is None


def test_a_run_that_goes_on_keeps_its_bias(tmp_path):
    data = MMMODataModule(str(write_corpus("mmmo", tmp_path / "c", (9, 4, 4))))
    model = module(data)
    first = trainer(1)
    first.fit(model, datamodule=data)
    with torch.no_grad():
        model.model.head[-1].bias.fill_(7.0)
    first.save_checkpoint(tmp_path / "a.ckpt")
    again = module(data)
    trainer(2).fit(again, datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert again.model.head[-1].bias.item() == pytest.approx(7.0, abs=1e-4)
