"""The diagonal state-space recurrence against its loop, over real and complex numbers, and what it may not see."""

import math

import pytest
import torch

from mfm.models.encoders import ENCODERS
from mfm.models.fusion import FUSIONS
from mfm.models.state_space import DiagonalStateSpace


def plain_recurrence(layer, x):
    """s_t = a s_{t-1} + b x_t, y_t = Re(sum_n c_n s_t,n) + d x_t, channel by channel and step by step."""
    width, states = layer.read_real.shape
    y = torch.zeros_like(x)
    for channel in range(width):
        step = float(layer.log_step[channel].exp())
        rates = layer.log_rate.view(width, states)[channel].exp()
        frequencies = layer.frequency.view(width, states)[channel]
        a = [complex(torch.exp(step * torch.complex(-r, w))) for r, w in zip(rates, frequencies, strict=True)]
        c = torch.complex(layer.read_real, layer.read_imaginary)[channel].tolist()
        state = [0j] * states
        for sample in range(len(x)):
            state = [0j] * states
            for t in range(x.shape[1]):
                value = float(x[sample, t, channel])
                state = [
                    own * before + math.sqrt(1 - abs(own) ** 2) * value for own, before in zip(a, state, strict=True)
                ]
                y[sample, t, channel] = (
                    sum((k * s).real for k, s in zip(c, state, strict=True)) + float(layer.skip[channel]) * value
                )
    return y


def test_the_convolution_is_the_recurrence():
    torch.manual_seed(0)
    layer = DiagonalStateSpace(3, 4).double()
    with torch.no_grad():
        layer.log_rate += 0.3 * torch.randn_like(layer.log_rate)
        layer.frequency += 0.3 * torch.randn_like(layer.frequency)
        x = torch.randn(2, 9, 3, dtype=torch.float64)
        torch.testing.assert_close(layer(x), plain_recurrence(layer, x))
        torch.testing.assert_close(layer(x[:, :1]), plain_recurrence(layer, x[:, :1]))


def test_it_is_stable_over_thousands_of_steps():
    torch.manual_seed(0)
    layer = DiagonalStateSpace(8, 4)
    y = layer(torch.randn(1, 4000, 8))
    assert bool(y.isfinite().all())
    assert 0.1 < float(y.detach().std()) < 10


def test_it_is_float32_under_autocast():
    layer = DiagonalStateSpace(3, 2)
    x = torch.randn(2, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.float32
        torch.testing.assert_close(layer(x), layer(x.clone()))
        encoder = ENCODERS.build("ssm", input_dim=3, code_dim=2)
        assert bool(encoder(x, torch.tensor([5, 2])).isfinite().all())


def test_steps_that_come_later_change_nothing():
    torch.manual_seed(0)
    layer = DiagonalStateSpace(3, 2)
    x = torch.randn(2, 6, 3)
    torch.testing.assert_close(layer(x)[:, :4], layer(x[:, :4]))


@pytest.mark.parametrize("names", [("a",), ("a", "b", "type")], ids=len)
def test_a_fusion_of_absent_modalities_is_zero_and_of_others_their_sum(names):
    torch.manual_seed(0)
    fusion = FUSIONS.build(
        {"name": "ssm", "width": 4}, feature_dims=dict.fromkeys(names, 2), code_dim=3, aligned=False
    ).eval()
    features = {name: torch.randn(2, 3 + place, 2) for place, name in enumerate(names)}
    lengths = {name: torch.tensor([0, 2]) for name in names}
    code = fusion(features, lengths)
    assert not bool(code[0].any())
    ends = [stack(features[name][1:, :2], torch.tensor([2])) for name, stack in fusion.stacks.items()]
    torch.testing.assert_close(code[1:], fusion.to_code(torch.cat(ends, dim=1)))
