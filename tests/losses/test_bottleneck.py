"""The rate of Z_y in the objective: the divergence it is, over which samples, and nothing where it is off."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.losses import MFMObjective
from mfm.models.code_noise import GaussianNoise
from mfm.modules import MFMModule

DIMS = {"text": 3, "audio": 2}


def arguments(rows=12):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    lengths = {name: torch.randint(0, 4, (rows,), generator=generator) for name in DIMS}
    lengths["text"][0], lengths["audio"][0] = 0, 0  # nothing of the first sample was observed
    lengths["text"][1:] = 2
    return {
        "prediction": draw(rows, 1),
        "target": draw(rows, 1),
        "target_mask": torch.ones(rows, 1, dtype=torch.bool),
        "reconstruction": {name: draw(rows, 3, dim) for name, dim in DIMS.items()},
        "features": {name: draw(rows, 3, dim) for name, dim in DIMS.items()},
        "lengths": lengths,
        "present": {name: length > 0 for name, length in lengths.items()},
        "z_y": draw(rows, 5),
        "z": {name: draw(rows, 4) for name in DIMS},
    }


def test_it_is_the_divergence_of_what_was_observed_times_its_weight():
    given = arguments()
    mean, log_variance = torch.randn(12, 5), torch.randn(12, 5)
    each = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=1)
    each[0] = 0.0
    torch.manual_seed(1)
    plain = MFMObjective("regression")(**given)
    torch.manual_seed(1)
    total, parts = MFMObjective("regression", bottleneck=0.3)(**given, posterior_y=(mean, log_variance))
    torch.testing.assert_close(parts["bottleneck"], each.mean())
    torch.testing.assert_close(total, plain.total + 0.3 * each.mean())
    assert "bottleneck" not in plain.parts


@pytest.mark.parametrize("noise", [0.4, "learned"])
def test_noise_knows_the_variance_of_its_codes(noise):
    part = GaussianNoise(3, noise).train()
    code = torch.zeros(20_000, 3)
    assert torch.allclose(part(code).var(dim=0), part.log_variance(code)[0].exp(), rtol=0.05)
    assert GaussianNoise(3, 0.0).log_variance(code) is None


def module(**options):
    torch.manual_seed(0)
    sizes = {"z_y": 4, "z": 3, "f_y": 4, "f": 3, "encoder": "mean", "fusion": "concat_lstm"}
    return MFMModule(feature_dims=DIMS, corpus="mosi", **sizes, **options)


def test_a_step_presses_on_the_noise_of_z_y_alone():
    given = arguments()
    names = [f"v{row}$_$0" for row in range(12)]
    parts = (given[name] for name in ("features", "lengths", "present", "target", "target_mask"))
    batch = AffectBatch(*parts, names)
    pressed = module(code_noise="learned", weight_mmd=0.0, weight_prediction=0.0, weight_reconstruction=0.0,
                     weight_bottleneck=1.0).train()  # fmt: skip
    step = pressed.step(batch)
    step.loss.backward()
    assert step.parts["bottleneck"] > 0
    assert (pressed.model.noise_y.log_deviation.grad < 0).all()  # from .5 towards the prior's 1
    assert all(not noise.log_deviation.grad.any() for _, noise in pressed.model.noise.items())


def test_without_noise_it_is_refused():
    with pytest.raises(ConfigurationError, match="code_noise learned"):
        module(weight_bottleneck=0.1)
    with pytest.raises(ConfigurationError, match="bottleneck"):
        MFMObjective("regression", bottleneck=-1.0)
    with pytest.raises(ConfigurationError, match="posterior_y"):
        MFMObjective("regression", bottleneck=1.0)(**arguments())
