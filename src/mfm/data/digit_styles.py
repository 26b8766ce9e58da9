"""A second style for images of digits, whose private factors are known: rotation, colour and texture."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

SIDE = 16
"""Pixels of a side of a rendered image."""

STYLE_FACTORS: dict[str, tuple[str, ...]] = {
    "rotation": ("angle",),
    "colour": ("cos", "sin"),
    "texture": ("cos", "sin"),
}
"""Private factors of a style in the order of `style_factors`; angles on a circle have a cosine and a sine."""

_STEEPEST = np.deg2rad(25.0)
_STRIPES = 1.5  # periods over the image's side
_FLOOR, _DEPTH = 0.05, 0.3  # brightness of the background's dark stripes, and what bright ones have more

Values = NDArray[np.float64]


def draw_styles(count: int, generator: np.random.Generator) -> Values:
    """Draw styles, (N, 3): rotation within 25 degrees, hue of the ink in [0, 1), direction of stripes in [0, pi)."""
    low, high = np.array([-_STEEPEST, 0.0, 0.0]), np.array([_STEEPEST, 1.0, np.pi])
    return generator.uniform(low, high, size=(count, 3))


def style_factors(styles: Values) -> Values:
    """The factors in the order of `STYLE_FACTORS`, each in [-1, 1] and without a jump, (N, 5)."""
    angle, hue, direction = styles.T
    turn, twice = 2 * np.pi * hue, 2 * direction  # stripes look the same after half a turn
    return np.stack([angle / _STEEPEST, np.cos(turn), np.sin(turn), np.cos(twice), np.sin(twice)], axis=1)


def render_digit(image: Values, style: Values) -> NDArray[np.uint8]:
    """Render a grey digit in a style.

    Args:
        image: (h, w) ink in [0, 1].
        style: (3,) of `draw_styles`.

    Returns:
        (3, SIDE, SIDE): the digit, turned, in coloured ink on grey stripes.
    """
    from scipy import ndimage

    angle, hue, direction = style
    grid = (np.arange(SIDE) + 0.5) / SIDE - 0.5  # centre of the image at 0, sides of length 1
    y, x = np.meshgrid(grid, grid, indexing="ij")
    back = np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x])
    size = np.array(image.shape)[:, None, None]
    ink = ndimage.map_coordinates(image, (back + 0.5) * size - 0.5, order=1, mode="constant")
    wave = np.sin(2 * np.pi * _STRIPES * (np.cos(direction) * x + np.sin(direction) * y))
    ground = _FLOOR + _DEPTH * 0.5 * (1.0 + wave)
    colour = np.array(colorsys.hsv_to_rgb(hue, 0.8, 1.0))[:, None, None]
    pixels = ground * (1.0 - ink) + colour * ink
    rendered: NDArray[np.uint8] = np.round(255 * np.clip(pixels, 0.0, 1.0)).astype(np.uint8)
    return rendered
