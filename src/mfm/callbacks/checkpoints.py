"""Checkpoints that are written whole, restore the random states and carry the run's configuration."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

from mfm.files import whole_file


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its target, flush it, and rename it.

    Lightning's own writer goes through the system's temporary folder, from where a move to another file system is a
    copy that a kill can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save to a local path; anything with a protocol (`s3://`) goes Lightning's way."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def random_state() -> dict[str, Any]:
    """States of Python's, numpy's and torch's global generators, in types that load with `weights_only=True`."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - Lightning seeds it
    assert isinstance(keys, np.ndarray)
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    legacy = (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
    np.random.set_state(legacy)  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([value.cpu() for value in state["cuda"]])


class RandomStates(Callback):
    """Save every process' random states in the checkpoint and restore them when training goes on.

    With them, a run that was killed and resumed draws the dropout masks and prior samples it would have drawn.
    """

    def __init__(self) -> None:
        self._saved: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states of all processes."""
        states = [random_state()]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, states[0])
            states = gathered
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states until training starts: what happens in between may draw."""
        self._saved = checkpoint.get("random_states")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore this process' state where the number of processes is the same."""
        if self._saved is not None and len(self._saved) == trainer.world_size:
            set_random_state(self._saved[trainer.global_rank])
        self._saved = None
