"""Optimisers and learning-rate schedules by name, as the modules use them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from mfm.errors import ConfigurationError, nearest

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
SCHEDULES = ("constant", "cosine", "linear", "plateau")


def split_spec(spec: str | Mapping[str, Any], what: str) -> tuple[str, dict[str, Any]]:
    """Take `"adam"` or `{"name": "adam", "betas": [0.9, 0.99]}` apart into a name and settings.

    Raises:
        ConfigurationError: A mapping without `name`.
    """
    if isinstance(spec, str):
        return spec, {}
    settings = dict(spec)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigurationError(f"{what} needs a name, e.g. {{name: adam}}, got {dict(spec)!r}")
    return name, settings


def check_optimisation(
    optimizer: str | Mapping[str, Any],
    schedule: str | Mapping[str, Any],
    *,
    lr: float,
    weight_decay: float,
    warmup: int,
) -> None:
    """Refuse what cannot be used before a run begins; the arguments are those of the builders below.

    Raises:
        ConfigurationError: As `build_optimizer` and `build_schedule`.
    """
    something = [{"params": [nn.Parameter(torch.zeros(1))]}]
    built = build_optimizer(optimizer, something, lr, weight_decay)
    build_schedule(schedule, built, warmup_steps=warmup, total_steps=1, monitor="", mode="min")


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which only weight matrices decay; biases and gains (below 2 dimensions) do not."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.dim() >= 2]
    vectors = [parameter for parameter in trainable if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    spec: str | Mapping[str, Any],
    groups: Iterable[dict[str, Any]],
    lr: float,
    weight_decay: float,
    *,
    fused: bool = False,
) -> Optimizer:
    """Build an optimiser by name.

    Args:
        spec: Name in `OPTIMIZERS`, or a mapping with `name` and that optimiser's own arguments.
        groups: Parameter groups.
        lr: Learning rate, > 0.
        weight_decay: Default of groups that name none, >= 0.
        fused: Whether one operation may update all parameters, where the optimiser can and `spec` does not say how.

    Raises:
        ConfigurationError: Unknown name or argument, or a value out of range.
    """
    name, settings = split_spec(spec, "optimizer")
    if name not in OPTIMIZERS:
        raise ConfigurationError(f"unknown optimizer {name!r}: {nearest(name, OPTIMIZERS)}")
    if not lr > 0 or weight_decay < 0:
        raise ConfigurationError(f"lr must be > 0 and weight_decay >= 0, got {lr} and {weight_decay}")
    known = set(inspect.signature(OPTIMIZERS[name]).parameters) - {"params", "lr", "weight_decay"}
    for setting in settings:
        if setting not in known:
            raise ConfigurationError(f"optimizer {name} has no setting {setting!r}: {nearest(setting, known)}")
    if fused and "fused" in known and not settings.keys() & {"fused", "foreach", "differentiable"}:
        settings["fused"] = True
    optimizer: Callable[..., Optimizer] = OPTIMIZERS[name]
    try:
        return optimizer(list(groups), lr=lr, weight_decay=weight_decay, **settings)
    except (TypeError, ValueError) as error:  # torch's own words for a value that it cannot use
        raise ConfigurationError(f"optimizer {name} cannot use {settings}: {error}") from error


def _factor(step: int, *, shape: str, warmup: int, total: int, floor: float) -> float:
    """Learning rate at a step as a share of the base rate: linear warm-up, then the named decay to `floor`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if shape == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    falling = 0.5 * (1.0 + math.cos(math.pi * progress)) if shape == "cosine" else 1.0 - progress
    return floor + (1.0 - floor) * falling


def build_schedule(
    spec: str | Mapping[str, Any], optimizer: Optimizer, *, warmup_steps: int, total_steps: int, monitor: str, mode: str
) -> dict[str, Any] | None:
    """Build Lightning's scheduler entry, or None for a constant rate.

    Args:
        spec: `constant`, `cosine`, `linear` (setting `floor`, share of the base rate at the end, default 0) or
            `plateau` (settings of `torch.optim.lr_scheduler.ReduceLROnPlateau`).
        optimizer: The optimiser to steer.
        warmup_steps: Optimiser steps over which the rate rises linearly.
        total_steps: Optimiser steps of the whole run.
        monitor: Validation metric that `plateau` watches.
        mode: `min` or `max` of that metric.

    Raises:
        ConfigurationError: Unknown name or setting; warm-up together with `plateau`.
    """
    name, settings = split_spec(spec, "schedule")
    if name not in SCHEDULES:
        raise ConfigurationError(f"unknown schedule {name!r}: {nearest(name, SCHEDULES)}")
    if warmup_steps < 0:
        raise ConfigurationError(f"warmup_steps must be >= 0, got {warmup_steps}")
    scheduler: LRScheduler | ReduceLROnPlateau
    if name == "plateau":
        if warmup_steps:
            raise ConfigurationError("schedule plateau cannot warm up: leave warmup_steps at 0 or choose cosine")
        known = set(inspect.signature(ReduceLROnPlateau).parameters) - {"optimizer", "mode"}
        for setting in settings:
            if setting not in known:
                raise ConfigurationError(f"schedule plateau has no setting {setting!r}: {nearest(setting, known)}")
        try:
            scheduler = ReduceLROnPlateau(optimizer, mode="min" if mode == "min" else "max", **settings)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"schedule plateau cannot use {settings}: {error}") from error
        return {"scheduler": scheduler, "monitor": monitor, "interval": "epoch"}
    floor = settings.pop("floor", 0.0)
    if settings:
        raise ConfigurationError(f"schedule {name} has no setting {next(iter(settings))!r}: {nearest('', ['floor'])}")
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
        raise ConfigurationError(f"floor of schedule {name} is {floor!r}, but must be a number from 0 to 1")
    if name == "constant" and not warmup_steps:
        return None
    factor = partial(_factor, shape=name, warmup=warmup_steps, total=total_steps, floor=float(floor))
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
