"""Modules of the references for missing modalities: what is trained, and on what."""

import pytest
import torch
from affect_batches import make_affect_batch

from mfm.data.batch import without
from mfm.errors import ConfigurationError
from mfm.models.subsets import all_subsets, subset_name
from mfm.modules import DiscriminativeReferenceModule, MFMModule, MissingReferenceModule

DIMS = {"audio": 2, "text": 3, "vision": 2}
MFM = {"z_y": 4, "z": 3, "f_y": 4, "f": 3, "fusion": {"name": "concat_lstm", "hidden": 4}, "dropout_y": 0.5}


def batch(**options):
    return make_affect_batch(DIMS, **options)


def some_missing():
    return without(batch(), {"text": torch.tensor([True, True, False, False, False, False])})


def mfm():
    torch.manual_seed(0)
    return MFMModule(feature_dims=DIMS, corpus="mosi", **MFM).eval()


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": mfm().state_dict()}, path)
    return str(path)


def reference(kind, **options):
    torch.manual_seed(1)
    built = MissingReferenceModule(
        kind, reference_hidden=4, reference_code=3, feature_dims=DIMS, corpus="mosi", **MFM, **options
    )
    if built.init_from is not None:
        built.on_fit_start()
    return built


@pytest.mark.parametrize("kind", ["generative", "authors_surrogate"])
def test_on_a_frozen_model_the_networks_alone_are_trained(kind, checkpoint):
    module = reference(kind, init_from=checkpoint).train()
    assert not module.model.training
    for given in (batch(), some_missing(), batch(rows=1)):
        module.zero_grad()
        module.step(given).loss.backward()
        without_gradient = {name for name, p in module.named_parameters() if p.grad is None}
        assert {name.partition(".")[0] for name in without_gradient} == {"model", "best"}
        assert not any(p.requires_grad for part in (module.model, module.best) for p in part.parameters())


@pytest.mark.parametrize("kind", ["generative", "authors_surrogate"])
def test_complete_samples_are_the_frozen_models_own(kind, checkpoint):
    module = reference(kind, init_from=checkpoint).eval()
    own, given = mfm(), some_missing()
    found = module.predict_label(given)
    torch.testing.assert_close(found[2:], own.predict_label(given)[2:])
    assert not torch.allclose(found[:2], own.predict_label(given)[:2])
    assert torch.equal(module.predict_label(given, surrogate=False), own.predict_label(given))
    prediction = module.predict_step(given, 0)
    torch.testing.assert_close(prediction.prediction, found)
    assert torch.equal(module.step(given).prediction, found)


def test_trained_along_every_parameter_is_reached_and_the_objective_is_in_the_loss():
    module = reference("authors_surrogate").train()
    for given in (batch(), some_missing()):
        module.zero_grad()
        output = module.step(given)
        output.loss.backward()
        assert [name for name, p in module.named_parameters() if p.grad is None] == []
        assert {"prediction", "mmd", "reconstruction/text", "surrogate/latent"} <= output.parts.keys()


def test_what_was_generated_is_in_the_reconstruction(checkpoint):
    module = reference("generative", init_from=checkpoint).eval()
    given = some_missing()
    output, features = module(given)
    full, _ = module.generators(features, given.lengths, given.present)
    assert torch.equal(output.reconstruction["text"][:2], full["text"][:2])
    assert not torch.allclose(output.reconstruction["text"][2:], full["text"][2:])


def test_the_discriminative_loss_is_the_mean_over_subsets_of_mae():
    torch.manual_seed(0)
    module = DiscriminativeReferenceModule(
        feature_dims=DIMS, corpus="mosi", reference_hidden=4, reference_width=3
    ).eval()
    given = some_missing()
    output = module.step(given)
    costs = {}
    for subset in all_subsets(DIMS):
        only = without(given, {n: torch.ones(6, dtype=torch.bool) for n in DIMS if n not in subset})
        rows = slice(2, None) if "text" in subset else slice(None)
        error = (module.predict_label(only) - given.target).abs()[rows]
        costs[f"subset/{subset_name(subset)}"] = error.mean()
    assert output.parts.keys() == costs.keys()
    for name, value in costs.items():
        torch.testing.assert_close(output.parts[name], value)
    torch.testing.assert_close(output.loss, torch.stack(list(costs.values())).mean())
    assert torch.equal(output.prediction, module.predict_label(given))
    module.center_output(torch.tensor([0.7]))
    assert all(head[-1].bias.item() == pytest.approx(0.7) for head in module.predictors.heads)
    assert module.selection_metric() == ("val/best_of_subsets", "min")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"reference": "generativ", "init_from": "x"}, "generative"),
        ({"reference": "generative"}, "init_from"),
        ({"reference": "authors_surrogate", "surrogate": "joint"}, "--model.surrogate null"),
        ({"reference": "authors_surrogate", "reference_hidden": 0}, "reference_hidden"),
    ],
)
def test_refusals(options, named):
    with pytest.raises(ConfigurationError, match=named):
        MissingReferenceModule(feature_dims=DIMS, corpus="mosi", **MFM, **options)
