"""A trained model with its data, for the commands that examine one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfm.analysis.contribution import constant_prediction
from mfm.cli.explain import quiet_known_warnings
from mfm.cli.training import MFMCLI
from mfm.data.batch import AffectBatch
from mfm.data.labels import decode_labels
from mfm.datamodules import AffectDataModule
from mfm.errors import ConfigurationError, DataFormatError
from mfm.modules.base import AffectModule

_PASSED_ON = ("--data", "--config", "-c")


class LoadedRun(NamedTuple):
    """What a checkpoint describes.

    Attributes:
        module: The trained module in evaluation mode, on the CPU.
        data: Its data module, set up for the split: `predict_dataloader()` goes through it in the file's order.
        run_dir: Directory of the run.
    """

    module: AffectModule
    data: AffectDataModule
    run_dir: Path


class _Loader(MFMCLI):
    """The training commands' configuration of model and data, without running anything."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: whoever loads a run goes on from here."""


def load_run(checkpoint: str | None, overrides: list[str], *, split: str, command: str) -> LoadedRun:
    """Build model and data from a checkpoint's recorded configuration, and load the weights.

    Args:
        checkpoint: `--ckpt_path`.
        overrides: Further arguments as of `mfm test`: `--data.*` and `--config`.
        split: `train`, `valid`, `test` or `all`.
        command: The command, for messages.

    Raises:
        ConfigurationError: No checkpoint, an option that is none, or a checkpoint of another model.
        DataFormatError: The file is not a checkpoint, or the data does not fit the model.
    """
    if checkpoint is None:
        raise ConfigurationError(
            f"{command} needs --ckpt_path: there is nothing to learn from an untrained model; "
            "`mfm fit` prints the path of its best checkpoint"
        )
    for argument in overrides:
        if argument.startswith("-") and argument.partition(".")[0].partition("=")[0] not in _PASSED_ON:
            raise ConfigurationError(
                f"unknown option {argument.partition('=')[0]!r}: besides those that `mfm {command} --help` lists, only "
                "--data.* and --config are taken"
            )
    quiet_known_warnings()
    sys.path.append(str(Path.cwd()))  # a corpus or a model in the user's own file, as for the training commands
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    cli = _Loader(
        ["predict", "--ckpt_path", checkpoint, "--split", split, *overrides],
        trainer_defaults={**quiet, "enable_model_summary": False, "use_distributed_sampler": False},
    )
    _load_weights(cli.model, checkpoint)
    cli.datamodule.setup("predict")
    assert cli.run_dir is not None
    return LoadedRun(cli.model.eval(), cli.datamodule, cli.run_dir)


def _load_weights(module: AffectModule, checkpoint: str) -> None:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except OSError as error:
        raise DataFormatError(f"--ckpt_path: cannot read {checkpoint}: {error.strerror or error}") from error
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ConfigurationError(
            f"--ckpt_path: the weights in {checkpoint} are not those of the model that is configured ({first}); "
            "give the configuration that it was trained with"
        ) from error


def moved(batch: AffectBatch, device: torch.device) -> AffectBatch:
    """A batch with its inputs on a device; labels stay where they are."""

    def move(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: part.to(device) for name, part in parts.items()}

    return batch._replace(features=move(batch.features), lengths=move(batch.lengths), present=move(batch.present))


def constant_of(run: LoadedRun, split: str) -> Tensor | None:
    """A split's median or most frequent class, the best prediction that looks at nothing.

    Returns:
        (output_dim,) as the head would put it; None where the file has no such split or a target has no label in it.
    """
    data = run.data.corpus_data.splits.get(split)
    if data is None or not len(data):
        return None
    labels = decode_labels(data, run.data.corpus_record, run.data.target, required=False, where=run.data.path)
    mask = torch.as_tensor(labels.mask)
    if not bool(mask.any(dim=0).all()):
        return None
    return constant_prediction(run.data.corpus_record, torch.as_tensor(labels.values), mask)
