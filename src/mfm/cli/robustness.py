"""`mfm robustness`: what missing and damaged input costs a trained model."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mfm.analysis.figures import save_figure
from mfm.analysis.robustness import (
    PROTOCOLS,
    Method,
    Predict,
    RobustnessStudy,
    Row,
    Summary,
    areas,
    summarise,
    write_rows,
)
from mfm.analysis.robustness_figure import robustness_figure
from mfm.cli.comparison import load_compared
from mfm.cli.factor_models import reads_labels
from mfm.cli.loading import LoadedRun, constant_of, load_run, moved
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, nearest
from mfm.files import write_json
from mfm.metrics.conventions import Definition, definitions_for
from mfm.models.subsets import Subset, parse_subset, subset_name
from mfm.modules import AffectModule, FactorModule

METHODS = {
    "own": "the model as it is: with its surrogate where it has one",
    "surrogate": "the same, refused for a model without surrogate",
    "zero_fill": "zeros in the file's units in place of what is missing, called observed (the paper's comparison)",
    "mean_fill": "the training mean in place of what is missing, called observed",
    "absent": "what is missing is masked, and the surrogate left out",
}
_DESCRIPTION = """\
Score a split while modalities are missing or damaged: every subset of modalities (subsets), modalities absent at
random (random), a span of steps lost (spans), single steps lost (steps), noise added (noise). Where no modality is
absent, methods that would do the same are scored once.

Writes robustness.csv (a row an evaluation), robustness.json (curves with intervals over draws, areas under them) and
robustness.png.

--compare overlays the own inference of other checkpoints, of any model trained on the same data, under a name of your
choice. All methods see the same damaged batches; options of the data are those of --ckpt_path.
"""
_EXAMPLES = """\
examples:
  mfm robustness --ckpt_path RUN/checkpoints/best.ckpt
  mfm robustness --ckpt_path best.ckpt --protocols subsets random --draws 20 --output robust
  mfm robustness --ckpt_path best.ckpt --protocols subsets --subsets text audio+vision --methods own zero_fill
  mfm robustness --ckpt_path best.ckpt --data.path other.pkl
  mfm robustness --ckpt_path best.ckpt --compare posthoc=A/best.ckpt --compare discriminative=B/best.ckpt
