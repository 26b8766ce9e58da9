"""Trainings of `mfm tune`: the command line of `mfm fit`, parsed once and built with other values for each trial."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from mfm.callbacks.run_config import KEEP_NULL
from mfm.cli.explain import quiet_known_warnings, translate_errors
from mfm.cli.training import MFMCLI
from mfm.errors import ConfigurationError
from mfm.tuning.curve import ValidationCurve
from mfm.tuning.objective import Training

_QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
_NOT_RECORDED = ("ckpt_path", "config", "run_dir")


class TrialCLI(MFMCLI):
    """The options of `mfm fit` as a configuration that can be trained again and again with other values.

    Nothing of a trial is written: no checkpoints, no logs, no run directory.

    Args:
        arguments: Options of `mfm fit`.
    """

    def __init__(self, arguments: list[str]) -> None:
        quiet_known_warnings()
        torch.set_flush_denormal(True)  # as in mfm fit
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # a corpus or a model in the user's own file
        super().__init__(["fit", *arguments], record=None)

    def instantiate_classes(self) -> None:
        """Nothing yet: each trial is built by `build`."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing yet."""

    @property
    def base(self) -> dict[str, Any]:
        """The whole configuration, defaults included, as `mfm fit --config` reads it."""
        parser = self._parser("fit")
        config = dict(yaml.safe_load(parser.dump(self.config["fit"], skip_link_targets=True, **KEEP_NULL)))
        config["trainer"] = {
            key: value
            for key, value in config["trainer"].items()
            if value is not None or parser.get_default(f"trainer.{key}") is not None  # dozens are null by default
        }
        config["data"]["init_args"]["path"] = _absolute(config["data"]["init_args"].get("path"))
        return {key: value for key, value in config.items() if key not in _NOT_RECORDED}

    def parsed(self, config: Mapping[str, Any]) -> Any:
        """A configuration with its values checked by type.

        Raises:
            ConfigurationError: A value of another type than its option's.
        """
        trainer = {key: value for key, value in config["trainer"].items() if key != "logger"}
        with translate_errors(self.arguments, self._subcommand_parsers):
            return self._parser("fit").parse_object({**config, "trainer": trainer})

    def build(self, config: Mapping[str, Any], curve: ValidationCurve) -> Training:
        """Module, data and trainer of a configuration, with the random numbers that `mfm fit` would draw.

        Raises:
            ConfigurationError: A value that cannot be used.
            MFMError: What the data or the model refuse.
        """
        parsed = self.parsed(config)
        self.config["fit"] = parsed
        with translate_errors(self.arguments, self._subcommand_parsers):
            self._set_seed()
            built = self._parser("fit").instantiate_classes(parsed)
        settings = {**built["trainer"], **_QUIET}
        given = settings.get("callbacks") or []
        callbacks = [*(given if isinstance(given, list) else [given]), built["early_stopping"], curve]
        try:
            trainer = Trainer(**{**settings, "callbacks": callbacks})
        except (ValueError, MisconfigurationException) as error:
            raise ConfigurationError(f"--trainer: {' '.join(str(error).split())}") from error
        return Training(built["model"], built["data"], trainer)


def quieten_trials() -> None:
    """Leave out what the data module has to say of its file: it was said when the options were tried."""
    logging.getLogger("mfm.datamodules").setLevel(logging.WARNING)


def _absolute(path: Any) -> Any:
    """A file's path that holds from every folder; a name that stands for data of a package as it is."""
    return str(Path(path).resolve()) if path is not None and Path(path).exists() else path
