"""Which factor feeds a modality: normalised HSIC of F_y and of F_ai with what they rebuild, and their ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mfm.errors import ConfigurationError, DataFormatError, nearest
from mfm.losses.hsic import (
    MINIMUM_SAMPLES,
    centred_rows,
    check_hsic_kernel,
    is_constant,
    kernel_matrix,
    median_bandwidth,
)

Summary = Literal["mean", "flatten"]
_SHARED, _OWN, _REBUILT = range(3)
_PAIRS = ((_SHARED, _REBUILT), (_OWN, _REBUILT), (_SHARED, _SHARED), (_OWN, _OWN), (_REBUILT, _REBUILT))


@dataclass(frozen=True)
class Dependence:
    """Normalised HSIC of a factor with a modality.

    Attributes:
        value: In [0, 1].
        chance: Mean over permutations, what independent factors would show with as few samples.
        p_value: (1 + permutations at least as large) / (1 + permutations).
    """

    value: float
    chance: float
    p_value: float


@dataclass(frozen=True)
class InformationRatio:
    """r_i = MI(F_y; X^_i) / MI(F_ai; X^_i) of one modality.

    Attributes:
        samples: Samples that `ratio` is computed from.
        shared: Dependence of F_y and X^_i.
        own: Dependence of F_ai and X^_i.
        ratio: The ratio; NaN where it is not defined (see `notes`).
        low: Lower end of the bootstrap interval.
        high: Upper end; infinite where F_ai and X^_i may be independent.
        confidence: Coverage that the interval aims at.
        resamples: Bootstrap draws.
        permutations: Permutations behind each p-value.
        permuted_samples: Samples that were permuted; fewer than `samples` where these are many.
        kernel: Name of the kernel.
        bandwidths: Bandwidths of F_y, F_ai and X^_i; None for the linear kernel.
        notes: What a reader has to know, in sentences.
    """

    samples: int
    shared: Dependence
    own: Dependence
    ratio: float
    low: float
    high: float
    confidence: float
    resamples: int
    permutations: int
    permuted_samples: int
    kernel: str
    bandwidths: tuple[float, float, float] | None
    notes: tuple[str, ...] = ()


def summarize_steps(x: Tensor, lengths: Tensor, how: Summary) -> Tensor:
    """Turn sequences into one vector a sample; padding has no part in it.

    Args:
        x: (B, T, D).
        lengths: (B,) real steps, >= 1.
        how: `mean` over real steps, (B, D); or `flatten`, (B, T' D), for sequences that all have T' steps.

    Raises:
        ConfigurationError: `flatten` of sequences of different lengths, or an unknown name.
    """
    if how not in get_args(Summary):
        raise ConfigurationError(f"unknown summary {how!r}: {nearest(how, get_args(Summary))}")
    if how == "flatten":
        if len(lengths) and bool((lengths != lengths[0]).any()):
            raise ConfigurationError(
                f"sequences of {int(lengths.min())} to {int(lengths.max())} steps cannot be flattened to vectors of "
                "one length; summarise them with 'mean'"
            )
        return x[:, : int(lengths[0]) if len(lengths) else 0].flatten(1)
    padded = torch.arange(x.shape[1], device=lengths.device) >= lengths[:, None]
    return x.masked_fill(padded[..., None], 0.0).sum(dim=1) / lengths.clamp(min=1)[:, None]


def information_ratio(
    f_y: Tensor,
    f_i: Tensor,
    rebuilt: Tensor,
    *,
    kernel: str = "rbf",
    bandwidth: float = 1.0,
    resamples: int = 500,
    permutations: int = 500,
    confidence: float = 0.95,
    dense: int = 1000,
    memory: int = 2**28,
    seed: int = 0,
) -> InformationRatio:
    """Ratio of the information that X^_i shares with F_y and with F_ai (Tsai et al., ICLR 2019, section 3.3).

    Information is measured by normalised HSIC (`mfm.losses.hsic.normalized_hsic`), in float64. Up to `dense` samples,
    kernel matrices are held in memory. Beyond, the same sums are gathered block by block, with memory
    proportional to N; the bootstrap then uses each sample's influence on the sums (the same to first order, errors
    O(1/N)), and permutations and the median heuristic a random subset of `dense` samples.

    The interval is the percentile bootstrap's over samples, in which a sample and its copy do not count as a pair:
    as a pair they would look like dependence.

    Args:
        f_y: (N, f_y) shared factors.
        f_i: (N, f_i) the modality's factors.
        rebuilt: (N, d) the modality's reconstructions, a vector each (`summarize_steps`).
        kernel: `rbf` or `linear`.
        bandwidth: RBF bandwidth in multiples of the median distance, > 0.
        resamples: Bootstrap draws, >= 0; the interval is NaN without.
        permutations: Permutations, >= 1.
        confidence: Coverage of the interval, in (0, 1).
        dense: See above, at least `MINIMUM_SAMPLES`.
        memory: Bytes for blocks of kernels, about.
        seed: Seed of all draws; the global generator is not touched.

    Raises:
        DataFormatError: Fewer than `MINIMUM_SAMPLES` samples.
        ConfigurationError: Unknown kernel, or a number out of its range.
    """
    _check(kernel, bandwidth, resamples, permutations, confidence, dense)
    if len(f_y) < MINIMUM_SAMPLES:
        raise DataFormatError(
            f"HSIC needs at least {MINIMUM_SAMPLES} samples that have the modality, and there are {len(f_y)}; "
            "take a larger split"
        )
    generator = torch.Generator().manual_seed(seed)
    constant = [bool(is_constant(one)) for one in (f_y, f_i, rebuilt)]
    # a constant vector becomes exactly 0: rounding must not pass for variation
    vectors = [
        centred_rows(one.detach().double())[0] * (not flat)
        for one, flat in zip((f_y, f_i, rebuilt), constant, strict=True)
    ]
    few = torch.randperm(len(f_y), generator=generator)[:dense].sort().values.to(f_y.device)
    scales = [bandwidth * float(median_bandwidth(one[few])) or 1.0 for one in vectors]
    small = [
        _centred(kernel_matrix(one[few], one[few], kernel, scale)) for one, scale in zip(vectors, scales, strict=True)
    ]
    if len(f_y) <= dense:
        sums = torch.stack([(small[a] * small[b]).sum() for a, b in _PAIRS])
        draws = _bootstrap(small, resamples, generator)
    else:
        influence = kernel_products([_compact(one) for one in vectors], scales, kernel, memory)
        sums, draws = influence.sum(dim=1), _linear_bootstrap(influence, resamples, generator)
    ratio, shared, own = (float(value) for value in _measures(sums[None]))
    null = _permuted(small, permutations, generator)
    low, high = _interval(_measures(draws)[0], confidence)
    undefined = constant[_OWN] or constant[_REBUILT]
    found_own = _dependence(own, null[1], undefined)
    return InformationRatio(
        samples=len(f_y),
        shared=_dependence(shared, null[0], constant[_SHARED] or constant[_REBUILT]),
        own=found_own,
        ratio=math.nan if undefined else ratio,
        low=math.nan if undefined else low,
        high=math.nan if undefined else high,
        confidence=confidence,
        resamples=resamples,
        permutations=permutations,
        permuted_samples=len(few),
        kernel=kernel,
        bandwidths=(scales[0], scales[1], scales[2]) if kernel == "rbf" else None,
        notes=_notes(constant, found_own.p_value, len(f_y), len(few)),
    )


def kernel_products(vectors: list[Tensor], scales: list[float], kernel: str, memory: int = 2**28) -> Tensor:
    """Each sample's share of tr(K H L H) for the pairs (F_y, X), (F_a, X), (F_y, F_y), (F_a, F_a), (X, X).

    Args:
        vectors: F_y, F_ai and X^_i, (N, d) each, centred.
        scales: Their bandwidths.
        kernel: Name of the kernel.
        memory: Bytes for a block of rows of all kernels, about; no N x N matrix is made.

    Returns:
        (5, N), row sums of HKH * HLH. A sample's influence on each trace is twice its share.
    """
    count = len(vectors[0])
    rows = max(1, memory // (8 * vectors[0].element_size() * count))
    blocks = torch.split(torch.arange(count, device=vectors[0].device), rows)
    # results are written in place: small ones kept between large temporary ones leave holes in the heap
    means = vectors[0].new_empty(len(vectors), count)
    shares = vectors[0].new_empty(len(_PAIRS), count)
    for block in blocks:
        for mean, one, scale in zip(means, vectors, scales, strict=True):
            mean[block] = kernel_matrix(one[block], one, kernel, scale).mean(dim=1)
    for block in blocks:
        centred = [
            kernel_matrix(one[block], one, kernel, scale).sub_(mean[block, None]).sub_(mean).add_(mean.mean())
            for one, scale, mean in zip(vectors, scales, means, strict=True)
        ]
        for share, (a, b) in zip(shares, _PAIRS, strict=True):
            share[block] = torch.linalg.vecdot(centred[a], centred[b])
    return shares


def _check(kernel: str, bandwidth: float, resamples: int, permutations: int, confidence: float, dense: int) -> None:
    check_hsic_kernel(kernel)
    for name, value, right, needed in (
        ("the bandwidth", bandwidth, bandwidth > 0 and math.isfinite(bandwidth), "above 0"),
        ("the number of bootstrap draws", resamples, resamples >= 0, "at least 0"),
        ("the number of permutations", permutations, permutations >= 1, "at least 1"),
        ("the confidence", confidence, 0 < confidence < 1, "between 0 and 1"),
        ("the number of samples held densely", dense, dense >= MINIMUM_SAMPLES, f"at least {MINIMUM_SAMPLES}"),
    ):
        if not right:
            raise ConfigurationError(f"{name} is {value}; it must be {needed}")


def _compact(x: Tensor, largest: int = 2048) -> Tensor:
    """Rotate centred rows into the few directions that they vary in: the same distances from fewer features.

    A recurrent decoder's means lie in as many dimensions as its state has, far fewer than BERT's 768.
    """
    if x.shape[1] <= 16 or x.shape[1] > largest:
        return x
    values, directions = torch.linalg.eigh(x.t() @ x)
    rotated: Tensor = x @ directions[:, values > values[-1] * 1e-13]
    return rotated


def _centred(matrix: Tensor) -> Tensor:
    rows = matrix.mean(dim=1)
    return matrix - rows[:, None] - rows + rows.mean()


def _measures(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ratio, normalised HSIC of F_y and of F_ai, from (R, 5) sums; sums of a bootstrap draw can be below 0."""
    shared, own, of_y, of_i, of_x = sums.unbind(dim=1)
    tiny = torch.finfo(sums.dtype).tiny
    left = shared / (of_y * of_x).clamp(min=tiny).sqrt()
    right = own / (of_i * of_x).clamp(min=tiny).sqrt()
    return left.clamp(min=0.0) / right.clamp(min=0.0), left, right


