"""Figures of images: grids of content and style, walks, draws and completed modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mfm.analysis.generation import Encoded, Recipe, realise
from mfm.data.batch import AffectBatch
from mfm.data.records import FloatArray
from mfm.models.factor_model import FactorModel
from mfm.models.images import ConvDecoder, ImageShape
from mfm.models.mfm import Codes
from mfm.models.normalization import Normalizer

_GAP = 1  # pixels between images
_CELL = 0.42  # inches of an image in a figure
_REACH = 2.0  # deviations that a walk along a direction goes each way
_DIRECTIONS = 4  # of a modality's codes that are walked


class ImagePanel(NamedTuple):
    """A grid of images of one modality.

    Attributes:
        title: Title.
        images: Rows of images (C, H, W) in [0, 1], all of one shape; None leaves a place empty.
        rows: Names of the rows; empty for none.
        columns: Names of the columns; empty for none.
    """

    title: str
    images: Sequence[Sequence[FloatArray | None]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()


def image_shapes(model: FactorModel) -> dict[str, ImageShape]:
    """Modality -> shape of its images, for modalities that are decoded as images."""
    decoders = model.decoders.items()
    return {name: decoder.shape for name, decoder in decoders if isinstance(decoder, ConvDecoder)}


def as_image(features: FloatArray, shape: ImageShape) -> FloatArray:
    """The first step of (T, C * H * W) as an image (C, H, W), clipped to [0, 1]."""
    image: FloatArray = np.clip(features[0].reshape(shape), 0.0, 1.0)
    return image


def image_figure(panels: Sequence[ImagePanel], title: str) -> Figure:
    """Draw grids beside each other.

    Args:
        panels: The grids, each with at least one image.
        title: Title of the figure.
    """
    widths = [max(len(row) for row in panel.images) for panel in panels]
    height = max(len(panel.images) for panel in panels)
    size = (_CELL * sum(widths) + 0.9 * len(panels) + 0.4, _CELL * height + 1.1)
    figure = Figure(figsize=(max(size[0], 4.0), max(size[1], 2.0)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.add_gridspec(1, len(panels), width_ratios=widths)
    for place, (panel, width) in enumerate(zip(panels, widths, strict=True)):
        axes = figure.add_subplot(grid[0, place])
        picture, (high, wide) = _mosaic(panel.images, width)
        axes.imshow(picture, interpolation="nearest", vmin=0.0, vmax=1.0)
        axes.set_title(panel.title, fontsize=8)
        axes.set_yticks(np.arange(len(panel.rows)) * (high + _GAP) + high / 2 - 0.5, panel.rows, fontsize=7)
        axes.set_xticks(np.arange(len(panel.columns)) * (wide + _GAP) + wide / 2 - 0.5, panel.columns, fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def _mosaic(images: Sequence[Sequence[FloatArray | None]], width: int) -> tuple[FloatArray, tuple[int, int]]:
    """One picture (H, W, 3) with white gaps, and the size of an image in it."""
    _, high, wide = next(one.shape for row in images for one in row if one is not None)
    picture = np.ones((len(images) * (high + _GAP) - _GAP, width * (wide + _GAP) - _GAP, 3), dtype=np.float32)
    for r, row in enumerate(images):
        for c, one in enumerate(row):
            if one is not None:
                top, left = r * (high + _GAP), c * (wide + _GAP)
                picture[top : top + high, left : left + wide] = one[:3].transpose(1, 2, 0)  # grey is repeated
    return picture, (high, wide)


# --------------------------------------------------------------------------------------------------------- panels
def swap_panels(
    model: FactorModel,
    normalizer: Normalizer,
    encoded: Encoded,
    real: Mapping[str, Mapping[int, FloatArray]],
    contents: Sequence[int],
    styles: Sequence[int],
) -> list[ImagePanel]:
    """One grid a modality: Z_y of the row's sample with the Z_ai of the column's; real images at the edges.

    Args:
        model: The model.
        normalizer: The model's.
        encoded: The samples.
        real: Modality -> sample -> its features (T, D) in the file's units; absent ones are left out.
        contents: Samples of the rows.
        styles: Samples of the columns.
    """
    rows = torch.tensor([content for content in contents for _ in styles])
    columns = torch.tensor([style for _ in contents for style in styles])
    codes = Codes(encoded.codes.z_y[rows], {name: z[columns] for name, z in encoded.codes.z.items()})
    made = _decoded(model, normalizer, codes)
    panels = []
    for name, shape in image_shapes(model).items():
        edge = [as_image(real[name][one], shape) if one in real[name] else None for one in styles]
        grid: list[list[FloatArray | None]] = [[None, *edge]]
        for place, content in enumerate(contents):
            first = as_image(real[name][content], shape) if content in real[name] else None
            grid.append([first, *made[name][place * len(styles) : (place + 1) * len(styles)]])
        panels.append(ImagePanel(f"{name}: content (left) with style (top)", grid))
    return panels


def recipe_panels(
    model: FactorModel,
    sequences: Mapping[str, Sequence[FloatArray]],
    width: int,
    height: int,
    columns: Sequence[str] = (),
) -> list[ImagePanel]:
    """One grid a modality of what was generated, in its order, `width` images a row, at most `height` rows."""
    panels = []
    for name, shape in image_shapes(model).items():
        images = [as_image(one, shape) if len(one) else None for one in sequences[name][: width * height]]
        grid = [images[start : start + width] for start in range(0, len(images), width)]
        panels.append(ImagePanel(name, grid, columns=columns))
    return panels


def style_panels(
    model: FactorModel, normalizer: Normalizer, encoded: Encoded, sample: int, steps: int
) -> list[ImagePanel]:
    """One grid a modality that has a Z_ai: it walked along its main directions over the samples, all else held.

    Directions are those of most variance (principal components), walked two deviations each way.

    Args:
        model: The model.
        normalizer: The model's.
        encoded: The samples.
        sample: Whose codes are walked from.
        steps: Positions on each walk.
    """
    panels = []
    places = torch.linspace(-_REACH, _REACH, steps)
    for name, shape in image_shapes(model).items():
        if name not in encoded.codes.z:
            continue
        z = encoded.codes.z[name][encoded.usable]
        _, deviations, directions = torch.linalg.svd(z - z.mean(dim=0), full_matrices=False)
        count = min(_DIRECTIONS, len(directions))
        scales = deviations[:count] / max(len(z) - 1, 1) ** 0.5
        moved = torch.cat([places[:, None] * scale * one for scale, one in zip(scales, directions, strict=False)])
        start = encoded.codes.z[name][sample] - z.mean(dim=0)
        # from the sample's own code, its part along the direction replaced
        along = torch.cat([(start @ one) * one.expand(steps, -1) for one in directions[:count]])
        walked = encoded.codes.z[name][sample] - along + moved
        repeated = {other: code[sample].expand(len(walked), -1) for other, code in encoded.codes.z.items()}
        codes = Codes(encoded.codes.z_y[sample].expand(len(walked), -1), {**repeated, name: walked})
        images = [as_image(one, shape) for one in _sequences(model, normalizer, codes)[name]]
        grid = [images[row * steps : (row + 1) * steps] for row in range(count)]
        rows = [f"direction {row + 1}" for row in range(count)]
        panels.append(ImagePanel(f"{name}: Z of the modality walked, Z_y held", grid, rows))
    return panels


def completion_panels(
    model: FactorModel,
    batch: AffectBatch,
    completed: Mapping[str, Sequence[Tensor]],
    chosen: Sequence[int],
    columns: Sequence[str] = (),
) -> list[ImagePanel]:
    """One grid for each hidden modality: what was observed, what was made of it, and the truth where it is known.

    Args:
        model: The model.
        batch: Samples with all that the file has, in the file's units.
        completed: Hidden modality -> what was generated for each sample of the batch, (T, D) in the file's units.
        chosen: Samples to show, one a column.
        columns: Their names.
    """
    shapes = image_shapes(model)

    def image(name: str, row: int) -> FloatArray | None:
        there = name in batch.features and bool(batch.present[name][row]) and int(batch.lengths[name][row])
        return as_image(batch.features[name][row].numpy(), shapes[name]) if there else None

    panels = []
    for name in completed:
        made = [as_image(completed[name][row].numpy(), shapes[name]) for row in chosen]
        panels.append(ImagePanel(f"{name}: completed (top) and true", [made, [image(name, row) for row in chosen]],
                                 ("completed", "true"), columns))  # fmt: skip
    for name in sorted(set(shapes) - set(completed)):
        seen = [[image(name, row) for row in chosen]]
        if any(one is not None for one in seen[0]):
            panels.insert(0, ImagePanel(f"{name}: observed", seen, ("observed",), columns))
    return panels


def _decoded(model: FactorModel, normalizer: Normalizer, codes: Codes) -> dict[str, list[FloatArray]]:
    sequences = _sequences(model, normalizer, codes)
    return {name: [as_image(one, shape) for one in sequences[name]] for name, shape in image_shapes(model).items()}


def _sequences(model: FactorModel, normalizer: Normalizer, codes: Codes) -> dict[str, list[FloatArray]]:
    count = len(codes.z_y)
    one_step = {name: torch.ones(count, dtype=torch.int64) for name in model.modalities}
    nobody = torch.full((count,), -1)
    return realise(model, normalizer, Recipe([str(place) for place in range(count)], codes, one_step, nobody, nobody))
