"""The ablation ladder: who reads what, MFM as its last rung, masks, and the reparameterised posterior."""

import pytest
import torch
from batches import SIZES, full_batch, make_batch, select

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.models import MFM
from mfm.models.variants import LAYOUTS, AblationModel
from mfm.modules import AblationModule, MFMModule

DIMS = {"b": 2, "a": 3}
SMALL = {**SIZES, "z_shared": 6, "f_shared": 7, "fusion": {"name": "concat_lstm", "hidden": 5}}
GENERATIVE = [name for name, layout in LAYOUTS.items() if layout.generates]


def build(variant, seed=0, dims=DIMS, **options):
    torch.manual_seed(seed)
    return AblationModel(dims, 1, variant=variant, **{**SMALL, **options})


def flat(output):
    mean = output.posterior.mean
    return {
        "prediction": output.prediction,
        "z_y": mean.z_y,
        "f_y": output.factors.f_y,
        **{f"z/{n}": v for n, v in mean.z.items()},
        **{f"f/{n}": v for n, v in output.factors.f.items()},
        **{f"reconstruction/{n}": v for n, v in output.reconstruction.items()},
    }


@pytest.mark.parametrize("training", [True, False])
def test_the_last_rung_is_mfm(training):
    options = {**SIZES, "dropout": 0.3, "dropout_y": 0.2, "dropout_head": 0.1, "code_noise": 0.4}
    torch.manual_seed(0)
    model = MFM(DIMS, 1, **options).train(training)
    torch.manual_seed(0)
    rung = AblationModel(DIMS, 1, variant="MFM", **options).train(training)
    assert list(rung.state_dict()) == list(model.state_dict())
    assert all(torch.equal(value, rung.state_dict()[name]) for name, value in model.state_dict().items())
    batch = make_batch(DIMS, {"a": [3, 0, 2], "b": [1, 2, 0]})
    torch.manual_seed(1)
    expected = model(*batch)
    torch.manual_seed(1)
    found = rung(*batch)
    assert torch.equal(found.prediction, expected.prediction)
    assert torch.equal(found.posterior.mean.z_y, expected.codes.z_y)
    for name in DIMS:
        assert torch.equal(found.posterior.mean.z[name], expected.codes.z[name])
        assert torch.equal(found.factors.f[name], expected.factors.f[name])
        assert torch.equal(found.reconstruction[name], expected.reconstruction[name])


def affect_batch():
    features, lengths, present = make_batch(DIMS, {"a": [3, 0, 2, 3, 1], "b": [1, 2, 3, 0, 3]})
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(5, 1, generator=generator)
    return AffectBatch(features, lengths, present, target, torch.ones(5, 1, dtype=torch.bool), list("abcde"))


@pytest.mark.parametrize("mmd_on", ["joint", "marginals"])
def test_the_last_rung_trains_as_mfm(mmd_on):
    outputs, gradients = [], []
    for kind in (MFMModule, AblationModule):
        torch.manual_seed(0)
        module = kind(feature_dims=DIMS, corpus="mosi", mmd_on=mmd_on, weight_independence=0.5, **SIZES)
        outputs.append(module.step(affect_batch()))
        outputs[-1].loss.backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    assert outputs[0].parts.keys() == outputs[1].parts.keys()
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# variant -> what the label reads of the modalities' codes, and what the decoder of `a` reads
READS = {
    "M_A": ({"z/a", "z/b"}, None),
    "M_B": ({"z_y"}, None),
    "M_C": ({"z/a", "z/b"}, {"z/a"}),
    "M_D": ({"z_y"}, {"z_y"}),
    "M_E": ({"z_y"}, {"z_y", "z/shared"}),
    "MFM": ({"z_y"}, {"z_y", "z/a"}),
}


@pytest.mark.parametrize("variant", LAYOUTS)
def test_head_and_decoders_read_what_the_equations_say(variant):
    model = build(variant).eval()
    output = model(*full_batch(DIMS, 4, 3))
    blocks = {"z_y": output.posterior.mean.z_y, **{f"z/{n}": v for n, v in output.posterior.mean.z.items()}}
    blocks = {name: code for name, code in blocks.items() if code.shape[1]}

    def read(value):
        found = torch.autograd.grad(value.sum(), list(blocks.values()), retain_graph=True, allow_unused=True)
        return {name for name, own in zip(blocks, found, strict=True) if own is not None and own.any()}

    label, decoder = READS[variant]
    assert read(output.prediction) == label
    assert (read(output.reconstruction["a"]) if output.reconstruction else None) == decoder


@pytest.mark.parametrize("variant", LAYOUTS)
def test_every_parameter_is_trained(variant):
    module = AblationModule(feature_dims=DIMS, corpus="mosi", variant=variant, **SMALL)
    output = module.step(affect_batch())
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    assert ("mmd" in output.parts) == LAYOUTS[variant].generates
    assert ("reconstruction/a" in output.parts) == LAYOUTS[variant].generates


