"""Noise on the codes: while training only, before G, and nothing drawn where it is off."""

import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.models.mfm import MFM

DIMS = {"text": 3, "timing": 2}


def model(**options):
    torch.manual_seed(0)
    return MFM(DIMS, 1, z_y=4, z=3, f_y=5, f=4, **options)


def batch(rows=5):
    torch.manual_seed(1)
    features = {name: torch.randn(rows, 4, dim) for name, dim in DIMS.items()}
    return (
        features,
        {name: torch.full((rows,), 4) for name in DIMS},
        {name: torch.ones(rows, dtype=torch.bool) for name in DIMS},
    )


def test_off_is_the_same_model_with_the_same_draws():
    def run(**options):
        one = model(**options).train()
        torch.manual_seed(5)
        output = one(*batch())
        return output.prediction, output.reconstruction["text"], torch.get_rng_state()

    for value, expected in zip(run(code_noise=0.0), run(), strict=True):
        assert torch.equal(value, expected)


def test_noise_reaches_the_factors_while_training_and_not_the_codes():
    one = model(code_noise=0.5)
    clean = one.eval()(*batch())
    again = one(*batch())
    assert torch.equal(clean.factors.f_y, again.factors.f_y)
    noisy = one.train()(*batch())
    assert torch.equal(noisy.codes.z_y, clean.codes.z_y)
    assert all(torch.equal(noisy.codes.z[name], clean.codes.z[name]) for name in DIMS)
    assert not torch.equal(noisy.factors.f_y, clean.factors.f_y)
    assert all(not torch.equal(noisy.factors.f[name], clean.factors.f[name]) for name in DIMS)


def test_its_deviation_is_the_one_given():
    one = model(code_noise=0.25).train()
    codes = one.encode(*batch(4000))
    noise = one.perturb(codes).z["text"] - codes.z["text"]
    assert noise.std().item() == pytest.approx(0.25, rel=0.03)
    assert noise.mean().abs() < 0.01
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 0.08  # each dimension its own


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "much"])
def test_impossible_noise_is_refused(value):
    with pytest.raises(ConfigurationError, match="code_noise is"):
        model(code_noise=value)


def test_learned_noise_has_a_deviation_for_each_dimension_that_gets_gradients():
    one = model(code_noise="learned").train()
    assert one.noise["text"].log_deviation.shape == (3,)
    with torch.no_grad():
        one.noise["text"].log_deviation.copy_(torch.tensor([0.1, 0.5, 2.0]).log())
    output = one(*batch(4000))
    noise = output.drawn.z["text"] - output.codes.z["text"]
    torch.testing.assert_close(noise.std(dim=0), torch.tensor([0.1, 0.5, 2.0]), rtol=0.05, atol=0.0)
    sum(x.sum() for x in output.reconstruction.values()).backward()
    for noise in (one.noise_y, one.noise["text"], one.noise["timing"]):
        assert noise.log_deviation.grad.ne(0).any()


def test_factors_are_those_of_the_codes_as_drawn():
    one = model(code_noise="learned").train()
    output = one(*batch())
    torch.testing.assert_close(output.factors.f_y, one.factorize(output.drawn).f_y)
    evaluated = one.eval()(*batch())
    assert torch.equal(evaluated.drawn.z_y, evaluated.codes.z_y)


def test_without_learned_noise_there_are_no_further_parameters():
    assert set(model(code_noise=0.5).state_dict()) == set(model().state_dict())
    assert set(model(code_noise="learned").state_dict()) > set(model().state_dict())
