"""How far the discriminative code is from being independent of the generative ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

from mfm.errors import ConfigurationError, nearest
from mfm.losses.hsic import MINIMUM_SAMPLES, normalized_hsic
from mfm.losses.nocco import nocco

Independence = Literal["nocco", "hsic", "discriminator"]
"""Measures by name:

* `nocco`: D is the normalised cross-covariance (`mfm.losses.nocco`), and each block gives up what is not its own:
  D(Z_y, sg Z_ai) + D(sg Y^, Z_ai) with sg for "no gradient from here". Z_y loses what modality i has for itself,
  Z_ai what the label needs. Without a label Z_y stands for Y^. One of several classes is its probabilities with the
  linear kernel: logits differ within a class about as much as between classes, which hides the class among 100 samples.
* `hsic`: D is the normalised HSIC (`mfm.losses.hsic`), D(Z_y, Z_ai), whose gradient reaches both.
* `discriminator`: D is what a network finds that is trained along (`mfm.losses.discriminator`), whose reversed gradient
  reaches both; it has parameters, so that the objective computes it and not `dependences`.
"""


def check_independence(name: str) -> None:
    """Refuse an unknown measure.

    Raises:
        ConfigurationError: No measure of that name; the nearest one is named.
    """
    if name not in get_args(Independence):
        raise ConfigurationError(f"unknown independence {name!r}: {nearest(str(name), get_args(Independence))}")


def dependences(
    z_y: Tensor,
    z: Mapping[str, tuple[Tensor, Tensor]],
    prediction: Tensor,
    measure: str = "nocco",
    *,
    classes: bool = False,
) -> dict[str, Tensor]:
    """Dependence of Z_y with each generative code, over the samples that have it.

    Args:
        z_y: (B, z_y) codes.
        z: Name -> codes (B, z_i), and whether each sample has them, (B,) bool.
        prediction: (B, K) Y^; (B, 0) for a model without head.
        measure: `nocco` or `hsic`.
        classes: Whether Y^ are logits of exclusive classes.

    Returns:
        `independence/<name>` -> scalar >= 0; 0 where fewer than `MINIMUM_SAMPLES` samples have the code.
    """
    label, kernel = (prediction.softmax(dim=1), "linear") if classes else (prediction, "rbf")
    if not prediction.shape[1]:
        label, kernel = z_y, "rbf"
    found = {}
    for name, (code, known) in sorted(z.items()):
        if measure == "hsic":
            value = normalized_hsic(z_y, code, weights=known)
        else:
            value = nocco(z_y, code.detach(), weights=known)
            value = value + nocco(label.detach(), code, weights=known, kernel_x=kernel)
        found[f"independence/{name}"] = value.masked_fill(known.sum() < MINIMUM_SAMPLES, 0.0)
    return found
