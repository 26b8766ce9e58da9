"""Probes: how well vectors tell what they are asked for, on samples that the probe was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfm.errors import ConfigurationError, nearest

Array = NDArray[np.float64]
Probe = Callable[[Array, Array, Array, int], Array]
"""(x (n, d), y (n, k), x to read (m, d), seed) -> y read there (m, k)."""

PENALTIES = np.logspace(-3, 5, 17)
"""Penalties among which `ridge` chooses, for standardised inputs."""

_WIDTH = 128
_EPOCHS = 60
_BATCH = 128
_STEP = 3e-3
_DECAY = 1e-3
_INNER = 0.15  # share of the probe's own samples that chooses its epoch


def ridge(x: Array, y: Array, x_new: Array, seed: int = 0) -> Array:
    """Linear probe: ridge regression on standardised inputs; each output's penalty by exact leave-one-out error.

    Args:
        x: (n, d) inputs to fit.
        y: (n, k) outputs to fit.
        x_new: (m, d) inputs to read.
        seed: Not used.

    Returns:
        (m, k).
    """
    scaled, scaled_new = _standardise(x, x_new)
    mean = y.mean(axis=0)
    u, d, vt = np.linalg.svd(scaled, full_matrices=False)
    projected = u.T @ (y - mean)
    best = np.full(y.shape[1], np.inf)
    weights = np.zeros((x.shape[1], y.shape[1]))
    for penalty in PENALTIES:
        shrink = d**2 / (d**2 + penalty)
        # the mean is fitted too, so that each sample's leverage has its share 1/n
        leverage = 1.0 / len(x) + (u**2) @ shrink
        residual = y - mean - u @ (shrink[:, None] * projected)
        error = ((residual / np.maximum(1.0 - leverage, 1e-12)[:, None]) ** 2).mean(axis=0)
        better = error < best
        best = np.where(better, error, best)
        coefficients = vt.T @ ((d / (d**2 + penalty))[:, None] * projected)
        weights = np.where(better, coefficients, weights)
    read: Array = scaled_new @ weights + mean
    return read


def mlp(x: Array, y: Array, x_new: Array, seed: int = 0) -> Array:
    """Non-linear probe: a perceptron with one hidden layer of 128 ReLUs, Adam, 60 epochs.

    A share of the samples given chooses the epoch, for each output its own: one that cannot be read ends near its mean
    instead of being overfitted while others are learnt. Draws nothing from the global generators.

    Args:
        x: (n, d) inputs to fit.
        y: (n, k) outputs to fit.
        x_new: (m, d) inputs to read.
        seed: Seed of the weights, the order and the split.

    Returns:
        (m, k).
    """
    scaled, scaled_new = _standardise(x, x_new)
    mean, scale = y.mean(axis=0), y.std(axis=0)
    outputs = torch.from_numpy((y - mean) / np.where(scale > 0, scale, 1.0)).float()
    inputs, new = torch.from_numpy(scaled).float(), torch.from_numpy(scaled_new).float()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(inputs), generator=generator)
    held = max(1, round(_INNER * len(inputs)))
    inner, outer = order[:held], order[held:]
    weights = _initial(inputs.shape[1], outputs.shape[1], generator)
    epoch_steps = max(1, math.ceil(len(outer) / _BATCH))
    optimizer = torch.optim.AdamW(weights, lr=_STEP, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS * epoch_steps)
    best = outputs[inner].square().mean(dim=0)  # the mean's own error
    read = torch.zeros(len(new), outputs.shape[1])
    for _ in range(_EPOCHS):
        for rows in torch.split(outer[torch.randperm(len(outer), generator=generator)], _BATCH):
            loss = (_perceptron(inputs[rows], weights) - outputs[rows]).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            error = (_perceptron(inputs[inner], weights) - outputs[inner]).square().mean(dim=0)
            better = error < best
            best = torch.where(better, error, best)
            read = torch.where(better, _perceptron(new, weights), read)
    result: Array = read.double().numpy() * scale + mean
    return result


PROBES: dict[str, Probe] = {"ridge": ridge, "mlp": mlp}
"""Probes by name. A linear one alone does not show that nothing is there: leaks hide from it."""


def choose_probe(name: str) -> Probe:
    """Look a probe up.

    Raises:
        ConfigurationError: No probe of that name; the nearest is named.
    """
    if name not in PROBES:
        raise ConfigurationError(f"unknown probe {name!r}: {nearest(name, PROBES)}")
    return PROBES[name]


def held_out(
    x: Array, y: Array, probe: str, *, folds: int = 5, groups: Sequence[object] | None = None, seed: int = 0
) -> Array:
    """Cross-validated readings: each sample is read by a probe that was fitted without it.

    Args:
        x: (n, d) inputs.
        y: (n, k) outputs.
        probe: Name in `PROBES`.
        folds: Parts of the samples, >= 2.
        groups: n labels, such as videos; samples of one group are in one part.
        seed: Seed of the parts and of the probe.

    Returns:
        (n, k).

    Raises:
        ConfigurationError: Unknown probe, fewer samples (or groups) than parts, fewer than two parts.
    """
    read, part = choose_probe(probe), fold_numbers(len(x), folds, groups=groups, seed=seed)
    result = np.empty_like(y, dtype=np.float64)
    for fold in range(folds):
        test = part == fold
        result[test] = read(x[~test], y[~test], x[test], seed + fold)
    return result


def fold_numbers(
    samples: int, folds: int, *, groups: Sequence[object] | None = None, seed: int = 0
) -> NDArray[np.int64]:
    """The part, 0 .. folds - 1, of every sample; parts are equally large in samples, or in groups.

    Raises:
        ConfigurationError: See `held_out`.
    """
    members: Sequence[object] = range(samples) if groups is None else groups
    index = {group: place for place, group in enumerate(dict.fromkeys(members))}
    if folds < 2 or len(index) < folds or samples < 2 * folds:
        what = "samples" if groups is None else "groups"
        raise ConfigurationError(
            f"{samples} samples in {len(index)} {what} cannot be read in {folds} parts; at least 2 parts and two "
            "samples a part are needed"
        )
    part = np.random.default_rng(seed).permutation(len(index)) % folds
    return np.array([part[index[group]] for group in members], dtype=np.int64)


def r2(y: Array, read: Array) -> Array:
    """1 - squared error / variance, of each output; NaN where it is constant.

    Args:
        y: (n, k) true values.
        read: (n, k) values read.

    Returns:
        (k,), <= 1; 0 is what the mean achieves, and a probe may do worse.
    """
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0) if len(y) else np.zeros(y.shape[1])
    error = ((y - read) ** 2).sum(axis=0)
    constant = total <= 1e-12 * np.maximum((y**2).sum(axis=0), 1e-300)
    score: Array = 1.0 - error / np.where(constant, np.nan, total)
    return score


def _standardise(x: Array, x_new: Array) -> tuple[Array, Array]:
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-12 * (1.0 + np.abs(mean)), scale, np.inf)  # a constant input says nothing
    return (x - mean) / scale, (x_new - mean) / scale


def _initial(inputs: int, outputs: int, generator: torch.Generator) -> list[Tensor]:
    """Weights and biases of both layers; the last one starts at 0, so that the first reading is the mean."""
    first = torch.randn(inputs, _WIDTH, generator=generator) * math.sqrt(2.0 / max(inputs, 1))
    return [
        one.requires_grad_() for one in (first, torch.zeros(_WIDTH), torch.zeros(_WIDTH, outputs), torch.zeros(outputs))
    ]


def _perceptron(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    first, first_bias, last, last_bias = weights
    return (x @ first + first_bias).relu() @ last + last_bias