def _counts(resamples: int, count: int, generator: torch.Generator) -> Tensor:
    """How often each draw with replacement has each sample, (R, N) float64."""
    index = torch.randint(count, (resamples, count), generator=generator)
    return torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(
        1, index, torch.ones(1).double().expand_as(index)
    )


def _bootstrap(kernels: list[Tensor], resamples: int, generator: torch.Generator) -> Tensor:
    """The sums of every bootstrap draw, (R, 5); they are quadratic in the counts, so no matrix is resampled."""
    count = len(kernels[0])
    weights = _counts(resamples, count, generator).to(kernels[0].device)
    rows = [weights @ kernel for kernel in kernels]
    totals = [torch.linalg.vecdot(weights, row) for row in rows]
    draws = []
    for a, b in _PAIRS:
        product = kernels[a] * kernels[b]
        pairs = torch.linalg.vecdot(weights @ product, weights) - (weights.square() - weights) @ product.diagonal()
        cross = torch.linalg.vecdot(weights, rows[a] * rows[b])
        draws.append(pairs - 2.0 / count * cross + totals[a] * totals[b] / count**2)
    return torch.stack(draws, dim=1)


def _linear_bootstrap(influence: Tensor, resamples: int, generator: torch.Generator, chunk: int = 16) -> Tensor:
    """As `_bootstrap` to first order in the counts, from each sample's influence."""
    count = influence.shape[1]
    sums = influence.new_empty(resamples, len(_PAIRS))
    for start in range(0, resamples, chunk):  # R x N counts at once would be most of the memory
        weights = _counts(min(chunk, resamples - start), count, generator).to(influence.device)
        sums[start : start + len(weights)] = influence.sum(dim=1) + 2.0 * (weights - 1.0) @ influence.t()
    return sums


