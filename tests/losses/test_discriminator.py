"""The adversarial measure of dependence against what is known of it."""

import math

import pytest
import torch
from torch import nn

from mfm.errors import ConfigurationError
from mfm.losses.discriminator import DiscriminatorDependence, _partners, reverse_gradient
from mfm.losses.hsic import normalized_hsic


def everyone(code):
    return code, torch.ones(len(code), dtype=torch.bool)


def train_alone(measure, draw, steps=120):
    """Fit the networks to fresh batches; the codes are given."""
    optimizer = torch.optim.Adam(measure.parameters(), lr=0.01)
    for _ in range(steps):
        z_y, z_a = draw()
        optimizer.zero_grad()
        measure(z_y, {"a": everyone(z_a)})["independence/a"].backward()
        optimizer.step()


def independent(count=256):
    return torch.randn(count, 2), torch.randn(count, 3)


def dependent(count=256):
    """The first of Z_a is the square of one of Z_y: uncorrelated, and fully dependent."""
    z_y, z_a = independent(count)
    return z_y, torch.cat([z_y[:, :1] ** 2 + 0.1 * z_a[:, :1], z_a[:, 1:]], dim=1)


def pull(measure, draw):
    """Value and the gradient's norm in the codes of a large batch."""
    z_y, z_a = (one.requires_grad_() for one in draw(2000))
    value = measure(z_y, {"a": everyone(z_a)})["independence/a"]
    gradients = torch.autograd.grad(value, (z_y, z_a))
    return float(value.detach()), float(torch.cat([one.flatten() for one in gradients]).norm())


def test_reversed_gradients():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = reverse_gradient(x)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, -1.0])).sum().backward()
    assert torch.equal(x.grad, torch.tensor([-3.0, 1.0]))


def test_it_starts_at_0_without_any_pull():
    torch.manual_seed(0)
    assert pull(DiscriminatorDependence(2, {"a": 3}), dependent) == (pytest.approx(0.0, abs=1e-6), 0.0)


def test_independent_codes_stay_at_0_and_dependent_ones_are_found():
    torch.manual_seed(0)
    found = {}
    for draw in (independent, dependent):
        measure = DiscriminatorDependence(2, {"a": 3})
        train_alone(measure, draw)
        found[draw] = pull(measure, draw)
    assert abs(found[independent][0]) < 0.01
    assert 0.05 < found[dependent][0] < math.log(2.0)
    assert found[independent][1] < 0.1 * found[dependent][1]


def test_the_value_approaches_the_divergence_where_it_is_known():
    """Z_a = Z_y = a fair sign: p(joint) has two points of 1/2, the product four of 1/4; JS from both mixed by hand."""
    torch.manual_seed(0)

    def draw(count=256):
        sign = torch.randint(2, (count, 1)) * 2.0 - 1.0
        return sign, sign.clone()

    measure = DiscriminatorDependence(1, {"a": 1})
    train_alone(measure, draw)
    joint, product = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.full((4,), 0.25)
    mixed = (joint + product) / 2
    expected = 0.5 * (torch.xlogy(joint, joint / mixed) + torch.xlogy(product, product / mixed)).sum()
    assert pull(measure, draw)[0] == pytest.approx(float(expected), abs=0.02)


