"""What can go wrong with the input, as functions from a batch to a batch.

Every function leaves its argument as it is, works in the file's units, and draws from the generator alike whatever
the level and the modalities that are hit: curves over levels share their random numbers, so that a larger level
takes away what a smaller one did, and more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from mfm.data.batch import AffectBatch, without
from mfm.errors import ConfigurationError, nearest


def only(batch: AffectBatch, modalities: Collection[str]) -> AffectBatch:
    """Take every modality away but these.

    Raises:
        ConfigurationError: One that the batch does not have (the nearest is named).
    """
    _check_known(batch, modalities)
    gone = {name: torch.ones_like(flag) for name, flag in batch.present.items() if name not in modalities}
    return without(batch, gone)


def fill_absent(batch: AffectBatch, value: float) -> AffectBatch:
    """Put a constant in place of absent modalities and call them observed.

    They become as long as the sample's longest observed modality, for how long they would have been is not known. A
    sample without any modality stays so.

    Args:
        batch: The batch.
        value: 0 is the zero-filling that the paper compares with, in the file's units; NaN, which a model standardises
            to 0, is the training mean.

    Returns:
        A batch in which `present` is True everywhere, unless a sample has nothing at all.
    """
    features, lengths, present = {}, {}, {}
    known = {name: length.masked_fill(~batch.present[name], 0) for name, length in batch.lengths.items()}
    longest = torch.stack(list(known.values())).amax(dim=0)
    most = int(longest.max()) if len(longest) else 0
    for name, x in batch.features.items():
        absent = known[name] == 0
        x = F.pad(x, (0, 0, 0, max(most - x.shape[1], 0)))
        new = absent[:, None] & (torch.arange(x.shape[1], device=x.device) < longest[:, None])
        features[name] = torch.where(new[..., None], torch.full_like(x, value), x)
        lengths[name] = torch.where(absent, longest, known[name])
        present[name] = lengths[name] > 0
    return batch._replace(features=features, lengths=lengths, present=present)


def drop_steps(
    batch: AffectBatch,
    rate: float,
    modalities: Collection[str],
    generator: torch.Generator,
    *,
    value: float = math.nan,
) -> AffectBatch:
    """Lose single steps at random; every sequence keeps at least one, and the others keep their places.

    Args:
        batch: The batch.
        rate: Probability in [0, 1] that a step is lost.
        modalities: Which modalities are hit.
        generator: Source of randomness, on the CPU.
        value: What stands in a lost step, in the file's units; NaN is the training mean to a model that standardises.

    Raises:
        ConfigurationError: A rate outside [0, 1], or an unknown modality.
    """
    _check_share("rate of dropped steps", rate)
    _check_known(batch, modalities)
    lost = {}
    for name in sorted(batch.features):
        x, real = batch.features[name], _real(batch, name)
        draws = torch.rand(x.shape[:2], generator=generator).to(x.device)
        keep = draws.masked_fill(~real, -1.0).argmax(dim=1) if x.shape[1] else None
        gone = (draws < rate) & real
        if keep is not None:
            gone = gone & ~F.one_hot(keep, x.shape[1]).bool()
        lost[name] = gone
    return _lose(batch, {name: lost[name] for name in modalities}, value)


def drop_span(
    batch: AffectBatch,
    share: float,
    modalities: Collection[str],
    generator: torch.Generator,
    *,
    value: float = math.nan,
) -> AffectBatch:
    """Lose a span of consecutive steps at a random place; every sequence keeps at least one step.

    Args:
        batch: The batch.
        share: Share in [0, 1] of each sequence's steps, rounded to whole steps.
        modalities: Which modalities are hit.
        generator: Source of randomness, on the CPU.
        value: See `drop_steps`.

    Raises:
        ConfigurationError: A share outside [0, 1], or an unknown modality.
    """
    _check_share("share of a dropped span", share)
    _check_known(batch, modalities)
    lost = {}
    for name in sorted(batch.features):
        x, length = batch.features[name], _real(batch, name).sum(dim=1)
        place = torch.rand(len(x), generator=generator).to(x.device)
        span = (share * length).round().long().clamp(max=(length - 1).clamp(min=0))
        start = (place * (length - span + 1)).long().clamp(max=length - span)
        steps = torch.arange(x.shape[1], device=x.device)
        lost[name] = (steps >= start[:, None]) & (steps < (start + span)[:, None])
    return _lose(batch, {name: lost[name] for name in modalities}, value)


def add_noise(
    batch: AffectBatch,
    snr: float,
    std: Mapping[str, Tensor],
    modalities: Collection[str],
    generator: torch.Generator,
) -> AffectBatch:
    """Add white Gaussian noise, x + s 10^(-snr / 20) e with e ~ N(0, 1), to every real step.

    Args:
        batch: The batch.
        snr: Signal-to-noise ratio in decibels: 0 is noise as strong as the signal's deviation, 20 a tenth of it.
        std: Modality -> (D_m,) standard deviation s of each feature in the training split, in the file's units.
        modalities: Which modalities are hit.
        generator: Source of randomness, on the CPU.

    Raises:
        ConfigurationError: A ratio that is NaN, or an unknown modality.
    """
    if math.isnan(snr):
        raise ConfigurationError("the signal-to-noise ratio is nan, but must be a number of decibels")
    _check_known(batch, modalities)
    features = dict(batch.features)
    for name in sorted(batch.features):
        x = batch.features[name]
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        if name in modalities:
            noisy = x + noise * std[name].to(x.device) * 10.0 ** (-snr / 20.0)
            features[name] = torch.where(_real(batch, name)[..., None], noisy, x)
    return batch._replace(features=features)


def _real(batch: AffectBatch, name: str) -> Tensor:
    """(B, T_m) bool: steps that were observed."""
    x = batch.features[name]
    steps = torch.arange(x.shape[1], device=x.device) < batch.lengths[name][:, None]
    return steps & batch.present[name][:, None]


def _lose(batch: AffectBatch, lost: Mapping[str, Tensor], value: float) -> AffectBatch:
    features = dict(batch.features)
    for name, gone in lost.items():
        features[name] = features[name].masked_fill(gone[..., None], value)
    return batch._replace(features=features)


def _check_share(what: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigurationError(f"the {what} is {share:g}, but must be from 0 to 1")


def _check_known(batch: AffectBatch, modalities: Collection[str]) -> None:
    for name in modalities:
        if name not in batch.features:
            raise ConfigurationError(f"the data has no modality {name!r}: {nearest(name, batch.features)}")
