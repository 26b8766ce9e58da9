"""The figures of `mfm generate` and `mfm reconstruct` where the modalities are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mfm.analysis.generation import Encoded, Recipe
from mfm.analysis.image_figures import (
    ImagePanel,
    completion_panels,
    image_figure,
    image_shapes,
    recipe_panels,
    style_panels,
    swap_panels,
)
from mfm.cli.loading import LoadedRun
from mfm.data.records import FloatArray
from mfm.models.factor_model import FactorModel
from mfm.modules import FactorModule

_ROWS, _COLUMNS = 10, 10


def generated_images(
    run: LoadedRun,
    module: FactorModule,
    encoded: Encoded,
    recipe: Recipe,
    sequences: Mapping[str, Sequence[FloatArray]],
    mode: str,
    steps: int,
) -> Figure | None:
    """Images of what `mfm generate` made; None where a modality is no image.

    Args:
        run: The run.
        module: Its module.
        encoded: The samples that were drawn from.
        recipe: What was generated.
        sequences: What came of it.
        mode: `swap`, `prior`, `traverse` or `interpolate`.
        steps: Positions on each walk.
    """
    model = module.model
    if set(image_shapes(model)) != set(model.modalities):
        return None
    title = f"mfm generate --mode {mode}: {len(recipe.ids)} samples"
    if mode == "swap":
        contents = _of_each_class(encoded.target, recipe.content.tolist())
        styles = list(dict.fromkeys(recipe.style.tolist()))[:_COLUMNS]
        real = _features(run, {*contents, *styles})
        panels = swap_panels(model, module.normalizer, encoded, real, contents, styles)
    elif mode == "prior":
        panels = recipe_panels(model, sequences, _COLUMNS, _ROWS)
    else:
        panels = recipe_panels(model, sequences, steps, _ROWS)
        if mode == "traverse":
            walked = [ImagePanel(f"{one.title}: Z_y walked, style held", *one[1:]) for one in panels]
            sample = int(recipe.style[0])
            panels = walked + style_panels(model, module.normalizer, encoded, sample, steps)
    return image_figure(panels, title)


def completed_images(run: LoadedRun, model: FactorModel, values: Mapping[str, Sequence[Tensor]]) -> Figure | None:
    """Images of what `mfm reconstruct` completed, one sample of each class; None where a modality is no image."""
    if set(image_shapes(model)) != set(model.modalities):
        return None
    batch = next(iter(run.data.predict_dataloader()))
    chosen = _of_each_class(batch.target, list(range(len(batch.ids))))
    names = [str(int(batch.target[row])) if batch.target.ndim == 1 else "" for row in chosen]
    title = f"mfm reconstruct --missing {' '.join(values)}"
    return image_figure(completion_panels(model, batch, values, chosen, names), title)


def _of_each_class(target: Tensor, places: Sequence[int]) -> list[int]:
    """The first of each class, in the classes' order; the first few where labels are no classes."""
    places = list(dict.fromkeys(places))
    if target.ndim != 1:
        return places[:_ROWS]
    first: dict[int, int] = {}
    for place in places:
        first.setdefault(int(target[place]), place)
    return [first[one] for one in sorted(first)][:_ROWS]


def _features(run: LoadedRun, wanted: set[int]) -> dict[str, dict[int, FloatArray]]:
    """Modality -> sample -> its features in the file's units, for the samples that have it."""
    found: dict[str, dict[int, FloatArray]] = {name: {} for name in run.data.modalities}
    start = 0
    for batch in run.data.predict_dataloader():
        for place in sorted(one for one in wanted if start <= one < start + len(batch.ids)):
            for name, x in batch.features.items():
                length = int(batch.lengths[name][place - start])
                if length and bool(torch.as_tensor(batch.present[name][place - start])):
                    found[name][place] = x[place - start, :length].numpy()
        start += len(batch.ids)
    return found
