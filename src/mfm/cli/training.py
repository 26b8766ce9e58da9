"""`mfm fit | validate | test | predict`: Lightning's command line without its traps."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any, get_args

import torch
import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

import mfm.datamodules
import mfm.modules  # noqa: F401 - both register their classes by name: `--data MOSIDataModule`
from mfm.callbacks.checkpoints import RandomStates, WholeFileCheckpointIO
from mfm.callbacks.figures import RunFigures
from mfm.callbacks.predictions import PredictionCollector
from mfm.callbacks.run_config import CHECKPOINT_KEY, RunConfig
from mfm.callbacks.run_logger import RunLogger
from mfm.callbacks.selection import BestCheckpoint, PatientStopping
from mfm.cli.configs import with_configs_found
from mfm.cli.explain import quiet_known_warnings, translate_errors
from mfm.cli.reports import report_fit, report_scores, write_predict_outputs
from mfm.cli.run_directory import clear_leftovers, evaluated_run, new_run, resumed_run
from mfm.datamodules import AffectDataModule
from mfm.datamodules.base import PredictSplit
from mfm.errors import ConfigurationError, DataFormatError, MissingDependencyError, nearest
from mfm.modules.base import AffectModule

_STRICT = {"exit_on_error": False, "allow_abbrev": False}  # errors become our sentences; no guessing of options
TRAINER_DEFAULTS = {
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,  # the data module's samplers know their rank
    "enable_progress_bar": None,
    "enable_model_summary": None,
}
EVALUATION = ("validate", "test", "predict")
_OURS = {
    "fit": ("train_dataloaders", "val_dataloaders"),
    "validate": ("dataloaders", "verbose"),
    "test": ("dataloaders", "verbose"),
    "predict": ("dataloaders", "return_predictions"),
}
PORTABLE = ("seed_everything", "model", "data")  # a checkpoint's trainer settings belong to the machine it came from


class MFMCLI(LightningCLI):
    """Lightning's CLI, with checkpoints that stand alone and runs that leave everything in one directory."""

    run_dir: Path | None = None
    collector: PredictionCollector

    def __init__(
        self,
        arguments: list[str],
        record: type[RunConfig] | None = RunConfig,
        trainer_defaults: dict[str, Any] = TRAINER_DEFAULTS,
    ) -> None:
        """Parse, build and run.

        Args:
            arguments: Those after `mfm`.
            record: What keeps the configuration in the run's directory and checkpoints; None keeps none.
            trainer_defaults: Defaults of `--trainer`.
        """
        self.asked = arguments[0]
        super().__init__(
            AffectModule,
            AffectDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=record,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={**_STRICT, self.asked: {**_STRICT, "description": _TEACHING[self.asked]}},
            trainer_defaults=trainer_defaults,
            args=arguments,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is the same for all objects
        """The subcommand that was asked for, whose parser alone is built, and the arguments that are ours to give."""
        return {self.asked: {"model", "datamodule", "weights_only", *_OURS[self.asked]}}

    # ---------------------------------------------------------------- arguments
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed, with a help that is true."""
        parser.add_argument("--seed_everything", type=bool | int, default=self.seed_everything_default, help=_SEED_HELP)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What the data knows and the model needs; selection and stopping as options of their own."""
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=int)
        parser.link_arguments("data.feature_dims", "model.init_args.feature_dims", apply_on="instantiate")
        parser.link_arguments("data.corpus_name", "model.init_args.corpus", apply_on="instantiate")
        parser.link_arguments("data.aligned", "model.init_args.aligned", apply_on="instantiate")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(PatientStopping, "early_stopping")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_argument("--run_dir", type=str | None, default=None, help=_RUN_DIR_HELP)
        if subcommand in ("validate", "test"):
            parser.add_argument("--output", type=str | None, default=None, help=_SCORES_HELP)
        if subcommand == "predict":
            parser.add_argument("--output", type=str | None, default=None, help=_PREDICTIONS_HELP)
            parser.add_argument("--factors", type=str | None, default=None, help=_FACTORS_HELP)
            parser.add_argument("--split", type=str | None, default=None, help=_SPLIT_HELP)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Put the configuration recorded in a checkpoint first in line, so that files and flags given later win."""
        arguments = [str(argument) for argument in args] if isinstance(args, list) else sys.argv[1:]
        arguments = with_configs_found(arguments)
        path = _option(arguments, "--ckpt_path")
        if path is None and arguments[0] in EVALUATION and not _is_help(arguments) and not _has_config(arguments):
            raise ConfigurationError(_NEEDS_CHECKPOINT.format(arguments[0]))
        self.recorded: dict[str, Any] | None = None
        if path is not None and not _is_help(arguments):
            self.recorded = read_recorded_config(path)
            if self.recorded is not None:
                keys = PORTABLE if arguments[0] in EVALUATION else tuple(self.recorded)
                first = yaml.safe_dump(
                    {key: self.recorded[key] for key in keys if key in self.recorded}, sort_keys=False
                )
                arguments = [arguments[0], "--config", first, *arguments[1:]]
        self.arguments = arguments
        with translate_errors(arguments, self._subcommand_parsers):
            self.config = parser.parse_args(arguments)

    def _parse_ckpt_path(self) -> None:
        """Nothing to do: Lightning's own handling lets the checkpoint override the command line in silence."""

    # ------------------------------------------------------------- instantiation
    def before_instantiate_classes(self) -> None:
        """Refuse what could only mislead, and settle where the run lives."""
        config = self.config[self.subcommand]
        path = config.get("ckpt_path")
        if self.subcommand in EVALUATION:
            if path is None:
                raise ConfigurationError(_NEEDS_CHECKPOINT.format(self.subcommand))
            if self.subcommand == "predict" and config.get("split") is not None:
                if config["split"] not in get_args(PredictSplit):
                    known = nearest(config["split"], get_args(PredictSplit))
                    raise ConfigurationError(f"--split is {config['split']!r}: {known}")
                config["data"]["init_args"]["predict_split"] = config["split"]
            self.run_dir = evaluated_run(path)
        elif path is not None:
            self._refuse_changed_model(config)
            self.run_dir = resumed_run(path)
            if self.run_dir is not None:
                clear_leftovers(self.run_dir)

    def _refuse_changed_model(self, config: Any) -> None:
        """A resumed run's optimiser belongs to the recorded model: another model cannot go on from it."""
        if self.recorded is None:
            return
        given = yaml.safe_load(self._parser("fit").dump(config, skip_link_targets=True))["model"]
        before, now = self.recorded["model"]["init_args"], given["init_args"]
        changed = sorted(key for key in now if key in before and now[key] != before[key])
        if changed:
            raise ConfigurationError(
                f"--ckpt_path resumes a run as it was recorded, but --model.{changed[0]} differs "
                f"({before[changed[0]]!r} there, {now[changed[0]]!r} here): drop the option, or start a new run "
                "without --ckpt_path"
            )

    def instantiate_classes(self) -> None:
        """Say what is wrong with a value in one sentence."""
        with translate_errors(self.arguments, self._subcommand_parsers):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has: its directory, loggers, random states, atomic checkpoints, figures."""
        settings = self._get(self.config_init, "trainer")
        throwaway = bool(settings.get("fast_dev_run"))
        if self.subcommand == "fit" and not throwaway:
            if self.run_dir is None:
                self.run_dir = new_run(self._get(self.config, "run_dir"), self.datamodule.corpus_name)
            self._get(self.config_init, "checkpoint").dirpath = str(self.run_dir / "checkpoints")
        self.save_config_kwargs = {"run_dir": self.run_dir}
        self._drop_idle_callbacks(settings)
        kwargs.setdefault("logger", self._loggers(settings, throwaway))
        kwargs.setdefault("plugins", _with_whole_file_checkpoints(settings))
        interactive = sys.stderr.isatty()
        if settings.get("enable_progress_bar") is None:
            kwargs.setdefault("enable_progress_bar", interactive)
        if settings.get("enable_model_summary") is None:
            kwargs.setdefault("enable_model_summary", interactive and self.subcommand == "fit")
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except ValueError as error:  # strategies, devices: checked by Lightning alone
            raise ConfigurationError(f"--trainer: {' '.join(str(error).split())}") from error
        own = self._own_callbacks(trainer, throwaway)
        trainer.callbacks = [*own, *trainer.callbacks]  # type: ignore[attr-defined]  # set by a connector
        return trainer

    def _drop_idle_callbacks(self, settings: Any) -> None:
        """Evaluation neither selects nor stops, and a run without checkpoints cannot have their callback."""
        keys = self._parser(self.subcommand).callback_keys
        idle = {"checkpoint"} if settings.get("enable_checkpointing") is False else set()
        if self.subcommand in EVALUATION:
            idle = {"checkpoint", "early_stopping"}
        keys[:] = [key for key in keys if key not in idle]

    def _own_callbacks(self, trainer: Trainer, throwaway: bool) -> list[Callback]:
        self.collector = PredictionCollector()
        callbacks: list[Callback] = [self.collector]
        if self.subcommand == "fit":
            callbacks.append(RandomStates())
            if any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
                callbacks.append(LearningRateMonitor(logging_interval="epoch"))
        if self.subcommand in ("fit", "test") and self.run_dir is not None and not throwaway:
            callbacks.append(RunFigures(self.run_dir, self.collector))
        return callbacks

    def _loggers(self, settings: Any, throwaway: bool) -> Any:
        given = settings.get("logger")
        if given is False or throwaway:
            return False
        loggers = [] if given in (None, True) else list(given) if isinstance(given, list) else [given]
        if self.subcommand == "fit" and self.run_dir is not None:
            loggers.append(RunLogger(self.run_dir))
        return loggers or False

    # ------------------------------------------------------------------ reports
    def after_fit(self) -> None:
        """Say where everything is; the last line is the command that comes next."""
        if self.trainer.is_global_zero:
            for logger in self.trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()
            report_fit(self)

    def after_validate(self) -> None:
        """Print and write the validation metrics."""
        if self.trainer.is_global_zero:
            report_scores(self, "val")

    def after_test(self) -> None:
        """Print and write the test metrics."""
        if self.trainer.is_global_zero:
            report_scores(self, "test")

    def after_predict(self) -> None:
        """Write predictions and factors."""
        if self.trainer.is_global_zero:
            write_predict_outputs(self)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        extra: dict[str, Any] = {"weights_only": True}
        if subcommand == "predict":
            extra["return_predictions"] = False
        elif subcommand in EVALUATION:
            extra["verbose"] = False
        return {**super()._prepare_subcommand_kwargs(subcommand), **extra}


_MORE = (
    "Options of a model or a data module: --model.help MFMModule, --data.help MOSIDataModule (or another of its name). "
    "Named parts and their settings: mfm parts. Shipped configurations: mfm configs."
)
_TEACHING = {
    "fit": "Train a model and keep its best epoch by validation. "
    "A new run: mfm fit --config mosei.yaml --data.path aligned_50.pkl. "
    "Go on with a killed one: mfm fit --ckpt_path RUN/checkpoints/last.ckpt, and nothing else. "
    "Later files and flags win: mfm fit --config mosei.yaml --config gpu.yaml --model.z_y 64. " + _MORE,
    "validate": "Score the validation split with a checkpoint: mfm validate --ckpt_path RUN/checkpoints/best.ckpt. "
    + _MORE,
    "test": "Score the test split with a checkpoint, whose own configuration is used: "
    "mfm test --ckpt_path RUN/checkpoints/best.ckpt. Take a modality away: --data.missing '[text]'. "
    "Another file: --data.path other.pkl. " + _MORE,
    "predict": "Write predictions (and, with --factors, latent codes and factors) of a split, or of a new file "
    "without labels: mfm predict --ckpt_path RUN/checkpoints/best.ckpt --data.path new.pkl --output predictions.csv. "
    + _MORE,
}
_NEEDS_CHECKPOINT = (
    "{} needs --ckpt_path: scoring an untrained model would mean nothing; "
    "`mfm fit` prints the path of its best checkpoint"
)
_SEED_HELP = "Seed of initial weights, dropout, prior draws and the order of samples; false leaves torch unseeded."
_RUN_DIR_HELP = (
    "Directory of the run; a new one under runs/<corpus>/ by default, and the checkpoint's own when resuming."
)
_SCORES_HELP = "JSON file for the metrics; metrics_<stage>.json in the checkpoint's run directory by default."
_PREDICTIONS_HELP = "CSV file for the predictions; predictions.csv in the checkpoint's run directory by default."
_FACTORS_HELP = "HDF5 file for latent codes Z and factors F of every sample; not written by default."
_SPLIT_HELP = "Split to predict: train, valid, test or all; --data.predict_split by default."


def read_recorded_config(path: str) -> dict[str, Any] | None:
    """The configuration that `mfm fit` recorded in a checkpoint; None for a remote one.

    Raises:
        ConfigurationError: No such file.
        DataFormatError: The file is not a checkpoint, or not one of ours.
    """
    if "://" in path:
        return None
    if not Path(path).is_file():
        raise ConfigurationError(f"--ckpt_path: no such file: {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises half a dozen types for files that are not checkpoints
        raise DataFormatError(
            f"--ckpt_path: {path} is not a readable checkpoint ({type(error).__name__}); "
            "give a .ckpt file written by mfm fit"
        ) from error
    text = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if text is not None:
        return dict(yaml.safe_load(text))
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "hyper_parameters" not in checkpoint:
        raise DataFormatError(f"--ckpt_path: {path} was not written by mfm; give a .ckpt file written by mfm fit")
    return None  # made by plain Python: the command line has to describe it


def _option(arguments: list[str], name: str) -> str | None:
    value = None
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            value = arguments[index + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def _has_config(arguments: list[str]) -> bool:
    return any(argument in ("-c", "--config") or argument.startswith("--config=") for argument in arguments)


def _is_help(arguments: list[str]) -> bool:
    return any(argument in ("-h", "--help") or argument.endswith(".help") for argument in arguments)


def _with_whole_file_checkpoints(settings: Any) -> list[Any] | None:
    """Add our checkpoint writer where the strategy writes ordinary files and nobody gave another."""
    given = settings.get("plugins")
    plugins = [] if given is None else list(given) if isinstance(given, list) else [given]
    strategy = settings.get("strategy")
    ordinary = isinstance(strategy, str) and strategy.partition("_")[0] in ("auto", "ddp")
    if ordinary and not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeFileCheckpointIO())
    return plugins or None


def main(arguments: list[str], command: type[MFMCLI] = MFMCLI) -> int:
    """Run one of the trainer's subcommands.

    Args:
        arguments: Those after `mfm`.
        command: What runs it, for callers that also want what the files do not tell.
    """
    os.environ["MFM_COMMAND"] = shlex.join(["mfm", *arguments])
    quiet_known_warnings()
    # a corpus or a model in the user's own file: `--data my_corpus.MyCorpusDataModule`
    sys.path.append(str(Path.cwd()))
    # saturated gates leave numbers below 1e-38, which CPUs handle a hundred times more slowly than zeros
    torch.set_flush_denormal(True)
    try:
        command(arguments)
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into status 1
            raise KeyboardInterrupt from exit_
        return int(exit_.code or 0)
    except MisconfigurationException as error:  # Lightning's word for a mistake of the user's
        raise ConfigurationError(" ".join(str(error).split())) from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        reason = (str(error).splitlines()[1:] or [str(error)])[0].strip().rstrip(".")
        raise ConfigurationError(
            f"--ckpt_path: its model is not the one that the options describe ({reason}); "
            "leave --model options out, so that the recorded ones are used"
        ) from error
    except ModuleNotFoundError as error:
        if "wandb" in str(error):
            raise MissingDependencyError(
                "logging to W&B needs the wandb package: pip install 'mfm-lightning[wandb]'"
            ) from error
        raise
    return 0
