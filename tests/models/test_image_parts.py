"""Convolutional parts: shapes, masks, gradients."""

import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.models import DECODERS, ENCODERS, FUSIONS, MFM
from mfm.models.images import image_shape

DIMS = {"a": 8 * 8, "b": 3 * 16 * 16}


def batch(size=5, steps=1):
    features = {name: torch.randn(size, steps, dim) for name, dim in DIMS.items()}
    lengths = {name: torch.full((size,), steps) for name in DIMS}
    present = {name: torch.ones(size, dtype=torch.bool) for name in DIMS}
    return features, lengths, present


def model(**options):
    torch.manual_seed(0)
    small = {"width": 4, "hidden": 16}
    parts = {name: {"name": "conv", **small} for name in ("encoder", "fusion", "decoder")}
    return MFM(DIMS, 10, z_y=3, z=4, f_y=6, f=6, **parts, **options)


def test_shapes_of_square_images():
    assert image_shape(784) == (1, 28, 28)
    assert image_shape(3072) == (3, 32, 32)
    assert image_shape(2 * 25, 2) == (2, 5, 5)
    assert not {side * side for side in range(1, 300)} & {3 * side * side for side in range(1, 300)}


@pytest.mark.parametrize(("dim", "channels"), [(74, None), (64, 2), (2, None)])
def test_no_square_image_is_refused(dim, channels):
    with pytest.raises(ConfigurationError, match=str(dim)):
        image_shape(dim, channels)


@pytest.mark.parametrize("dim", [1, 9, 25, 64, 784, 3 * 17 * 17, 3072])
def test_any_side(dim):
    code = ENCODERS.build({"name": "conv", "width": 2, "hidden": 4}, input_dim=dim, code_dim=3)(
        torch.randn(2, 1, dim), torch.tensor([1, 1])
    )
    assert code.shape == (2, 3)
    decoder = DECODERS.build({"name": "conv", "width": 2, "hidden": 4}, f_y=3, f_i=2, output_dim=dim)
    assert decoder(torch.randn(2, 3), torch.randn(2, 2), 1).shape == (2, 1, dim)


def test_channels_are_not_mixed_up_with_rows():
    """A constant channel stays one through a convolution of one pixel's reach, wherever it is."""
    decoder = DECODERS.build({"name": "conv", "width": 2, "hidden": 4}, f_y=1, f_i=1, output_dim=DIMS["b"])
    with torch.no_grad():
        decoder.paint.weight.zero_()
        decoder.paint.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    image = decoder(torch.zeros(1, 1), torch.zeros(1, 1), 2)
    torch.testing.assert_close(image[0, 1], torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(256))


def test_gradients_reach_every_parameter():
    mfm = model()
    output = mfm(*batch())
    total = output.prediction.square().sum() + sum(x.square().sum() for x in output.reconstruction.values())
    total.backward()
    for name, parameter in mfm.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_an_absent_image_changes_nothing():
    mfm = model().eval()
    features, lengths, present = batch(steps=2)
    lengths["a"] = torch.tensor([2, 2, 1, 0, 2])
    present["b"] = torch.tensor([True, False, True, True, True])
    before = mfm(features, lengths, present)
    for garbage in (7.0, torch.nan):
        features["a"][2, 1:], features["a"][3], features["b"][1] = garbage, garbage, garbage
        after = mfm(features, lengths, present)
        torch.testing.assert_close(after.prediction, before.prediction)
        torch.testing.assert_close(after.codes.z_y, before.codes.z_y)
        for name in DIMS:
            torch.testing.assert_close(after.codes.z[name], before.codes.z[name])
    assert bool((before.codes.z["a"][3] == 0).all())
    nobody = {name: torch.zeros(5, dtype=torch.bool) for name in DIMS}
    assert bool((mfm(features, lengths, nobody).codes.z_y == 0).all())


def test_steps_of_a_sequence_of_images_are_averaged():
    encoder = ENCODERS.build({"name": "conv", "width": 2, "hidden": 8}, input_dim=64, code_dim=3)
    x = torch.randn(1, 2, 64)
    each = torch.stack([encoder(x[:, step : step + 1], torch.tensor([1])) for step in range(2)])
    torch.testing.assert_close(encoder(x, torch.tensor([2])), each.mean(dim=0))


def test_all_three_kinds_know_conv():
    assert all("conv" in registry.names() for registry in (ENCODERS, FUSIONS, DECODERS))
    with pytest.raises(ConfigurationError, match="channel"):
        FUSIONS.build({"name": "conv", "chanels": 3}, feature_dims=DIMS, code_dim=2, aligned=True)