def test_one_optimiser_makes_a_code_independent():
    """As in MFM: a decoder that sees s too needs only p from the code, and only the adversary keeps s out of it."""

    def run(weight):
        torch.manual_seed(0)
        encoder, decoder, measure = nn.Linear(3, 2), nn.Linear(3, 3), DiscriminatorDependence(1, {"a": 2})
        optimizer = torch.optim.Adam(nn.ModuleList([encoder, decoder, measure]).parameters(), lr=0.01)

        def draw(count):
            s, p = torch.randn(count, 1), torch.randn(count, 1)
            return s, torch.cat([s + p, s - p, p], dim=1)

        for _ in range(300):
            s, x = draw(64)
            z_a = encoder(x)
            loss = (decoder(torch.cat([s, z_a], dim=1)) - x).square().mean()
            loss = loss + weight * measure(s, {"a": everyone(z_a)})["independence/a"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        s, x = draw(1000)
        with torch.no_grad():
            z_a = encoder(x)
            error = (decoder(torch.cat([s, z_a], dim=1)) - x).square().mean()
            return float(normalized_hsic(s, z_a)), float(error)

    (before, _), (after, error) = run(0.0), run(1.0)
    assert before > 0.1
    assert after < 0.2 * before
    assert error < 0.05


def test_absent_samples_have_no_part():
    torch.manual_seed(0)
    measure = DiscriminatorDependence(2, {"a": 3})
    train_alone(measure, dependent, steps=20)
    z_y, z_a = dependent(12)
    known = torch.arange(12) % 3 != 0
    values, gradients = [], []
    for fill in (0.0, 1e6):
        y, a = z_y.clone(), z_a.clone()
        y[~known], a[~known] = fill, fill
        y.requires_grad_()
        a.requires_grad_()
        torch.manual_seed(5)
        value = measure(y, {"a": (a, known)})["independence/a"]
        value.backward()
        values.append(value.detach())
        gradients.append(a.grad)
    assert torch.equal(*values)
    assert torch.equal(*gradients)
    assert not gradients[0][~known].any()
    assert gradients[0][known].any()


def test_too_few_samples_say_nothing():
    measure = DiscriminatorDependence(2, {"a": 3})
    nn.init.normal_(measure.networks[0][-1].weight)
    z_y, z_a = dependent(6)
    for count in (0, 1, 3):
        code = z_a.clone().requires_grad_()
        value = measure(z_y, {"a": (code, torch.arange(6) < count)})["independence/a"]
        value.backward()
        assert value == 0
        assert not code.grad.any()


def test_partners_are_others_that_are_known():
    torch.manual_seed(0)
    for count in (2, 3, 17):
        known = torch.rand(20).argsort() < count
        partners = _partners(known)[known]
        assert known[partners].all()
        assert (partners != known.nonzero()[:, 0]).all()
        assert len(partners.unique()) == count


def test_scale_and_shift_of_codes_hide_nothing():
    torch.manual_seed(0)
    measure = DiscriminatorDependence(2, {"a": 3})
    train_alone(measure, dependent, steps=30)
    z_y, z_a = dependent()
    values = []
    for scale, shift in ((1.0, 0.0), (1e-3, 5e-3)):
        torch.manual_seed(5)
        values.append(measure(z_y, {"a": everyone(z_a * scale + shift)})["independence/a"])
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-4)


def test_autocast_and_half_precision_compute_in_32_bits():
    measure = DiscriminatorDependence(2, {"a": 3})
    z_y, z_a = dependent()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure(z_y.bfloat16(), {"a": everyone(z_a.bfloat16())})["independence/a"].dtype == torch.float32


def test_the_penalty_reaches_networks_and_no_code_and_is_no_part_of_the_value():
    torch.manual_seed(0)
    measure = DiscriminatorDependence(2, {"a": 3})
    train_alone(measure, dependent, steps=30)
    z_y, z_a = dependent()
    results = []
    for penalty in (0.0, 5.0):
        measure.penalty = penalty
        measure.zero_grad()
        code = z_a.clone().requires_grad_()
        torch.manual_seed(5)
        value = measure(z_y, {"a": everyone(code)})["independence/a"]
        value.backward()
        results.append((value.detach(), code.grad, measure.networks[0][0].weight.grad.clone()))
    (value, pull_, gradient), (same, same_pull, steadied) = results
    torch.testing.assert_close(value, same)
    torch.testing.assert_close(pull_, same_pull)
    assert not torch.allclose(gradient, steadied)
    with torch.no_grad():
        torch.manual_seed(5)
        torch.testing.assert_close(measure(z_y, {"a": everyone(z_a)})["independence/a"], value)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"hidden": 0}, "width"), ({"hidden": 2.5}, "width"), ({"hidden": True}, "width"), ({"penalty": -1.0}, "penalty")],
)
def test_refusals(options, said):
    with pytest.raises(ConfigurationError, match=f"the {said} of the discriminator"):
        DiscriminatorDependence(2, {"a": 3}, **options)
