"""MISA and MulT as modules: what the base does for them, and what they refuse."""

from types import SimpleNamespace

import pytest
import torch
from affect_batches import make_affect_batch

from mfm.errors import ConfigurationError
from mfm.modules import FactorModule, MISAModule, NetworkModule

DIMS = {"a": 3, "b": 2}
SMALL = {"feature_dims": DIMS, "corpus": "mosi"}


def small_misa(**settings):
    torch.manual_seed(0)
    return MISAModule(hidden=8, dropout=0.0, dropout_head=0.0, **SMALL, **settings)


def test_every_part_is_logged_and_weighed():
    module = small_misa(weight_similarity=2.0, weight_difference=0.0, weight_reconstruction=3.0)
    loss, parts, _ = module.step(make_affect_batch(DIMS))
    assert set(parts) == {"prediction", "similarity", "difference", "reconstruction"}
    expected = parts["prediction"] + 2 * parts["similarity"] + 3 * parts["reconstruction"]
    torch.testing.assert_close(loss, expected)


def test_it_starts_at_the_labels_median():
    module = small_misa()
    before = module.predict_label(make_affect_batch(DIMS))
    module.center_output(torch.tensor([5.0]))
    shift = module.predict_label(make_affect_batch(DIMS)) - before
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))
    assert float(module.model.output_bias.detach()) == 5


def test_the_loss_is_float32_in_mixed_precision():
    module = small_misa()
    exact = module.step(make_affect_batch(DIMS)).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module.step(make_affect_batch(DIMS))
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, exact, atol=0.05, rtol=0.05)


def test_what_it_is_to_the_commands():
    module = small_misa()
    assert isinstance(module, FactorModule)
    batch = make_affect_batch(DIMS)
    codes = module.infer_codes(batch)
    torch.testing.assert_close(module.model.predict_from(module.model.factorize(codes)), module.predict_label(batch))
    assert not isinstance(NetworkModule("mult", **SMALL), FactorModule)


def test_without_labels_there_is_nothing_to_learn():
    module = small_misa()
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(labels=False))
    with pytest.raises(ConfigurationError, match=r"leave --data\.labels true"):
        module.step(make_affect_batch(DIMS))


def test_settings_of_standard_modalities_that_are_not_used_are_dropped():
    network = {"name": "mult", "width": 4, "heads": 2, "kernel": {"text": 5, "a": 1, "default": 3}}
    module = NetworkModule(network, **SMALL)
    assert module.network.convolutions["a"].kernel_size == (1,)
    with pytest.raises(ConfigurationError, match="unknown modality 'tpye'"):
        NetworkModule({**network, "kernel": {"tpye": 5, "default": 3}}, **SMALL)
