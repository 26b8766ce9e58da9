"""Options of a data module, checked before anything is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from mfm.errors import ConfigurationError, nearest


def check_numbers(*, batch_size: int, num_workers: int, train_fraction: float, limit: int | None, seed: int) -> None:
    """Refuse numbers that cannot be used.

    Raises:
        ConfigurationError: One is out of its range.
    """
    if batch_size < 1:
        raise ConfigurationError(f"--data.batch_size is {batch_size}; it must be at least 1")
    if num_workers < 0:
        raise ConfigurationError(f"--data.num_workers is {num_workers}; it must not be negative")
    if not 0 < train_fraction <= 1:
        raise ConfigurationError(f"--data.train_fraction is {train_fraction:g}; it must be above 0 and at most 1")
    if limit is not None and limit < 1:
        raise ConfigurationError(f"--data.limit is {limit}; it must be at least 1, or null for all samples")
    if seed < 0:
        raise ConfigurationError(f"--data.seed is {seed}; it must not be negative")


def check_choice(option: str, value: str, literal: object) -> None:
    """Refuse a value that is not one of a `Literal`'s.

    Raises:
        ConfigurationError: With the nearest right one.
    """
    if value not in get_args(literal):
        raise ConfigurationError(f"--data.{option} is {value!r}: {nearest(value, get_args(literal))}")


def check_missing(missing: Sequence[str], modalities: Sequence[str]) -> None:
    """Refuse to take away what is not there, or everything.

    Raises:
        ConfigurationError: An unknown modality, or none would be left.
    """
    for name in missing:
        if name not in modalities:
            raise ConfigurationError(f"--data.missing names {name!r}: {nearest(name, modalities)}")
    if set(missing) >= set(modalities):
        raise ConfigurationError(
            f"--data.missing takes away all modalities ({', '.join(sorted(modalities))}); leave at least one"
        )


def missing_rates(missing_rate: float | Mapping[str, float], modalities: Sequence[str]) -> dict[str, float]:
    """Spell `missing_rate` out by modality; empty when nothing is ever missing.

    Raises:
        ConfigurationError: A rate outside [0, 1), an unknown modality, or a single modality, which cannot be missing.
    """
    if isinstance(missing_rate, int | float):
        rates = dict.fromkeys(modalities, float(missing_rate))
    else:
        rates = {name: float(rate) for name, rate in missing_rate.items()}
    for name, rate in rates.items():
        if name not in modalities:
            raise ConfigurationError(f"--data.missing_rate names {name!r}: {nearest(name, modalities)}")
        if not 0 <= rate < 1:
            raise ConfigurationError(f"--data.missing_rate of {name!r} is {rate:g}; it must be at least 0 and below 1")
    if not any(rates.values()):
        return {}
    if len(modalities) == 1:
        raise ConfigurationError(f"--data.missing_rate cannot apply to {modalities[0]!r}, the only modality; drop it")
    return rates
