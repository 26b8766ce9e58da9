"""MFMModule with a surrogate: what is trained, what is frozen, and nothing changes without one."""

import pytest
import torch
from affect_batches import make_affect_batch

from mfm.data.batch import without
from mfm.errors import ConfigurationError, DataFormatError
from mfm.modules import MFMModule

DIMS = {"audio": 2, "text": 3, "vision": 2}
SMALL = {
    "corpus": "mosi",
    "z_y": 4,
    "z": 3,
    "f_y": 4,
    "f": 3,
    "fusion": {"name": "concat_lstm", "hidden": 4},
    "dropout_y": 0.5,
}
SURROGATE = {"surrogate_width": 4, "surrogate_hidden": 5}


def batch(**options):
    return make_affect_batch(DIMS, **options)


def build(**options):
    torch.manual_seed(0)
    return MFMModule(feature_dims=DIMS, **SMALL, **options)


def save(module, path):
    torch.save({"state_dict": module.state_dict()}, path)
    return str(path)


def test_the_model_starts_and_predicts_as_without_a_surrogate():
    plain, joint = build(), build(surrogate="joint", **SURROGATE)
    shared = {name: value for name, value in joint.state_dict().items() if not name.startswith("surrogate.")}
    assert shared.keys() == plain.state_dict().keys()
    assert len(joint.state_dict()) > len(shared)
    assert all(torch.equal(value, shared[name]) for name, value in plain.state_dict().items())
    one, other = plain.eval().predict_step(batch(), 0), joint.eval().predict_step(batch(), 0)
    assert torch.equal(one.prediction, other.prediction)
    assert all(torch.equal(one.codes[name], other.codes[name]) for name in one.codes)


def test_the_model_trains_bit_for_bit_as_without_a_surrogate():
    trained = []
    for options in ({}, {"surrogate": "joint", **SURROGATE}):
        module = build(code_noise=0.1, **options)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        torch.manual_seed(7)
        for _ in range(3):
            optimizer.zero_grad()
            module.step(batch()).loss.backward()
            optimizer.step()
        trained.append((module, torch.get_rng_state()))
    (plain, state), (joint, joint_state) = trained
    assert torch.equal(state, joint_state)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, joint.state_dict()[name]), name
    assert all(parameter.requires_grad for parameter in joint.parameters())


def test_an_untrained_surrogate_is_the_models_own_inference_of_the_label():
    module = build(surrogate="joint", **SURROGATE).eval()
    gone = without(batch(), {"text": torch.ones(6, dtype=torch.bool)})
    assert torch.equal(module.predict_label(gone), module.predict_label(gone, surrogate=False))


def test_gradients_are_clipped_apart():
    def clipped(**options):
        module = build(**options)
        torch.manual_seed(7)
        module.step(batch()).loss.backward()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        module.configure_gradient_clipping(optimizer, 0.01, "norm")
        return module

    plain, joint = build(), clipped(surrogate="joint", **SURROGATE)
    torch.manual_seed(7)
    plain.step(batch()).loss.backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    for (name, one), other in zip(plain.model.named_parameters(), joint.model.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    norm = torch.stack([p.grad.norm() for p in joint.surrogate.parameters()]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-3, atol=0.0)


def test_the_surrogates_weights_have_their_own_decay():
    module = build(surrogate="joint", surrogate_weight_decay=0.3, weight_decay=0.1, **SURROGATE)
    groups = module.parameter_groups()
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decay) == len(list(module.parameters())) == sum(len(group["params"]) for group in groups)
    for part, expected in ((module.model, 0.1), (module.surrogate, 0.3)):
        for p in part.parameters():
            assert decay[id(p)] == (expected if p.dim() >= 2 else 0.0)


