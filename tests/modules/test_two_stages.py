"""Training in two stages: what each stage's loss is made of, and what it moves."""

import pytest
import torch
from affect_batches import make_affect_batch

from mfm.errors import ConfigurationError
from mfm.modules import AblationModule
from mfm.modules.optimisation import decay_groups

DIMS = {"audio": 2, "text": 3}
GIVEN = {
    "feature_dims": DIMS,
    "corpus": "mosi",
    **{"z_y": 3, "z": 2, "z_shared": 2, "f_y": 4, "f": 3, "f_shared": 3},
    "fusion": {"name": "concat_lstm", "hidden": 4},
    **{"dropout_y": 0.5, "dropout": 0.5, "dropout_head": 0.5, "weight_prediction": 2.0},
}


def batch(**options):
    return make_affect_batch(DIMS, **options)


def build(variant, divergence, stage=None, **options):
    torch.manual_seed(0)
    return AblationModule(variant=variant, divergence=divergence, stage=stage, **GIVEN, **options)


KINDS = [("MFM", "kl"), ("MFM", "mmd"), ("M_C", "kl"), ("M_D", "kl"), ("M_E", "mmd")]


@pytest.mark.parametrize(("variant", "divergence"), KINDS)
def test_the_first_stage_has_no_label_term(variant, divergence):
    module = build(variant, divergence, "generate")
    torch.manual_seed(3)
    here = module.step(batch())
    torch.manual_seed(3)
    there = module.step(batch(label=5.0))
    assert torch.equal(here.loss, there.loss)
    assert "prediction" not in here.parts
    assert {f"reconstruction/{name}" for name in DIMS} <= set(here.parts)
    assert any(name.startswith(("kl", "mmd")) for name in here.parts)
    assert here.prediction.shape == (6, 0)
    here.loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())  # nothing is there for no reason
    assert module.selection_metric() == ("val/loss", "min")


@pytest.mark.parametrize(("variant", "divergence"), KINDS)
def test_the_second_stage_moves_the_head_alone(variant, divergence, tmp_path):
    first = build(variant, divergence, "generate")
    path = str(tmp_path / "first.ckpt")
    torch.save({"state_dict": first.state_dict()}, path)
    torch.manual_seed(7)
    module = build(variant, divergence, "discriminate", init_from=path).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.Adam(decay_groups(module, 0.1), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        output = module.step(batch(label=5.0))
        output.loss.backward()
        optimizer.step()
    assert set(output.parts) == {"prediction"}
    torch.testing.assert_close(output.loss, 2.0 * output.parts["prediction"])
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith("model.head.") for name in moved)
    assert "model.head.3.bias" in moved
    assert module.selection_metric() == ("val/mae", "min")


def test_the_head_learns_from_the_factors_that_evaluation_sees():
    """No dropout in G_y, no draws of codes: only the head's own dropout is on."""
    module = build("MFM", "kl", "discriminate", init_from="x.ckpt").train()
    module.model.head.eval()
    shown = module.step(batch()).prediction
    assert torch.equal(shown, module.eval().predict_label(batch()))
    assert module.train().model.head.training
    assert not module.model.factor_y.training


def test_evaluation_of_the_second_stage_shows_all_parts_and_counts_the_label():
    module = build("MFM", "kl", "discriminate", init_from="x.ckpt").eval()
    output = module.step(batch())
    assert {"prediction", "reconstruction/text", "kl/z_y"} <= set(output.parts)
    torch.testing.assert_close(output.loss, 2.0 * output.parts["prediction"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stage": "generat"}, "did you mean 'generate'"),
        ({"stage": "discriminate"}, "give its checkpoint with --model.init_from"),
        ({"init_from": "x.ckpt"}, "set that, or drop"),
        ({"stage": "generate", "init_from": "x.ckpt"}, "set that, or drop"),
        ({"stage": "generate", "variant": "M_B"}, "variant M_B generates nothing"),
    ],
)
def test_refusals(options, said):
    with pytest.raises(ConfigurationError, match=said):
        AblationModule(**GIVEN, **options)
