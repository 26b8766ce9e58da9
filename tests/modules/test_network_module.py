"""Networks as a module: any of them by name, on every task, from a checkpoint, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
from affect_batches import make_affect_batch
from lightning.pytorch import Trainer

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.modules import NetworkModule

DIMS = {"text": 3, "a.b": 2}


def module(network="lf_dnn", corpus="mosi", **options):
    torch.manual_seed(0)
    return NetworkModule(network, feature_dims=DIMS, corpus=corpus, **options).eval()


def test_a_checkpoint_made_in_python_is_plain_values_and_tensors(tmp_path):
    trained = module({"name": "tfn", "hidden": {"text": 4, "vision": 2, "default": 3}, "fusion": 5})
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(trained)
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    assert torch.load(tmp_path / "m.ckpt", weights_only=True)["hyper_parameters"]["network"]["fusion"] == 5
    again = NetworkModule.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=True).eval()
    batch = make_affect_batch(DIMS)
    assert torch.equal(again.predict_label(batch), trained.predict_label(batch))


@pytest.mark.parametrize("corpus", ["mosi", "iemocap", "mustard", "youtube", "pom"])
def test_every_task_has_its_loss_and_its_outputs(corpus):
    built = module({"name": "lmf", "hidden": 4}, corpus=corpus)
    outputs = built.corpus.output_dim
    features, lengths, present, *_, ids = make_affect_batch(DIMS)
    whole = built.corpus.task == "multiclass"
    target = torch.ones(6, dtype=torch.int64) if whole else torch.ones(6, len(built.corpus.targets))
    batch = AffectBatch(features, lengths, present, target, torch.ones_like(target, dtype=torch.bool), ids)
    loss, parts, prediction = built.step(batch)
    assert prediction.shape == (6, outputs)
    assert parts.keys() == {"prediction"}
    loss.backward()
    assert bool(built.network.output_bias.grad.isfinite().all())


def test_a_file_without_one_of_the_modalities_is_read_as_if_it_were_absent():
    built, batch = module(), make_affect_batch(DIMS)
    lacking = AffectBatch(*({"text": part["text"]} for part in batch[:3]), *batch[3:])
    absent = batch._replace(present={**batch.present, "a.b": torch.zeros(6, dtype=torch.bool)})
    torch.testing.assert_close(built.predict_label(lacking), built.predict_label(absent))


def test_a_network_has_neither_codes_nor_factors():
    built, batch = module(), make_affect_batch(DIMS)
    prediction = built.predict_step(batch, 0)
    assert not prediction.codes
    assert not prediction.factors
    assert torch.equal(prediction.prediction, built.predict_label(batch))


def test_without_labels_there_is_nothing_to_learn():
    built = module()
    built._trainer = SimpleNamespace(datamodule=SimpleNamespace(labels=False))
    with pytest.raises(ConfigurationError, match=r"^a network that only predicts .* leave --data\.labels true$"):
        built.step(make_affect_batch(DIMS))


def test_unknown_networks_and_settings_are_named():
    with pytest.raises(ConfigurationError, match=r"unknown network 'lf_dn': .*lf_dnn"):
        module("lf_dn")
    with pytest.raises(ConfigurationError, match=r"network 'tfn' has no setting 'fusoin': .*fusion"):
        module({"name": "tfn", "fusoin": 3})
    with pytest.raises(ConfigurationError, match=r"setting 'rank' of network 'lmf' is 0, but must be an integer >= 1"):
        module({"name": "lmf", "rank": 0})
