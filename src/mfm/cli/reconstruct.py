"""`mfm reconstruct`: a missing modality, generated from the others."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mfm.analysis.completion import Accuracy, RidgeFromObserved, complete, write_completed
from mfm.analysis.figures import save_figure
from mfm.cli.factor_models import factor_module, named, trains_surrogates
from mfm.cli.image_outputs import completed_images
from mfm.cli.loading import LoadedRun, load_run
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, nearest
from mfm.files import write_json
from mfm.models.masking import step_mask
from mfm.models.surrogate import Surrogate
from mfm.modules import FactorModule

_DESCRIPTION = """\
Hide modalities from every sample of a split and generate them from the others, in the file's units and with lengths.
Where the file has them, they are scored as R^2 (standardised scale, 1 is perfect, 0 the mean of the scored samples)
against the training mean and a ridge regression from the observed modalities, whose penalty validation chooses.

Writes OUTPUT (HDF5: ids, features/MODALITY, lengths/MODALITY) and the scores beside it as JSON; where the modalities
are images, also a figure as PNG.
"""
_EXAMPLES = """\
examples:
  mfm reconstruct --ckpt_path RUN/checkpoints/best.ckpt --missing text --output r.h5
  mfm reconstruct --ckpt_path best.ckpt --missing audio vision --split valid --output r.h5
"""
SCORED = ("surrogate", "train_mean", "ridge")


class _Found(NamedTuple):
    ids: list[str]
    values: dict[str, list[Tensor]]
    scores: dict[str, dict[str, Accuracy]]
    penalties: dict[str, float]


def main(arguments: list[str]) -> int:
    """Run `mfm reconstruct`.

    Args:
        arguments: Those after `mfm reconstruct`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    os.environ.setdefault("MFM_COMMAND", shlex.join(["mfm", "reconstruct", *arguments]))
    given, overrides = _parser().parse_known_args(arguments)
    torch.set_flush_denormal(True)
    run = load_run(given.ckpt_path, overrides, split=given.split, command="reconstruct")
    module, surrogate = _with_surrogate(run, given.ckpt_path)
    hidden = _hidden(given.missing, run.data.modalities)
    if given.output is None:
        raise ConfigurationError("reconstruct needs --output: name the HDF5 file to write, e.g. --output r.h5")
    splits = {
        name: load_run(given.ckpt_path, overrides, split=name, command="reconstruct").data.predict_dataloader()
        for name in ("train", "valid")
        if name in run.data.corpus_data.splits
    }
    found = _reconstruct(run, module, surrogate, hidden, splits)
    _write(Path(given.output), run, module, found, given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfm reconstruct",
        usage="mfm reconstruct --ckpt_path PATH --missing NAME [NAME ...] --output FILE [options] [--data.*]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--ckpt_path", metavar="PATH", help="checkpoint written by mfm fit, with a surrogate")
    add("--missing", nargs="+", metavar="NAME", help="modalities to hide and to generate")
    add("--output", metavar="FILE", help="HDF5 file for what is generated")
    add("--split", default="test", help="train, valid, test (default) or all")
    return parser


def _with_surrogate(run: LoadedRun, checkpoint: str) -> tuple[FactorModule, Surrogate]:
    module = factor_module(run, "reconstruct", generates=True)
    if module.surrogate is None and not trains_surrogates(run):
        raise ConfigurationError(
            f"{named(run)} has no surrogate to infer what is hidden; reconstruct takes an MFMModule with one"
        )
    if module.surrogate is None:
        config = run.run_dir / "config.yaml"
        start = shlex.quote(str(config)) if config.is_file() else "CONFIG.yaml"
        raise ConfigurationError(
            f"{checkpoint} has no surrogate to infer with; train one: mfm fit --config {start} "
            f"--model.surrogate posthoc --model.init_from {shlex.quote(checkpoint)}"
        )
    return module, module.surrogate


