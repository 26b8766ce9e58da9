"""Convolutional parts for images: an image of C channels is one step of C * H * W features, channel by channel.

`conv` is an encoder, a fusion and a decoder. They work on square images whose number of channels is 1 or 3 unless said
otherwise; the side follows from the number of features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.errors import ConfigurationError
from mfm.models.decoders import DECODERS, Decoder
from mfm.models.encoders import ENCODERS, Encoder
from mfm.models.fusion import FUSIONS, Fusion, longest
from mfm.models.masking import masked_mean, step_mask, zero_padding
from mfm.models.per_modality import PerModality
from mfm.models.registry import Rate, Size

_SMALLEST = 4  # side at which convolution ends and a linear map begins


class ImageShape(NamedTuple):
    """Channels and sides of an image."""

    channels: int
    height: int
    width: int


def image_shape(dim: int, channels: int | None = None) -> ImageShape:
    """The square image that a step of `dim` features is.

    Args:
        dim: Features D.
        channels: C; by default 1 or 3, whichever makes a square (no number of features is both).

    Raises:
        ConfigurationError: D / C is no square.

    >>> image_shape(64), image_shape(3072)
    (ImageShape(channels=1, height=8, width=8), ImageShape(channels=3, height=32, width=32))
    """
    for count in (1, 3) if channels is None else (channels,):
        side = math.isqrt(dim // count)
        if count * side * side == dim:
            return ImageShape(count, side, side)
    said = "1 or 3 channels" if channels is None else f"{channels} channel(s)"
    raise ConfigurationError(
        f"a step of {dim} features is no square image of {said}; give other channels, or choose a part that is not conv"
    )


def _sides(side: int) -> list[int]:
    """Sides from the image down, halved and rounded up until they are small."""
    sides = [side]
    while sides[-1] > _SMALLEST:
        sides.append((sides[-1] + 1) // 2)
    return sides


class _Features(nn.Module):
    """(B, T, D) images to (B, T, out) features: 3 x 3 convolutions that halve the side and double the width."""

    def __init__(self, dim: int, out: int, channels: int | None, width: int) -> None:
        super().__init__()
        self.shape = image_shape(dim, channels)
        sides = _sides(self.shape.height)
        widths = [self.shape.channels, *(width * 2**level for level in range(len(sides) - 1))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * sides[-1] ** 2, out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x.reshape(-1, *self.shape))
        return features.reshape(*x.shape[:2], -1)


@ENCODERS.register("conv")
class ConvEncoder(Encoder):
    """Convolutions on each image, their features averaged over real steps and mapped linearly to the code.

    Args:
        input_dim: Features D_i of a step, C * H * W.
        code_dim: Size of Z_ai.
        channels: Channels of an image; 1 or 3 by default.
        width: Channels of the first convolution; each halving of the side doubles them.
        hidden: Width of the layer between convolutions and code.
    """

    def __init__(
        self, input_dim: int, code_dim: int, *, channels: Size | None = None, width: Size = 16, hidden: Size = 128
    ) -> None:
        super().__init__()
        self.features = _Features(input_dim, hidden, channels, width)
        self.to_code = nn.Linear(hidden, code_dim)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        x = zero_padding(x, lengths)
        pooled = masked_mean(self.features(x), step_mask(lengths, x.shape[1]))
        code: Tensor = self.to_code(pooled)
        return code.masked_fill((lengths == 0)[:, None], 0.0)


@FUSIONS.register("conv")
class ConvFusion(Fusion):
    """Convolutions on each modality's images, then a perceptron on all features and flags of who is present.

    Args:
        feature_dims: Modality -> D_m, C * H * W.
        code_dim: Size of Z_y.
        aligned: Not used.
        channels: Channels of an image; 1 or 3 by default.
        width: Channels of the first convolution; each halving of the side doubles them.
        hidden: Width of each modality's features and of the perceptron's layer.
        dropout: Dropout after that layer.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        code_dim: int,
        aligned: bool,
        *,
        channels: Size | None = None,
        width: Size = 16,
        hidden: Size = 128,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.features = PerModality(
            {name: _Features(dim, hidden, channels, width) for name, dim in sorted(feature_dims.items())}
        )
        self.to_code = nn.Sequential(
            nn.Linear((hidden + 1) * len(feature_dims), hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, code_dim),
        )  # fmt: skip

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """See `Fusion.forward`."""
        parts, flags = [], []
        for name, network in self.features.items():
            x = zero_padding(features[name], lengths[name])
            parts.append(masked_mean(network(x), step_mask(lengths[name], x.shape[1])))
            flags.append((lengths[name] > 0)[:, None].to(x.dtype))
        code: Tensor = self.to_code(torch.cat([*parts, *flags], dim=1))
        return code.masked_fill((longest(lengths) == 0)[:, None], 0.0)


@DECODERS.register("conv")
class ConvDecoder(Decoder):
    """Perceptron on the factors, then convolutions that double the side up to the image; the same image at every step.

    Args:
        f_y: Size of F_y.
        f_i: Size of F_ai.
        output_dim: Features D_i of a step, C * H * W.
        channels: Channels of an image; 1 or 3 by default.
        width: Channels before the last convolution; they double with each halving of the side.
        hidden: Width of the layer that joins both factors.
    """

    def __init__(
        self,
        f_y: int,
        f_i: int,
        output_dim: int,
        *,
        channels: Size | None = None,
        width: Size = 16,
        hidden: Size = 128,
    ) -> None:
        super().__init__()
        self.shape = image_shape(output_dim, channels)
        self.sides = _sides(self.shape.height)[::-1]
        widths = [width * 2**level for level in range(len(self.sides))][::-1]
        self.wide = widths[0]
        self.join = nn.Sequential(
            nn.Linear(f_y + f_i, hidden), nn.ReLU(), nn.Linear(hidden, self.wide * self.sides[0] ** 2), nn.ReLU()
        )
        self.grow = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.paint = nn.Conv2d(width, self.shape.channels, 3, padding=1)

    def forward(self, f_y: Tensor, f_i: Tensor, steps: int, inputs: Tensor | None = None) -> Tensor:
        """See `Decoder.forward`."""
        joined = self.join(torch.cat([f_y, f_i], dim=1))
        x = joined.reshape(-1, self.wide, self.sides[0], self.sides[0])
        for side, convolution in zip(self.sides[1:], self.grow, strict=True):
            x = F.interpolate(convolution(x).relu(), size=(side, side))
        image: Tensor = self.paint(x)
        return image.reshape(len(f_y), 1, -1).expand(-1, steps, -1)