"""


def main(arguments: list[str]) -> int:
    """Run `mfm robustness`.

    Args:
        arguments: Those after `mfm robustness`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    os.environ.setdefault("MFM_COMMAND", shlex.join(["mfm", "robustness", *arguments]))
    given, overrides = _parser().parse_known_args(arguments)
    torch.set_flush_denormal(True)
    for kind, names, known in (("protocol", given.protocols, PROTOCOLS), ("method", given.methods or (), METHODS)):
        for name in names:
            if name not in known:
                raise ConfigurationError(f"unknown {kind} {name!r}: {nearest(name, known)}")
    run = load_run(given.ckpt_path, overrides, split=given.split, command="robustness")
    definitions = _definitions(run)
    metric = given.metric or run.data.corpus_record.monitor.partition("/")[2]
    if metric not in definitions:
        raise ConfigurationError(f"--metric: unknown metric {metric!r}: {nearest(metric, definitions)}")
    taken = [*METHODS, "constant"]
    compared = load_compared(run, given.compare, overrides, split=given.split, taken=taken, command="robustness")
    study = _study(run, compared, given, definitions)
    subsets = [parse_subset(name, run.data.modalities) for name in given.subsets] if given.subsets else None
    rows = study.run(given.protocols, subsets=subsets, draws=given.draws, seed=given.seed, progress=_say)
    folder = Path(given.output) if given.output else run.run_dir / _folder(given.split, run.data.missing)
    _write(folder, run, rows, metric, given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfm robustness",
        usage="mfm robustness --ckpt_path PATH [options] [--data.* as of mfm test]",
        description=_DESCRIPTION,
        epilog="methods:\n" + "".join(f"  {name:12}{text}\n" for name, text in METHODS.items()) + "\n" + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--ckpt_path", metavar="PATH", help="checkpoint written by mfm fit")
    add("--split", default="test", help="train, valid, test (default) or all")
    add("--output", metavar="DIR", help="folder for the results; robustness/ in the run's directory by default")
    add(
        "--protocols", nargs="+", default=list(PROTOCOLS), metavar="NAME", help=f"{' '.join(PROTOCOLS)}; all by default"
    )
    add(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="see below; by default own zero_fill mean_fill, and absent where there is a surrogate",
    )
    add(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another checkpoint as a method of that name; may be repeated",
    )
    add("--subsets", nargs="+", metavar="A+B", help="subsets for the protocol subsets; all by default")
    add("--draws", type=int, default=5, metavar="N", help="draws of everything random (5)")
    add("--metric", help="metric of table and figure; the one that selected the model by default")
    add("--seed", type=int, default=0, help="seed of all draws (0)")
    add("--device", default="cpu", help="where the model runs: cpu (default), cuda, ...")
    return parser


def _definitions(run: LoadedRun) -> dict[str, Definition]:
    if not reads_labels(run):
        raise ConfigurationError("the model was trained without labels: there is no metric that could fall")
    return definitions_for(run.data.corpus_record)


def _study(
    run: LoadedRun,
    compared: dict[str, AffectModule],
    given: argparse.Namespace,
    definitions: dict[str, Definition],
) -> RobustnessStudy:
    try:
        device = torch.device(given.device)
        for module in (run.module, *compared.values()):
            module.to(device)
    except (RuntimeError, AssertionError) as error:  # torch's words for a device that is none, or not there
        raise ConfigurationError(f"--device {given.device}: {str(error).splitlines()[0]}") from error
    batches = [moved(batch, device) for batch in run.data.predict_dataloader()]
    std = _deviations(run, batches)
    methods = {**_methods(run, given), **{name: Method(_own(one), model=name) for name, one in compared.items()}}
    return RobustnessStudy(batches, methods, definitions, std, constant_of(run, "train"))


def _own(module: AffectModule) -> Predict:
    """A module's own inference from whatever is there."""
    label: Predict | None = getattr(module, "predict_label", None)
    return label or (lambda batch: module.predict_step(batch, 0).prediction)


def _methods(run: LoadedRun, given: argparse.Namespace) -> dict[str, Method]:
    module, own = run.module, _own(run.module)
    has_surrogate = getattr(module, "surrogate", None) is not None

    def alone(batch: AffectBatch) -> Tensor:
        return module.predict_label(batch, surrogate=False) if isinstance(module, FactorModule) else own(batch)

    known = {
        "own": Method(own),
        "surrogate": Method(own),
        "zero_fill": Method(alone, fill=0.0, lost=0.0),
        "mean_fill": Method(alone, fill=math.nan),
        "absent": Method(alone),
    }
    names = given.methods or ["own", "zero_fill", "mean_fill", *(["absent"] if has_surrogate else [])]
    if "surrogate" in names and not has_surrogate:
        config = run.run_dir / "config.yaml"
        start = shlex.quote(str(config)) if config.is_file() else "CONFIG.yaml"
        raise ConfigurationError(
            f"{given.ckpt_path} has no surrogate to infer with; train one: mfm fit --config {start} "
            f"--model.surrogate posthoc --model.init_from {shlex.quote(given.ckpt_path)}"
        )
    return {name: known[name] for name in dict.fromkeys(names)}


def _deviations(run: LoadedRun, batches: list[AffectBatch]) -> dict[str, Tensor]:
    """Of the training split, as the checkpoint has them; of the data at hand for a model without normalisation."""
    if run.data.normalize != "none":
        return {name: own.std for name, own in run.module.normalizer.statistics.items()}
    found = {}
    for name in batches[0].features:
        steps = [
            batch.features[name][row, : int(batch.lengths[name][row])]
            for batch in batches
            for row in range(len(batch.ids))
        ]
        values = torch.cat(steps).double()
        values = torch.where(values.isfinite(), values, torch.nan)
        found[name] = (values - values.nanmean(0)).square().nanmean(0).sqrt().nan_to_num().float()
    return found


def _folder(split: str, missing: list[str]) -> str:
    return "_".join(["robustness", *([] if split == "test" else [split]), *(["without", *missing] if missing else [])])


def _say(protocol: str) -> None:
    sys.stderr.write(f"{protocol} ...\n")


def _write(folder: Path, run: LoadedRun, rows: list[Row], metric: str, given: argparse.Namespace) -> None:
    corpus = run.data.corpus_record
    under = areas(rows)
    figure = robustness_figure(rows, metric, f"{corpus.title}, {given.split} split: {metric} with damaged input")
    save_figure(figure, folder / "robustness.png")
    write_rows(folder / "robustness.csv", rows)
    content: dict[str, Any] = {
        "metric": metric,
        "curves": [_plain(curve) for curve in summarise(rows)],
        "areas": [_plain(area) for area in under],
        "split": given.split,
        "draws": given.draws,
        "seed": given.seed,
        "definitions": {name: one.text for name, one in definitions_for(corpus).items()},
        "methods": {**METHODS, **{name: f"own inference of {path}" for name, path in _compared(given).items()}},
        "checkpoint": str(given.ckpt_path),
        "data": run.data.path,
        "data_fingerprint": run.data.fingerprint,
        "missing": "+".join(run.data.missing),
        "corpus": corpus.name,
        "command": os.environ.get("MFM_COMMAND", ""),
        "versions": {name: version(name) for name in ("mfm-lightning", "torch", "lightning")},
    }
    write_json(folder / "robustness.json", content)
    out = Console(file=sys.stdout)
    if any(row.protocol == "subsets" for row in rows):
        out.print(_subset_table(rows, metric))
    if any(area["protocol"] != "subsets" for area in under):
        out.print(_area_table(under, metric, given.draws))
    out.print(os.path.relpath(folder / "robustness.json"), soft_wrap=True, highlight=False)


def _compared(given: argparse.Namespace) -> dict[str, str]:
    return {name: path for name, _, path in (item.partition("=") for item in given.compare)}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "metrics": {name: asdict(value) for name, value in entry["metrics"].items()}}