def test_its_draws_depend_on_seed_step_and_process_and_on_nothing_else(monkeypatch):
    def drawn(seed, step, rank, before):
        module = build(surrogate="joint", **SURROGATE)
        monkeypatch.setattr(MFMModule, "global_step", step)
        monkeypatch.setattr(MFMModule, "global_rank", rank)
        torch.manual_seed(seed)
        torch.rand(before)
        with module._own_draws():
            return float(torch.rand(()))

    assert drawn(1, 2, 3, 0) == drawn(1, 2, 3, 5)
    assert len({drawn(*place, 0) for place in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


def test_no_surrogate_draws_nothing_more():
    states = []
    for options in ({}, {"surrogate": None, "surrogate_subsets": "per_size", "surrogate_weight": 3.0}):
        module = build(**options)
        assert not any(name.startswith("surrogate") for name in module.state_dict())
        torch.manual_seed(3)
        loss = module.step(batch()).loss
        states.append((loss.item(), torch.get_rng_state()))
    assert states[0][0] == states[1][0]
    assert torch.equal(states[0][1], states[1][1])


@pytest.mark.parametrize("subsets", ["uniform", "per_size", "empirical", {"text+audio": 1.0}])
def test_joint_training_reaches_every_parameter_in_every_step(subsets):
    module = build(surrogate="joint", surrogate_subsets=subsets, **SURROGATE)
    for given in (batch(), without(batch(), {"text": torch.ones(6, dtype=torch.bool)}), batch(rows=1)):
        module.zero_grad()
        output = module.step(given)
        output.loss.backward()
        assert [name for name, p in module.named_parameters() if p.grad is None] == []
        assert {"surrogate/latent", "surrogate/prediction", "surrogate/reconstruction/text"} <= output.parts.keys()


def test_posthoc_training_moves_the_surrogate_alone(tmp_path):
    path = save(build(), tmp_path / "m.ckpt")
    module = build(surrogate="posthoc", init_from=path, **SURROGATE).train()
    assert not module.model.training
    assert module.surrogate.training
    assert module.selection_metric() == ("val/loss", "min")
    module.step(batch()).loss.backward()
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {f"model.{name}" for name, _ in module.model.named_parameters()}
    assert all((p.grad is None) == (name in frozen) for name, p in module.named_parameters())


def test_evaluation_infers_and_training_does_not():
    module = build(surrogate="joint", **SURROGATE)
    torch.nn.init.normal_(module.surrogate.to_z_y.weight)
    gone = without(batch(), {"text": torch.ones(6, dtype=torch.bool)})
    module.model.eval()  # no dropout in either
    training = module(gone)[0].prediction
    module.eval()
    assert torch.equal(training, module.predict_label(gone, surrogate=False))
    assert not torch.allclose(training, module.predict_label(gone))
    torch.testing.assert_close(module(gone)[0].prediction, module.predict_label(gone))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"surrogate": "jiont"}, "joint"),
        ({"surrogate": "posthoc"}, "--model.init_from"),
        ({"surrogate": "joint", "init_from": "x"}, "posthoc"),
        ({"init_from": "x"}, "posthoc"),
        ({"surrogate": "joint", "surrogate_weight": 0.0}, "surrogate_weight"),
        ({"surrogate": "joint", "surrogate_weight_decay": -0.1}, "surrogate_weight_decay"),
        ({"surrogate": "joint", "surrogate_subsets": "all"}, "uniform"),
        ({"surrogate": "joint", "surrogate_encoder": "lstn"}, "lstm"),
    ],
)
def test_options_that_cannot_be_used(options, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        build(**options)


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path):
    path = tmp_path / "m.ckpt"
    module = build(surrogate="posthoc", init_from=str(path), **SURROGATE)
    with pytest.raises(ConfigurationError, match="no such file"):
        module.on_fit_start()
    path.write_bytes(b"no checkpoint")
    with pytest.raises(DataFormatError, match="not a readable checkpoint"):
        module.on_fit_start()
    torch.save({"weights": 1}, path)
    with pytest.raises(DataFormatError, match="holds no weights"):
        module.on_fit_start()
    other = MFMModule(feature_dims=DIMS, **{**SMALL, "z_y": 7})
    save(other, path)
    with pytest.raises(ConfigurationError, match=r"model\.factor_y.*shape \(4, 7\).*\(4, 4\)"):
        module.on_fit_start()
    save(MFMModule(feature_dims={**DIMS, "pose": 2}, **SMALL), path)
    with pytest.raises(ConfigurationError, match="pose"):
        module.on_fit_start()
    good = build()
    torch.nn.init.constant_(good.model.factor_y[0].bias, 0.25)
    save(good, path)
    module.on_fit_start()
    assert all(torch.equal(value, module.model.state_dict()[name]) for name, value in good.model.state_dict().items())
