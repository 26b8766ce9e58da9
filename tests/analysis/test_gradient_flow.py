"""Gradient flow against one call of autograd per output, in float64."""

import pytest
import torch

from mfm.analysis.gradient_flow import gradient_flow
from mfm.errors import ConfigurationError
from mfm.models.decoders import DECODERS


def plain_flow(decode, f_y, f_i, lengths):
    """Autograd, one output of one sample at a time."""
    rows = []
    for b in range(len(f_y)):
        y = f_y[b : b + 1].clone().requires_grad_()
        decoded = decode(y, f_i[b : b + 1])
        row = torch.full((decoded.shape[1],), torch.nan, dtype=f_y.dtype)
        for t in range(int(lengths[b])):
            gradients = [torch.autograd.grad(value, y, retain_graph=True)[0] for value in decoded[0, t]]
            row[t] = torch.stack(gradients).square().sum()
        rows.append(row)
    return torch.stack(rows)


def example(name, dim=4, f_y=3, f_i=2, batch=3):
    torch.manual_seed(0)
    decoder = DECODERS.build(name, f_y=f_y, f_i=f_i, output_dim=dim).double().eval()
    factors = torch.rand(batch, f_y, dtype=torch.float64), torch.rand(batch, f_i, dtype=torch.float64)
    return decoder, *factors


@pytest.mark.parametrize("direction", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("name", ["free_running", "teacher_forced", "mlp"])
@pytest.mark.parametrize("memory", [1, 2**12, 2**28])
def test_equals_autograd_output_by_output(name, direction, memory):
    decoder, f_y, f_i = example(name)
    lengths = torch.tensor([5, 2, 0])

    def decode(y, i):
        return decoder(y, i, 5)

    flow = gradient_flow(decode, f_y, f_i, lengths, direction=direction, memory=memory)
    torch.testing.assert_close(flow, plain_flow(decode, f_y, f_i, lengths), rtol=1e-10, atol=0.0, equal_nan=True)
    assert flow[0].isfinite().all()
    assert flow.isnan().sum() == 3 + 5
    assert not flow.requires_grad


def test_reverse_where_outputs_are_fewer():
    decoder, f_y, f_i = example("free_running", dim=1, f_y=6)
    calls = []

    def decode(y, i):
        calls.append(y)
        return decoder(y, i, 2)

    flow = gradient_flow(decode, f_y, f_i, torch.tensor([2, 1, 1]))
    expected = plain_flow(lambda y, i: decoder(y, i, 2), f_y, f_i, torch.tensor([2, 1, 1]))
    torch.testing.assert_close(flow, expected, rtol=1e-10, atol=0.0, equal_nan=True)
    assert len(calls) == 2  # to learn the shape, and one pass that both outputs are pulled back through


def test_linear_decoder_has_the_norm_of_its_weights():
    weight = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = gradient_flow(
        lambda y, i: (y @ weight.t())[:, None].expand(-1, 4, -1) * torch.arange(4)[:, None],
        torch.rand(2, 3, dtype=torch.float64),
        torch.rand(2, 1, dtype=torch.float64),
        torch.tensor([4, 4]),
    )
    torch.testing.assert_close(flow[0], weight.square().sum() * torch.arange(4).double().square())


def test_no_samples_and_unknown_direction():
    decoder, f_y, f_i = example("mlp")
    assert gradient_flow(lambda y, i: decoder(y, i, 3), f_y[:0], f_i[:0], torch.zeros(0)).shape == (0, 0)
    with pytest.raises(ConfigurationError, match="did you mean 'reverse'"):
        gradient_flow(lambda y, i: decoder(y, i, 3), f_y, f_i, torch.tensor([1, 1, 1]), direction="revers")