@pytest.mark.parametrize("posterior", ["point", "gaussian"])
@pytest.mark.parametrize("variant", LAYOUTS)
def test_nothing_depends_on_padding_or_absent_modalities(variant, posterior):
    if posterior == "gaussian" and variant not in GENERATIVE:
        pytest.skip("refused")
    model = build(variant, posterior=posterior).eval()
    features, lengths, present = make_batch(DIMS, {"a": [3, 0, 2], "b": [1, 2, 0]})
    expected = flat(model(features, lengths, present))
    dirty = {
        name: x.masked_fill((torch.arange(x.shape[1]) >= lengths[name][:, None])[..., None], float("nan"))
        for name, x in features.items()
    }
    found = flat(model(dirty, lengths, present))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    alone = flat(model(*select((features, lengths, present), [1])))
    for name, value in alone.items():
        torch.testing.assert_close(value, expected[name][[1]])


@pytest.mark.parametrize("variant", GENERATIVE)
def test_samples_have_the_posterior_s_moments_and_evaluation_is_the_mean(variant):
    model = build(variant, posterior="gaussian")
    with torch.no_grad():
        posterior = model.posterior(*make_batch(DIMS, {"a": [3, 0], "b": [1, 0]}))
        torch.manual_seed(0)
        draws = [model.draw(posterior) for _ in range(4000)]
        for pick in (lambda codes: codes.z_y, *(lambda codes, i=i: codes.z[i] for i in posterior.mean.z)):
            mean, deviation = pick(posterior.mean), (0.5 * pick(posterior.log_variance)).exp()
            drawn = torch.stack([pick(codes) for codes in draws])
            torch.testing.assert_close(drawn.mean(0), mean, atol=0.12, rtol=0)
            torch.testing.assert_close(drawn.std(0) if mean.shape[1] else deviation, deviation, atol=0.08, rtol=0)
            assert (mean[1] == 0).all()  # nothing was observed: the prior
            assert (deviation[1] == 1).all()
        assert model.eval().draw(posterior) is posterior.mean


@pytest.mark.parametrize("variant", GENERATIVE)
def test_the_noise_reaches_the_log_variances(variant):
    torch.manual_seed(0)
    module = AblationModule(feature_dims=DIMS, corpus="mosi", variant=variant, divergence="kl", weight_kl=0.0, **SMALL)
    output = module.step(affect_batch())
    output.loss.backward()
    heads = [*module.model.encoders.items(), ("y", module.model.fusion), ("shared", module.model.fusion_shared)]
    for _, part in heads:
        if part is not None:
            gradient = part.to_code.weight.grad
            assert (gradient[len(gradient) // 2 :] != 0).any()
    expected = {"kl/z_y"} if LAYOUTS[variant].joint else set()
    expected |= {"kl/a", "kl/b"} if LAYOUTS[variant].own else set()
    expected |= {"kl/shared"} if LAYOUTS[variant].shared else set()
    assert {name for name in output.parts if name.startswith(("kl", "mmd"))} == expected


def test_a_modality_may_have_the_name_of_a_block():
    dims = {"shared": 2, "type": 3}
    for variant in LAYOUTS:
        model = build(variant, dims=dims).eval()
        batch = make_batch(dims, {"shared": [2, 0], "type": [1, 3]})
        output = model(*batch)
        assert set(output.reconstruction) == (set(dims) if LAYOUTS[variant].generates else set())
        module = AblationModule(feature_dims=dims, corpus="mosi", variant=variant, **SMALL)
        target = torch.zeros(2, 1)
        assert module.step(AffectBatch(*batch, target, target == 0, ["x", "y"])).loss.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "M_F"}, "unknown variant 'M_F'"),
        ({"variant": "M_E", "posterior": "gausian"}, "gaussian"),
        ({"variant": "M_A", "posterior": "gaussian"}, "purely discriminative"),
        ({"variant": "M_E", "z_shared": 0}, "z_shared"),
        ({"variant": "MFM", "posterior": "gaussian", "code_noise": 0.5}, "code_noise"),
        ({"variant": "M_C", "z": {"c": 3}}, "unknown modality"),
    ],
)
def test_what_makes_no_model_is_refused_in_one_sentence(options, message):
    with pytest.raises(ConfigurationError, match=message):
        build(**options)
    with pytest.raises(ConfigurationError, match="nothing to learn"):
        AblationModel(DIMS, 0, variant="M_B")
    with pytest.raises(ConfigurationError, match="unknown divergence"):
        AblationModule(feature_dims=DIMS, corpus="mosi", divergence="kll")