def _hidden(missing: list[str] | None, modalities: list[str]) -> list[str]:
    if not missing:
        raise ConfigurationError(f"reconstruct needs --missing: some of {', '.join(modalities)}")
    for name in missing:
        if name not in modalities:
            raise ConfigurationError(f"--missing: the model never saw {name!r}: {nearest(name, modalities)}")
    if set(missing) >= set(modalities):
        raise ConfigurationError(f"--missing hides all of {', '.join(modalities)}: nothing is observed to infer from")
    return sorted(set(missing))


def _reconstruct(
    run: LoadedRun, module: FactorModule, surrogate: Surrogate, hidden: list[str], splits: dict[str, Any]
) -> _Found:
    observed = [name for name in run.data.modalities if name not in hidden]
    batches: list[AffectBatch] = list(run.data.predict_dataloader())
    ridges = {}
    for name in hidden:
        if len(splits) == 2 and any(bool(batch.present[name].any()) for batch in batches):
            ridges[name] = RidgeFromObserved(module.normalizer, observed, name, aligned=run.data.aligned)
            ridges[name].fit(splits["train"], splits["valid"])
    values: dict[str, list[Tensor]] = {name: [] for name in hidden}
    scores = {name: {method: Accuracy(run.data.feature_dims[name]) for method in SCORED} for name in hidden}
    for batch in batches:
        for name, one in complete(module.model, surrogate, module.normalizer, batch, hidden).items():
            restored = module.normalizer.inverse({name: one.values})[name]
            values[name] += [x[: int(length)] for x, length in zip(restored, one.lengths, strict=True)]
            mask = step_mask(one.lengths, one.values.shape[1]) & one.known[:, None]
            scores[name]["surrogate"].update(one.values, one.truth, mask)
            scores[name]["train_mean"].update(torch.zeros_like(one.values), one.truth, mask)
            if name in ridges:
                scores[name]["ridge"].update(ridges[name].predict(batch, one.values.shape[1]), one.truth, mask)
    ids = [name for batch in batches for name in batch.ids]
    return _Found(ids, values, scores, {name: ridge.penalty for name, ridge in ridges.items()})


def _write(path: Path, run: LoadedRun, module: FactorModule, found: _Found, given: argparse.Namespace) -> None:
    provenance = {"checkpoint": str(given.ckpt_path), "data_fingerprint": run.data.fingerprint, "split": given.split}
    scores = {
        name: {
            method: {"r2": score.overall(), "r2_per_feature": score.per_feature().tolist(), "steps": score.steps}
            for method, score in methods.items()
            if score.steps
        }
        for name, methods in found.scores.items()
    }
    write_completed(path, found.ids, found.values, provenance)
    beside = path.with_suffix(".json")
    command = {"command": os.environ.get("MFM_COMMAND", ""), "samples": len(found.ids)}
    write_json(beside, {"scores": scores, "ridge_penalties": found.penalties, **provenance, **command})
    out = Console(file=sys.stdout)
    out.print(_table(found))
    out.print(f"{len(found.ids)} samples in {os.path.relpath(path)}", soft_wrap=True, highlight=False)
    figure = completed_images(run, module.model, found.values)
    if figure is not None:
        save_figure(figure, path.with_suffix(".png"))
        out.print(os.path.relpath(path.with_suffix(".png")), soft_wrap=True, highlight=False)
    out.print(os.path.relpath(beside), soft_wrap=True, highlight=False)


def _table(found: _Found) -> Table:
    table = Table(title="R^2 of what was generated", title_justify="left")
    table.add_column("modality")
    for method in SCORED:
        table.add_column(method, justify="right")
    table.add_column("better than both on")
    for name, methods in found.scores.items():
        if not methods["surrogate"].steps:
            table.add_row(name, *("-" for _ in SCORED), "not in the file: nothing to score against")
            continue
        numbers = [methods[method].overall() if methods[method].steps else math.nan for method in SCORED]
        rivals = [methods[method].per_feature() for method in SCORED[1:] if methods[method].steps]
        own = methods["surrogate"].per_feature()
        won = torch.stack([own > rival for rival in rivals]).all(dim=0).sum()
        table.add_row(name, *(f"{number:.4f}" for number in numbers), f"{int(won)} of {len(own)} features")
    return table
