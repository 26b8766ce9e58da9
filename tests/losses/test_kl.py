"""KL against torch.distributions, and the VariantObjective against MFMObjective."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from mfm.errors import ConfigurationError
from mfm.losses import MFMObjective
from mfm.losses.kl import gaussian_kl
from mfm.losses.variants import VariantObjective


def posterior(rows=7, dims=5, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, rows, dims, generator=generator, dtype=torch.float64)
    return scale * draws[0], scale * draws[1]


@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 5.0])
def test_equals_torch_distributions(scale):
    mean, log_variance = posterior(scale=scale)
    q = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), kl_divergence(q, prior).mean())


def test_what_was_not_observed_counts_as_the_prior():
    mean, log_variance = posterior()
    known = torch.tensor([True, False, True, True, False, True, False])
    expected = gaussian_kl(mean[known], log_variance[known]) * 4 / 7
    mean[~known], log_variance[~known] = float("nan"), float("inf")
    mean.requires_grad_(), log_variance.requires_grad_()
    found = gaussian_kl(mean, log_variance, known)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert (mean.grad[~known] == 0).all()
    assert (log_variance.grad[~known] == 0).all()
    torch.testing.assert_close(mean.grad[known], mean.detach()[known] / 7)


def test_16_bits_are_summed_in_32():
    mean, log_variance = (part.bfloat16() for part in posterior())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gaussian_kl(mean, log_variance)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, gaussian_kl(mean.float(), log_variance.float()))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        gaussian_kl(torch.zeros(4, 3), torch.zeros(1, 3))


def arguments():
    generator = torch.Generator().manual_seed(2)
    lengths = {"text": torch.tensor([3, 4, 1, 2, 4, 1]), "audio": torch.tensor([0, 2, 1, 2, 0, 2])}
    return {
        "prediction": torch.randn(6, 1, generator=generator),
        "target": torch.randn(6, 1, generator=generator),
        "target_mask": torch.ones(6, 1, dtype=torch.bool),
        "reconstruction": {name: torch.randn(6, 4, 3, generator=generator) for name in lengths},
        "features": {name: torch.randn(6, 4, 3, generator=generator) for name in lengths},
        "lengths": lengths,
        "present": {name: value > 0 for name, value in lengths.items()},
    }


def blocks(given):
    generator = torch.Generator().manual_seed(3)
    anything = torch.ones(6, dtype=torch.bool)
    known = {"z_y": anything, "audio": given["present"]["audio"], "text": given["present"]["text"]}
    return {name: (torch.randn(6, 4, generator=generator), mask) for name, mask in known.items()}


@pytest.mark.parametrize("mmd_on", ["joint", "marginals"])
def test_blocks_of_mfm_cost_what_mfm_costs(mmd_on):
    given = arguments()
    options = {"mmd_on": mmd_on, "independence": 0.5, "reconstruction": {"text": 0.3, "default": 2.0}}
    found = blocks(given)
    torch.manual_seed(0)
    expected = MFMObjective("regression", **options)(
        **given, z_y=found["z_y"][0], z={name: found[name][0] for name in ("text", "audio")}
    )
    torch.manual_seed(0)
    own = VariantObjective("regression", **options).of_blocks(
        **given, blocks=found, log_variance=None, modalities=["audio", "text"]
    )
    assert own.parts.keys() == expected.parts.keys()
    assert all(torch.equal(own.parts[name], part) for name, part in expected.parts.items())
    assert torch.equal(own.total, expected.total)


def test_kl_takes_the_place_of_mmd_with_its_own_weight():
    given = arguments()
    found = blocks(given)
    log_variance = {name: -code for name, (code, _) in found.items()}
    objective = VariantObjective("regression", beta=0.25)
    own = objective.of_blocks(**given, blocks=found, log_variance=log_variance, modalities=["audio", "text"])
    kl = {name: value for name, value in own.parts.items() if name.startswith("kl/")}
    assert sorted(kl) == ["kl/audio", "kl/text", "kl/z_y"]
    assert not any("mmd" in name for name in own.parts)
    code, known = found["audio"]
    torch.testing.assert_close(kl["kl/audio"], gaussian_kl(code, -code, known))
    costs = sum(value for name, value in own.parts.items() if not name.startswith("kl/"))
    torch.testing.assert_close(own.total, costs + 0.25 * sum(kl.values()))


@pytest.mark.parametrize("beta", [-1.0, float("nan"), True])
def test_impossible_weight(beta):
    with pytest.raises(ConfigurationError, match="weight of kl"):
        VariantObjective("regression", beta=beta)