def _permuted(kernels: list[Tensor], permutations: int, generator: torch.Generator) -> Tensor:
    """Normalised HSIC of F_y and F_ai with permuted X^_i, (2, P + 1); the first column is not permuted."""
    of_y, of_i, of_x = (kernel.contiguous() for kernel in kernels)
    found = of_x.new_zeros(2, permutations + 1)
    # two buffers for all draws: fresh ones between small results leave holes in the heap, gigabytes in the end
    rows, shuffled = torch.empty_like(of_x), torch.empty_like(of_x)
    for draw in range(permutations + 1):
        order = torch.randperm(len(of_x), generator=generator) if draw else torch.arange(len(of_x))
        order = order.to(of_x.device)
        torch.index_select(torch.index_select(of_x, 0, order, out=rows), 1, order, out=shuffled)
        found[0, draw] = torch.dot(of_y.view(-1), shuffled.view(-1))
        found[1, draw] = torch.dot(of_i.view(-1), shuffled.view(-1))
    norms = torch.stack([of_y.norm(), of_i.norm()]) * of_x.norm()
    null: Tensor = found / norms.clamp(min=torch.finfo(norms.dtype).tiny)[:, None]
    return null


def _dependence(value: float, null: Tensor, constant: bool) -> Dependence:
    if constant:
        return Dependence(0.0, 0.0, 1.0)
    observed, permuted = null[0], null[1:]
    # a permutation that changes nothing must count as equal, whatever its sum rounds to
    extreme = int((permuted >= observed - 1e-12).sum())
    return Dependence(value, float(permuted.mean()), (1 + extreme) / (1 + len(permuted)))