def _subset_table(rows: list[Row], metric: str) -> Table:
    own = [row for row in rows if row.protocol == "subsets"]
    methods = list(dict.fromkeys(row.method for row in own if row.method != "constant"))
    table = Table(title=f"{metric} by the modalities observed", title_justify="left")
    table.add_column("observed", overflow="fold")
    for method in methods:
        table.add_column(method, justify="right", overflow="fold")
    found: dict[Subset, dict[str, float]] = {}
    for row in own:
        found.setdefault(row.observed, {})[row.method] = row.metrics[metric]
    for subset, values in found.items():
        if subset:
            table.add_row(subset_name(subset), *(f"{values[method]:.4f}" for method in methods))
    if () in found:
        table.add_section()
        table.add_row(f"none: a constant, {found[()]['constant']:.4f}")
    return table


def _area_table(under: list[dict[str, Any]], metric: str, draws: int) -> Table:
    table = Table(title=f"mean {metric} over levels, with the central 95% of {draws} draws", title_justify="left")
    for column in ("protocol", "untouched", "method"):
        table.add_column(column)
    for column in ("mean", "low", "high"):
        table.add_column(column, justify="right")
    for area in under:
        if area["protocol"] != "subsets":
            value: Summary = area["metrics"][metric]
            numbers = (f"{one:.4f}" for one in (value.mean, value.low, value.high))
            table.add_row(area["protocol"], subset_name(area["observed"]) or "none", area["method"], *numbers)
    return table
