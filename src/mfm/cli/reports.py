"""What the training commands print and write when they are done."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from mfm.analysis.results import prediction_columns, write_factors, write_predictions
from mfm.callbacks.run_logger import RunLogger
from mfm.errors import DataFormatError
from mfm.files import write_json
from mfm.metrics import describe

if TYPE_CHECKING:
    from mfm.cli.training import MFMCLI


def report_fit(cli: MFMCLI) -> None:
    """Write `metrics_fit.json` and print where the run is; the last line is the `mfm test` command."""
    if cli.run_dir is None:
        return
    best = cli.trainer.checkpoint_callback
    values = {name: float(value) for name, value in cli.trainer.callback_metrics.items()} or _last_epoch(cli)
    monitor: str | None = getattr(best, "monitor", None)
    score, best_path = getattr(best, "best_model_score", None), str(getattr(best, "best_model_path", ""))
    if monitor is not None and score is not None:
        values[f"best/{monitor}"] = float(score)
    values["epochs"] = cli.trainer.current_epoch
    write_json(cli.run_dir / "metrics_fit.json", {**values, **_provenance(cli, best_path)})
    out = _console()
    out.print(f"run directory: {cli.run_dir}", soft_wrap=True)
    if monitor is not None and score is not None:
        out.print(f"best {monitor}: {float(score):.4f} ({cli.trainer.current_epoch} epochs trained)")
    if best_path:
        command = ["mfm", "test", "--ckpt_path", os.path.relpath(best_path)]
        out.print(shlex.join(command), soft_wrap=True, highlight=False)


def _last_epoch(cli: MFMCLI) -> dict[str, float]:
    """What was logged last, for a run that was killed when all its epochs were done and only its reports were not."""
    rows = [row for logger in cli.trainer.loggers if isinstance(logger, RunLogger) for row in logger.rows]
    return {name: value for name, value in rows[-1].items() if "/" in name} if rows else {}


def report_scores(cli: MFMCLI, stage: str) -> None:
    """Print a stage's metrics as a table and write them as JSON; the last line is the file's path."""
    corpus = cli.model.corpus
    values = {name: float(value) for name, value in sorted(cli.trainer.callback_metrics.items())}
    config = cli.config[cli.subcommand]
    missing = cli.datamodule.missing or []
    path = config.get("output") or Path(str(cli.run_dir)) / f"metrics_{stage}{_suffix(cli)}.json"
    collected = cli.collector.collected
    extra = {"split": "test" if stage == "test" else "valid", "samples": len(collected.ids) if collected else 0}
    write_json(path, {**values, **extra, **_provenance(cli, config["ckpt_path"]), "missing": "+".join(missing)})
    without = f", without {' and '.join(missing)}" if missing else ""
    title = f"{corpus.title}: {extra['split']} split, {extra['samples']} samples{without}"
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("definition", overflow="fold")
    definitions = describe(corpus)
    for short, definition in definitions.items():
        if f"{stage}/{short}" in values:
            table.add_row(f"{stage}/{short}", f"{values[f'{stage}/{short}']:.4f}", definition)
    table.add_section()
    for name, value in values.items():
        if name.partition("/")[2] not in definitions:
            table.add_row(name, f"{value:.4f}", "the objective" if name.endswith("/loss") else "part of the loss")
    out = _console()
    out.print(table)
    out.print(os.path.relpath(path), soft_wrap=True, highlight=False)


def write_predict_outputs(cli: MFMCLI) -> None:
    """Write `predictions.csv` and, when asked for, the file of codes and factors."""
    config = cli.config["predict"]
    output = cli.collector.collected
    if output is None:
        raise DataFormatError(f"{cli.datamodule.path}: nothing to predict, the split is empty")
    splits = cli.datamodule.predict_splits
    path = config.get("output") or Path(str(cli.run_dir)) / f"predictions{_suffix(cli)}.csv"
    out = _console()
    prediction = output.prediction
    trained_with = (cli.recorded or {}).get("data", {}).get("init_args", {})
    if trained_with.get("labels") is False:
        prediction = prediction[:, :0]  # the head is as it was initialised
        out.print("trained without labels: no predictions, only codes and factors (--factors)", soft_wrap=True)
    columns = prediction_columns(cli.model.corpus, prediction, output.target, output.target_mask)
    write_predictions(path, output.ids, splits, columns)
    if config.get("factors") is not None:
        if not output.codes:
            raise DataFormatError(f"--factors: {type(cli.model).__name__} has no latent codes or factors to write")
        provenance = {"checkpoint": str(config["ckpt_path"]), "data_fingerprint": cli.datamodule.fingerprint}
        write_factors(config["factors"], output.ids, splits, output.codes, output.factors, provenance)
        out.print(
            f"{len(output.ids)} samples' codes and factors in {config['factors']}", soft_wrap=True, highlight=False
        )
    out.print(f"{len(output.ids)} predictions in {os.path.relpath(path)}", soft_wrap=True, highlight=False)


def _suffix(cli: MFMCLI) -> str:
    """What tells this evaluation from the plain one (best epoch, the run's own file), whose results it must leave."""
    config = cli.config[cli.subcommand]
    recorded = (cli.recorded or {}).get("data", {}).get("init_args", {})
    epoch, data = Path(config["ckpt_path"]).stem, cli.datamodule
    parts = [] if epoch == "best" else [epoch]
    if recorded and Path(data.path).resolve() != Path(recorded["path"]).resolve():
        parts += ["on", Path(data.path).stem]
    if data.limit != recorded.get("limit"):
        parts += ["limit", str(data.limit)]
    if cli.subcommand == "predict" and data.predict_split != "test":
        parts.append(data.predict_split)
    parts += ["without", *data.missing] if data.missing else []
    return "".join(f"_{part}" for part in parts)


def _provenance(cli: MFMCLI, checkpoint: str) -> dict[str, Any]:
    seed = cli.config[cli.subcommand].get("seed_everything")
    return {
        "seed": int(seed) if isinstance(seed, int) else None,
        "checkpoint": str(checkpoint),
        "data": cli.datamodule.path,
        "data_fingerprint": cli.datamodule.fingerprint,
        "corpus": cli.model.corpus.name,
        "model": type(cli.model).__name__,
        "parameters": sum(parameter.numel() for parameter in cli.model.parameters()),
        "command": os.environ.get("MFM_COMMAND", ""),
        "versions": {name: version(name) for name in ("mfm-lightning", "torch", "lightning")},
    }


def _console() -> Console:
    return Console(file=sys.stdout)