def _interval(draws: Tensor, confidence: float) -> tuple[float, float]:
    """Percentiles; outwards to a draw, for between a number and infinity there is none."""
    draws = draws[~draws.isnan()]
    if not len(draws):
        return math.nan, math.nan
    tail = (1.0 - confidence) / 2.0
    low = torch.quantile(draws, tail, interpolation="lower")
    return float(low), float(torch.quantile(draws, 1.0 - tail, interpolation="higher"))


def _notes(constant: list[bool], p_own: float, samples: int, permuted: int) -> tuple[str, ...]:
    notes = []
    if constant[_SHARED]:
        notes.append("F_y is the same for every sample: it tells nothing, and its dependence is 0 by definition.")
    if constant[_OWN]:
        notes.append("F_ai is the same for every sample: it tells nothing, and the ratio to it is not defined.")
    if constant[_REBUILT]:
        notes.append("The reconstruction is the same for every sample: nothing feeds it, and the ratio is not defined.")
    if p_own > 0.05 and not (constant[_OWN] or constant[_REBUILT]):
        notes.append("No dependence on F_ai could be shown (p > .05): the ratio divides by next to nothing.")
    if permuted < samples:
        notes.append(
            f"The values are of all {samples:,} samples; the median heuristic, the level of chance and the p-values "
            f"are of {permuted:,} of them."
        )
    return tuple(notes)
