"""Equal to the paper's equations, written step by step: outputs, every part of the loss, every gradient."""

import pytest
import torch
from batches import full_batch, make_batch
from plain_mfm import PlainMFM, plain_objective

from mfm.losses import MFMObjective
from mfm.models import MFM

DIMS = {"text": 7, "audio": 3, "vision": 5}
LDA = {"text": 0.7, "audio": 0.01, "vision": 2.0}


def build(names, dtype, **options):
    torch.manual_seed(3)
    fusion = {
        "name": "mfn",
        "hidden": {"default": 5, names[0]: 9},
        "memory": 6,
        "attention1": 8,
        "attention2": 7,
        "gate1": 4,
        "gate2": 10,
        **options,
    }
    return MFM(
        {n: DIMS[n] for n in names},
        2,
        z_y=6,
        z={"default": 5, names[0]: 8},
        f_y=12,
        f={"default": 9, names[0]: 11},
        fusion=fusion,
    ).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
@pytest.mark.parametrize("names", [("text",), ("text", "audio"), ("text", "audio", "vision")])
@pytest.mark.parametrize("window", [2, 1, 3])
def test_equals_a_plain_step_by_step_implementation(names, dtype, tolerance, window):
    model = build(names, dtype, window=window).train()
    plain = PlainMFM(model)
    features, lengths, present = full_batch(model.feature_dims, 7, 9, dtype=dtype)
    target = torch.randn(7, 2, dtype=dtype)
    mask = torch.ones(7, 2, dtype=torch.bool)

    output = model(features, lengths, present)
    objective = MFMObjective(
        "regression", reconstruction={n: LDA[n] for n in names}, mmd=3.0, kernel="original", mmd_on="marginals"
    )
    torch.manual_seed(11)
    total, parts = objective(
        output.prediction,
        target,
        mask,
        output.reconstruction,
        features,
        lengths,
        present,
        output.codes.z_y,
        output.codes.z,
    )
    total.backward()

    prediction, reconstruction, z_y, z = plain(features)
    torch.manual_seed(11)
    priors = {
        "z_y": torch.randn(z_y.shape, dtype=dtype),
        **{n: torch.randn(z[n].shape, dtype=dtype) for n in sorted(z)},
    }
    expected_total, expected_parts = plain_objective(
        prediction, target, reconstruction, features, z_y, z, priors, LDA, lda_mmd=3.0
    )
    expected_total.backward()

    def same(actual, expected):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    same(output.prediction, prediction)
    same(output.codes.z_y, z_y)
    assert parts.keys() == expected_parts.keys()
    for n in names:
        same(output.reconstruction[n], reconstruction[n])
        same(output.codes.z[n], z[n])
    for key, part in parts.items():
        same(part, expected_parts[key])
    same(total, expected_total)
    gradients = dict(model.named_parameters())
    assert gradients.keys() == plain.weights.keys()
    for key, parameter in gradients.items():
        assert parameter.grad.abs().max() > 0, key
        same(parameter.grad, plain.weights[key].grad)


def test_memory_fusion_with_modalities_that_end_at_different_steps():
    """Each sample of a padded batch equals the plain loop over that sample, which holds what is over."""
    model = build(("text", "audio", "vision"), torch.float64, window=2)
    plain = PlainMFM(model)
    ends = {"text": [5, 0, 3, 1, 6], "audio": [2, 4, 0, 1, 6], "vision": [4, 3, 0, 7, 0]}
    features, lengths, _ = make_batch(model.feature_dims, ends, steps=dict.fromkeys(ends, 9), dtype=torch.float64)
    z_y = model.fusion(features, lengths)
    expected = []
    for row in range(5):
        own = {n: ends[n][row] for n in ends}
        sample = {n: features[n][row : row + 1, : max(own.values())] for n in ends}
        expected.append(plain.encode_all(sample, own))
    expected = torch.cat(expected)
    torch.testing.assert_close(z_y, expected, rtol=1e-10, atol=1e-10)
    direction = torch.randn(z_y.shape, dtype=torch.float64)
    (z_y * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in model.fusion.named_parameters():
        wanted = plain.weights[f"fusion.{name}"].grad
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_parameter_counts_follow_the_formula():
    model = build(("text", "audio"), torch.float32)
    counts = model.parameter_counts()
    assert counts["total"] == sum(p.numel() for p in model.parameters())

    def lstm(d, h):
        return 4 * h * (d + h + 2)

    def linear(d, h):
        return h * (d + 1)

    assert counts["encoders/text"] == lstm(7, 8) + linear(8, 8)
    assert counts["factors/text"] == linear(8, 11) + linear(11, 11)
    assert counts["decoders/text"] == lstm(23, 23) + linear(23, 7)
    assert counts["decoders/audio"] == lstm(21, 21) + linear(21, 3)
    assert counts["factor_y"] == linear(6, 12) + linear(12, 12)
    assert counts["head"] == linear(12, 12) + linear(12, 2)
    total, window = 9 + 5, 2 * (9 + 5)
    assert counts["fusion"] == (
        lstm(7, 9)
        + lstm(3, 5)
        + linear(window, 8)
        + linear(8, window)
        + linear(window, 7)
        + linear(7, 6)
        + linear(window + 6, 4)
        + linear(4, 6)
        + linear(window + 6, 10)
        + linear(10, 6)
        + linear(total + 6, 6)
    )
