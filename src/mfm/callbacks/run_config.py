"""The run's configuration: in its directory, in its loggers and in every checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning_utilities.core.imports import RequirementCache

from mfm.callbacks.run_logger import RunLogger
from mfm.files import write_text

CHECKPOINT_KEY = "mfm_config"
CONFIG_FILE = "config.yaml"
# jsonargparse renamed `skip_none` in 4.50; without it an explicit null over another default is lost
KEEP_NULL = {"skip_unset" if RequirementCache("jsonargparse>=4.50") else "skip_none": False}


class RunConfig(SaveConfigCallback):
    """Record the parsed configuration wherever someone may look for it later.

    In a checkpoint it is a YAML string, which loads with `weights_only=True` and needs no other file.

    Args:
        parser: Parser of the subcommand.
        config: The parsed configuration.
        run_dir: Directory of the run; None for runs that leave nothing behind.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, run_dir: Path | None = None) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.run_dir = run_dir
        self.full: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_link_targets=True, **KEEP_NULL))
        for key in ("ckpt_path", "config", "run_dir"):
            self.full.pop(key, None)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write and log the configuration, once a run and on rank zero only."""
        self._resolve(trainer)
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        for logger in trainer.loggers:
            if not isinstance(logger, RunLogger):
                logger.log_hyperparams({**self.full, "parameters": parameters})
            if isinstance(logger, WandbLogger):
                self._tag(logger, pl_module)
        if stage == "fit" and self.run_dir is not None:
            write_text(self.run_dir / CONFIG_FILE, yaml.safe_dump(self.full, sort_keys=False))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration into the checkpoint."""
        self._resolve(trainer)
        recorded = copy.deepcopy(self.full)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and logger.version is not None:
                _continue_wandb_run(recorded.get("trainer", {}).get("logger"), str(logger.version))
        checkpoint[CHECKPOINT_KEY] = yaml.safe_dump(recorded, sort_keys=False)

    def _resolve(self, trainer: Trainer) -> None:
        """Record what the data module found: where the file is, and the dimensions the model was built for."""
        arguments = self.full.get("data", {}).get("init_args", {})
        data = getattr(trainer, "datamodule", None)
        if data is not None and "path" in arguments:
            if Path(arguments["path"]).exists():  # else a name that stands for data of a package
                arguments["path"] = str(Path(arguments["path"]).resolve())
            arguments["feature_dims"] = dict(data.feature_dims)

    @staticmethod
    def _tag(logger: WandbLogger, pl_module: LightningModule) -> None:
        run = logger.experiment
        corpus = getattr(pl_module, "corpus", None)
        names = [type(pl_module).__name__, *([corpus.name] if corpus else [])]
        run.tags = tuple(dict.fromkeys([*(run.tags or ()), *names]))
        if corpus:
            run.define_metric(corpus.monitor, summary=corpus.mode)
        run.define_metric("val/loss", summary="min")


def _continue_wandb_run(loggers: Any, run_id: str) -> None:
    """Let a run that goes on from this checkpoint go on in W&B as well; `config.yaml` still describes a new one."""
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, dict) and str(logger.get("class_path")).endswith("WandbLogger"):
            logger["init_args"] = {**(logger.get("init_args") or {}), "id": run_id, "resume": "allow"}
