"""Weights of a trained model as the start of another."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError, DataFormatError


def load_parts(module: nn.Module, path: str, parts: Iterable[str]) -> None:
    """Copy some parts of a checkpoint's weights into a module.

    Args:
        module: The module to fill.
        path: A checkpoint written by `mfm fit`; loaded with `weights_only=True`.
        parts: Submodules of `module` to fill, such as `model` or `model.encoders`; the rest stays as it is.

    Raises:
        ConfigurationError: No such file, or weights of another model: a tensor that is not there or of another shape.
        DataFormatError: The file is not a checkpoint.
    """
    saved = _state(path)
    for part in parts:
        own = module.get_submodule(part)
        start = f"{part}."
        found = {name.removeprefix(start): value for name, value in saved.items() if name.startswith(start)}
        _check_shapes(part, own.state_dict(), found, path)
        own.load_state_dict(found)


def _state(path: str) -> dict[str, Tensor]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"--model.init_from: no such file: {path}; give the checkpoint of a trained model"
        ) from error
    except Exception as error:  # torch raises half a dozen types for files that are not checkpoints
        raise DataFormatError(
            f"--model.init_from: {path} is not a readable checkpoint ({type(error).__name__}); "
            "give a .ckpt file written by mfm fit"
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise DataFormatError(f"--model.init_from: {path} holds no weights; give a .ckpt file written by mfm fit")
    return state


def _check_shapes(part: str, own: dict[str, Tensor], found: dict[str, Tensor], path: str) -> None:
    remedy = "start with the configuration of that run: --config RUN/config.yaml"
    for name in sorted(own.keys() | found.keys()):
        if name not in found:
            raise ConfigurationError(
                f"--model.init_from: {path} has no weights for {part}.{name}, which this model has; {remedy}"
            )
        if name not in own:
            raise ConfigurationError(
                f"--model.init_from: {path} has weights for {part}.{name}, which this model does not have; {remedy}"
            )
        if own[name].shape != found[name].shape:
            raise ConfigurationError(
                f"--model.init_from: {part}.{name} has shape {tuple(found[name].shape)} in {path} and "
                f"{tuple(own[name].shape)} in this model; {remedy}"
            )
