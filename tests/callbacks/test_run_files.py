"""What a run keeps: whole files, random states, logged rows, predictions in order."""

import errno
import os
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from mfm.callbacks.checkpoints import WholeFileCheckpointIO, random_state, set_random_state
from mfm.callbacks.predictions import _in_order, _joined, _on_cpu
from mfm.callbacks.run_logger import RunLogger
from mfm.callbacks.selection import BestCheckpoint, PatientStopping
from mfm.errors import MFMError
from mfm.files import whole_file, write_json, write_text
from mfm.modules import MFMModule, Prediction


def test_whole_file_replaces_or_leaves_everything(tmp_path):
    target = tmp_path / "deep" / "x.txt"
    write_text(target, "one")

    def interrupted():
        with whole_file(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MFMError, match=r"x\.txt: No space left"):
        write_text(tmp_path / "x.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_nan(tmp_path):
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [1.5, float("inf")]})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": null,\n  "b": [\n    1.5,\n    null\n  ]\n}\n'


def test_sixteen_bit_outputs_are_collected_as_numpy_takes_them():
    half = torch.ones(2, 1, dtype=torch.bfloat16)
    collected = _on_cpu(Prediction(["a", "b"], half, half, half > 0, {}, {}))
    assert collected.prediction.numpy().dtype == collected.target.numpy().dtype == np.float32
    classes = _on_cpu(Prediction(["a", "b"], half, torch.tensor([1, 0]), half[:, 0] > 0, {}, {}))
    assert classes.target.dtype == torch.int64


def test_random_states_survive_a_safe_checkpoint(tmp_path):
    draws = lambda: (random.random(), np.random.rand(), random.gauss(0, 1), torch.randn(3))  # noqa: E731, NPY002
    draws()
    WholeFileCheckpointIO().save_checkpoint({"states": random_state()}, str(tmp_path / "c.ckpt"))
    first = draws()
    set_random_state(torch.load(tmp_path / "c.ckpt", weights_only=True)["states"])
    second = draws()
    assert first[:3] == second[:3]
    assert torch.equal(first[3], second[3])


def test_rows_survive_a_resumed_run(tmp_path):
    run = tmp_path / "run"
    logger = RunLogger(run)
    logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step=4)
    logger.log_metrics({"val/mae": 0.5, "epoch": 0}, step=4)
    logger.log_metrics({"train/loss": 0.9, "epoch": 1}, step=9)
    logger.save()
    again = RunLogger(run)
    again.log_metrics({"train/loss": 0.8, "epoch": 1}, step=9)
    again.log_metrics({"lr": 0.1, "epoch": 2}, step=14)
    again.save()
    assert again.rows == RunLogger(run).rows
    assert again.rows[0] == {"step": 4.0, "train/loss": 1.0, "val/mae": 0.5, "epoch": 0.0}
    assert again.rows[1]["train/loss"] == 0.8
    assert len(again.rows) == 3


def part(ids):
    values = torch.tensor([[float(ord(name))] for name in ids])
    return Prediction(list(ids), values, values, values > 0, {"y": values}, {"y": values})


def test_predictions_come_out_in_the_order_of_the_file():
    output = _in_order(_joined([part("ca"), part("b")]), ["a", "b", "c"])
    assert output.ids == ["a", "b", "c"]
    for value in (output.prediction, output.target, output.codes["y"], output.factors["y"]):
        assert value.ravel().tolist() == [97.0, 98.0, 99.0]


def test_doubled_names_keep_their_rows():
    assert _in_order(_joined([part("bab")]), ["b", "a", "b"]).ids == ["b", "a", "b"]


def test_selection_metric_comes_from_the_corpus():
    module = MFMModule(feature_dims={"text": 3}, corpus="youtube", fusion="concat_lstm")

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    stopping = PatientStopping(patience=2)
    stopping.setup(trainer, module, "fit")
    assert (stopping.monitor, stopping.mode) == ("val/acc", "max")
    assert stopping.best_score == float("-inf")
    best = BestCheckpoint()
    best.setup(trainer, module, "fit")
    assert (best.monitor, best.mode, best.kth_value.item()) == ("val/acc", "max", float("-inf"))


def test_a_run_that_had_stopped_stays_stopped():
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    stopping = PatientStopping(patience=3)
    stopping.load_state_dict({"wait_count": 3, "stopped_epoch": 7, "best_score": torch.tensor(0.1), "patience": 3})
    stopping.on_train_start(trainer, None)
    assert trainer.should_stop


@pytest.mark.parametrize("given", [8, None])
def test_patience_given_when_resuming_wins(given):
    stopping = PatientStopping(patience=given)
    stopping.load_state_dict({"wait_count": 1, "stopped_epoch": 1, "best_score": torch.tensor(0.1), "patience": 1})
    assert stopping.patience == (given or 0)
    assert stopping.wait_count == 1
