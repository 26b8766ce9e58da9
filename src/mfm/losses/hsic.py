"""Hilbert-Schmidt independence criterion: how far two sets of vectors are from being independent."""

from __future__ import annotations

import torch
from torch import Tensor

from mfm.errors import ConfigurationError, nearest
from mfm.losses.precision import at_least_float32, without_autocast

HSIC_KERNELS = ("rbf", "linear")
"""Kernels by name: `rbf`, exp(-||a-b||^2 / (2 s^2)), sees any dependence; `linear`, a.b, sees correlations only."""

MINIMUM_SAMPLES = 4
"""Below this number of samples, HSIC says nothing: the normalised one of any two distinct samples is 1."""


def check_hsic_kernel(name: str) -> None:
    """Refuse an unknown kernel.

    Raises:
        ConfigurationError: No kernel of that name; the nearest one is named.
    """
    if name not in HSIC_KERNELS:
        raise ConfigurationError(f"unknown HSIC kernel {name!r}: {nearest(name, HSIC_KERNELS)}")


def hsic(
    x: Tensor,
    y: Tensor,
    *,
    kernel: str = "rbf",
    bandwidth: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Biased HSIC, tr(K H L H) / n^2 with H = I - 11^T / n (Gretton et al., ALT 2005; V-statistic of NIPS 2008).

    0 in the limit of many samples if and only if x and y are independent, for the RBF kernel.
    Distances come from matrix products: memory n x n, never n x n x d.

    Args:
        x: (n, d) samples.
        y: (n, e) samples, row by row belonging to those of x.
        kernel: Name in `HSIC_KERNELS`, for both.
        bandwidth: s of the RBF kernel, > 0, for both; by default each has its own from the median heuristic
            (`median_bandwidth`), through which no gradient flows.
        weights: (n,) bool, which samples take part; what the others hold has no influence. All by default.

    Returns:
        Scalar >= 0, float64 for float64 samples and float32 for all others, autocast or not; 0 (with zero
        gradients) where fewer than two samples take part, or x or y is constant.

    Raises:
        ConfigurationError: Unknown kernel, or a bandwidth that is not positive.
    """
    k, l, count = centred_pair(x, y, kernel, bandwidth, weights)  # noqa: E741 - K and L as in the papers
    return (k * l).sum() / count.square()


def normalized_hsic(
    x: Tensor,
    y: Tensor,
    *,
    kernel: str = "rbf",
    bandwidth: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Normalised HSIC in [0, 1], tr(K H L H) / (||H K H||_F ||H L H||_F): the MFM paper's proxy of information.

    It is 1 where both kernels agree up to a factor, as for y = x, and does not depend on the scale of either
    argument. With few samples it is well above 0 also for independent x and y. With the linear kernel it is
    linear CKA (Kornblith et al., ICML 2019).

    Args:
        x: (n, d) samples.
        y: (n, e) samples.
        kernel: See `hsic`.
        bandwidth: See `hsic`.
        weights: See `hsic`.

    Returns:
        As `hsic`.

    Raises:
        ConfigurationError: As `hsic`.
    """
    k, l, _ = centred_pair(x, y, kernel, bandwidth, weights)  # noqa: E741
    norms = k.square().sum() * l.square().sum()
    tiny = torch.finfo(norms.dtype).tiny
    return (k * l).sum() / norms.clamp(min=tiny).sqrt()


def kernel_matrix(a: Tensor, b: Tensor, kernel: str, bandwidth: Tensor | float) -> Tensor:
    """Kernel of all pairs, (n, m).

    Args:
        a: (n, d).
        b: (m, d).
        kernel: Name in `HSIC_KERNELS`.
        bandwidth: s of the RBF kernel, > 0; the linear kernel has none.
    """
    if kernel == "linear":
        return a @ b.t()
    return torch.exp(squared_distances(a, b) / (-2.0 * bandwidth**2))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """||a_i - b_j||^2, (n, m), as |a|^2 + |b|^2 - 2 a.b: best where both are centred, see `centred_rows`."""
    squared = torch.addmm(a.square().sum(dim=1)[:, None] + b.square().sum(dim=1), a, b.t(), alpha=-2.0)
    return squared.clamp(min=0.0)


def median_bandwidth(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Median heuristic: the median distance between two different samples, without gradient.

    Where more than half of all pairs coincide, as among factors of which most are 0, the median is 0 and the root of
    the mean squared distance takes its place.

    Args:
        x: (n, d) samples.
        weights: (n,) bool, which samples take part.

    Returns:
        Scalar >= 0; 0 where all samples are the same.
    """
    with torch.no_grad():
        x, real = centred_rows(x, weights)
        squared = squared_distances(x, x)
        others = (real[:, None] * real) > 0
        others.fill_diagonal_(False)
        median = squared.masked_fill(~others, torch.nan).nanmedian().nan_to_num(0.0)
        mean = squared.masked_fill(~others, 0.0).sum() / others.sum().clamp(min=1)
        return torch.where(median > 0, median, mean).sqrt()


def is_constant(x: Tensor, weights: Tensor | None = None) -> Tensor:
    """Whether samples (n, d) differ by no more than rounding, as a bool scalar."""
    with torch.no_grad():
        centred, real = centred_rows(x, weights)
        rounding = 8.0 * torch.finfo(centred.dtype).eps
        size = (x.to(centred.dtype).masked_fill((real == 0)[:, None], 0.0)).square().sum(dim=1).max()
        spread = centred.square().sum() / real.sum().clamp(min=1.0)
        return spread <= rounding**2 * size


def centred_rows(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Subtract the mean of the samples that take part, and put zeros in place of the others.

    Returns:
        (n, d) centred samples, at least float32, and (n,) 1 for samples that take part, 0 for others.
    """
    x = at_least_float32(x)
    real = torch.ones_like(x[:, 0]) if weights is None else weights.to(x.dtype)
    x = x.masked_fill((real == 0)[:, None], 0.0)
    mean = x.sum(dim=0) / real.sum().clamp(min=1.0)
    return (x - mean).masked_fill((real == 0)[:, None], 0.0), real


def centred_pair(
    x: Tensor,
    y: Tensor,
    kernel: str | tuple[str, str] = "rbf",
    bandwidth: float | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """H K H and H L H, (n, n), and how many samples take part; arguments as in `hsic`, `kernel` also one for each."""
    kernels = (kernel, kernel) if isinstance(kernel, str) else kernel
    for name in kernels:
        check_hsic_kernel(name)
    if bandwidth is not None and not bandwidth > 0:
        raise ConfigurationError(f"the bandwidth of HSIC is {bandwidth}, but must be a number > 0, or null")
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"samples {tuple(x.shape)} and {tuple(y.shape)} are not (n, d) and (n, e)")
    if weights is not None and weights.shape != x.shape[:1]:
        raise ValueError(f"weights {tuple(weights.shape)} do not belong to {len(x)} samples")
    with without_autocast(x):
        dtype = torch.promote_types(at_least_float32(x).dtype, at_least_float32(y).dtype)
        k, l = (  # noqa: E741
            _centred_kernel(one.to(dtype), name, bandwidth, weights) for one, name in zip((x, y), kernels, strict=True)
        )
        count = x.new_tensor(float(len(x)), dtype=dtype) if weights is None else weights.to(dtype).sum()
        return k, l, count.clamp(min=1.0)


def _centred_kernel(x: Tensor, kernel: str, bandwidth: float | None, weights: Tensor | None) -> Tensor:
    """H K H among the samples that take part, zeros elsewhere and where all samples are the same."""
    if not len(x):
        return x.new_zeros(0, 0) + x.sum()
    constant = is_constant(x, weights)
    x, real = centred_rows(x, weights)
    scale: Tensor | float = 1.0
    if kernel == "rbf":
        # a constant sample has no scale; any will do, since its kernel is masked below
        scale = bandwidth if bandwidth is not None else median_bandwidth(x, weights).masked_fill(constant, 1.0)
    matrix = kernel_matrix(x, x, kernel, scale) * real[:, None] * real
    count = real.sum().clamp(min=1.0)
    rows = matrix.sum(dim=1) / count
    matrix = matrix - rows[:, None] - rows + rows.sum() / count
    return matrix.masked_fill((real[:, None] * real == 0) | constant, 0.0)
