"""`mfm generate`: new samples from exchanged, walked, interpolated or drawn codes."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mfm.analysis import generation as g
from mfm.analysis.figures import save_figure
from mfm.analysis.generation_figure import Shown, generation_figure
from mfm.analysis.generation_scores import (
    PriorCheck,
    agreement,
    constant_agreement,
    label_said,
    prior_checks,
    read_independently,
)
from mfm.cli.factor_models import factor_module, named
from mfm.cli.image_outputs import generated_images
from mfm.cli.loading import LoadedRun, load_run
from mfm.data.arrays import ArraySequences
from mfm.data.records import CorpusData, FloatArray, SplitData
from mfm.data.store import write_store
from mfm.errors import ConfigurationError, nearest
from mfm.files import write_json
from mfm.modules import FactorModule

_DESCRIPTION = """\
Generate samples from a trained MFM, in the file's units, as a store that `--data.path` reads like any other file:

  swap         Z_y of one sample (--content) with the Z_ai of another (--style); --count random pairs without names
  traverse     Z_y walked from the lowest to the highest output of the head, the Z_ai of a sample (--style) held
  prior        Z drawn from N(0, I), with a test of whether the codes of the split are distributed like that
  interpolate  all codes, on the line from --content to --style

Then asks who can read the intended label in what was generated: the model's own head after encoding it again, and a
ridge regression that was fitted to real training samples and has never seen the model. The intended label is that of
the content sample for swap, and what the head says of the code for the others.

Writes OUTPUT (store), and beside it the scores as JSON and a figure as PNG.
"""
_EXAMPLES = """\
examples:
  mfm generate --ckpt_path RUN/checkpoints/best.ckpt --mode swap --content 'video$_$3' --style 'video$_$4'
  mfm generate --ckpt_path best.ckpt --mode swap --count 200 --output swapped.h5
  mfm generate --ckpt_path best.ckpt --mode traverse --steps 9 --output walk.h5
  mfm generate --ckpt_path best.ckpt --mode prior --count 500 --output drawn.h5
"""
MODES = ("swap", "prior", "traverse", "interpolate")
_STEPS = 7
_COUNTS = {"swap": 100, "prior": 100, "traverse": 20, "interpolate": 20}
_NOT_USED = {
    "swap": ("steps", "along"),
    "prior": ("content", "style", "steps", "along"),
    "traverse": ("content",),
    "interpolate": ("along",),
}
_HEAD, _RIDGE, _CODE = "own head", "independent ridge", "head on the code"


@dataclass
class _Result:
    recipe: g.Recipe
    sequences: dict[str, list[FloatArray]]
    intended: Tensor
    known: Tensor
    intended_is: str
    readings: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    prior: list[PriorCheck] = field(default_factory=list)
    walk: dict[str, Any] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Run `mfm generate`.

    Args:
        arguments: Those after `mfm generate`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    os.environ.setdefault("MFM_COMMAND", shlex.join(["mfm", "generate", *arguments]))
    given, overrides = _parser().parse_known_args(arguments)
    _check(given)
    torch.set_flush_denormal(True)
    run = load_run(given.ckpt_path, overrides, split=given.split, command="generate")
    module = factor_module(run, "generate", generates=True)
    _check_factors(module, given.mode, named(run))
    path = _output(given, run)
    encoded = _encode(module, run)
    result = _generate(run, module, encoded, given)
    _score(run, module, encoded, result, given, overrides)
    _write(path, run, module, encoded, result, given)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfm generate",
        usage="mfm generate --ckpt_path PATH --mode MODE [options] [--data.* as of mfm test]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--ckpt_path", metavar="PATH", help="checkpoint written by mfm fit")
    add("--mode", metavar="MODE", help=f"one of {', '.join(MODES)}")
    add("--content", metavar="ID", help="sample whose Z_y is used (swap), or where to start (interpolate)")
    add("--style", metavar="ID", help="sample whose Z_ai and lengths are used, or where to end (interpolate)")
    add("--count", type=int, metavar="N", help="pairs, draws or walks (100; traverse and interpolate 20)")
    add("--steps", type=int, metavar="K", help="positions on each walk or line (7)")
    add("--along", metavar="NAME", help="traverse: target or class whose output to walk along; the first target by "
        "default, or the last class")  # fmt: skip
    add("--split", default="test", help="whose samples: train, valid, test (default) or all")
    add("--output", metavar="FILE", help="store to write, *.h5; generated_MODE.h5 in the run's directory by default")
    add("--seed", type=int, default=0, help="seed of all draws (0)")
    return parser


def _check(given: argparse.Namespace) -> None:
    if given.mode is None:
        raise ConfigurationError(f"generate needs --mode: one of {', '.join(MODES)}")
    if given.mode not in MODES:
        raise ConfigurationError(f"--mode: there is no {given.mode!r}: {nearest(given.mode, MODES)}")
    for name in _NOT_USED[given.mode]:
        if getattr(given, name) is not None:
            raise ConfigurationError(f"--{name} means nothing for --mode {given.mode}; leave it out")
    for name, least in (("count", 1), ("steps", 2)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise ConfigurationError(f"--{name} is {value}; it must be at least {least}")
    if given.seed < 0:
        raise ConfigurationError(f"--seed is {given.seed}; it must be at least 0")
    if given.output is not None and Path(given.output).suffix != ".h5":
        raise ConfigurationError(f"--output {given.output}: a store is written; give it a name that ends in .h5")


def _check_factors(module: FactorModule, mode: str, name: str) -> None:
    layout = module.model.layout
    if mode in ("swap", "traverse") and not layout.joint:
        what = "exchange" if mode == "swap" else "walk"
        raise ConfigurationError(f"{name} has no joint code Z_y to {what}; use --mode prior or interpolate")
    if mode == "swap" and not (layout.own or layout.shared):
        raise ConfigurationError(
            f"{name} has no code besides Z_y to exchange it with; use --mode traverse, prior or interpolate"
        )


def _output(given: argparse.Namespace, run: LoadedRun) -> Path:
    path = Path(given.output) if given.output else run.run_dir / f"generated_{given.mode}.h5"
    if path.resolve() == Path(run.data.path).resolve():
        raise ConfigurationError(f"--output {path} is the data that the samples come from; choose another name")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--output: the folder {path.parent} does not exist; create it first")
    return path


def _encode(module: FactorModule, run: LoadedRun) -> g.Encoded:
    return g.encode(module.model, module.surrogate, module.normalizer, run.data.predict_dataloader())


# -------------------------------------------------------------------------------------------------------- generate
def _generate(run: LoadedRun, module: FactorModule, encoded: g.Encoded, given: argparse.Namespace) -> _Result:
    corpus = run.data.corpus_record
    steps = given.steps or _STEPS
    walk: dict[str, Any] = {}
    if given.mode == "prior":
        recipe = g.draw_prior(encoded, given.count or _COUNTS["prior"], given.seed)
    elif given.mode == "traverse":
        recipe, walk = _traverse(run, encoded, given, steps)
    else:
        pairs = g.choose_pairs(
            encoded, _count(given, encoded), content=given.content, style=given.style, seed=given.seed
        )
        recipe = g.swap(encoded, pairs) if given.mode == "swap" else g.interpolate(encoded, pairs, steps)
    on_code = g.head_on(module.model, recipe.codes)
    sequences = g.realise(module.model, module.normalizer, recipe)
    if given.mode == "swap" and bool(encoded.mask[recipe.content].any()):
        intended, known, meaning = encoded.target[recipe.content], encoded.mask[recipe.content], "the content's label"
    else:
        # without a head nothing is intended, and no label is written
        intended = label_said(corpus, on_code) if on_code.shape[1] else torch.zeros(len(on_code), 0)
        known, meaning = torch.ones_like(intended, dtype=torch.bool), "what the head says of the code"
    result = _Result(recipe, sequences, intended, known, meaning, walk=walk)
    if on_code.shape[1]:
        result.readings[_CODE] = on_code
    if given.mode == "prior":
        result.prior = prior_checks(encoded, seed=given.seed)
    return result


def _count(given: argparse.Namespace, encoded: g.Encoded) -> int:
    """What was asked for, or as many as there are up to the default."""
    if given.count is not None:
        return int(given.count)
    samples = len(encoded.usable)
    if given.mode == "traverse":
        return min(_COUNTS["traverse"], samples)
    named = given.content is not None or given.style is not None
    return max(1, min(_COUNTS[given.mode], samples - 1 if named else samples * (samples - 1)))


def _traverse(
    run: LoadedRun, encoded: g.Encoded, given: argparse.Namespace, steps: int
) -> tuple[g.Recipe, dict[str, Any]]:
    corpus = run.data.corpus_record
    if not encoded.prediction.shape[1]:
        raise ConfigurationError("the model has no head, so there is no direction to walk; use --mode swap or prior")
    names = list(corpus.classes if corpus.task == "multiclass" else corpus.targets)
    along = given.along or (names[-1] if corpus.task == "multiclass" else names[0])
    if along not in names:
        raise ConfigurationError(f"--along: {corpus.title} has no {along!r}: {nearest(along, names)}")
    output = g.head_output(corpus, encoded.prediction, names.index(along))
    walk = g.walk_of(encoded, output)
    if given.style is not None:
        samples = [encoded.index(given.style, "--style")]
    else:
        samples = g.choose_samples(encoded, _count(given, encoded), given.seed)
    said = {"along": along, "lowest": walk.low, "highest": walk.high, "steps": steps}
    return g.traverse(encoded, output, walk, samples, steps), said


# ----------------------------------------------------------------------------------------------------------- score
def _score(
    run: LoadedRun,
    module: FactorModule,
    encoded: g.Encoded,
    result: _Result,
    given: argparse.Namespace,
    overrides: list[str],
) -> None:
    if not result.intended.shape[-1] and result.intended.ndim == 2:
        return
    corpus, splits = run.data.corpus_record, run.data.corpus_data.splits

    def loaded(split: str) -> g.Encoded:
        return _encode(module, load_run(given.ckpt_path, overrides, split=split, command="generate"))

    batches = g.as_batches(result.recipe.ids, result.sequences)
    again = g.encode(module.model, module.surrogate, module.normalizer, batches)
    real = {_HEAD: encoded.prediction}
    result.readings[_HEAD] = again.prediction
    real_from = encoded
    if given.split in ("train", "all"):  # what the regressor was fitted to is no test of it
        other = next((name for name in ("test", "valid") if name in splits and len(splits[name])), None)
        real_from = encoded if other is None else loaded(other)
        real[_HEAD] = real_from.prediction
    if "train" in splits and len(splits["train"]):
        train = loaded("train")
        read = read_independently(corpus, train, np.concatenate([again.pooled, real_from.pooled]))
        if read is not None:
            result.readings[_RIDGE], real[_RIDGE] = read[: len(again.ids)], read[len(again.ids) :]
    style = result.recipe.style
    for name, readings in result.readings.items():
        found = {"generated": agreement(corpus, readings, result.intended, result.known)}
        if given.mode == "swap" and bool(encoded.mask[style].any()):
            found["style_label"] = agreement(corpus, readings, encoded.target[style], encoded.mask[style])
        if name in real and bool(real_from.mask.any()):
            found["real"] = agreement(corpus, real[name], real_from.target, real_from.mask)
        result.scores[name] = found
    result.scores["constant"] = {"generated": constant_agreement(corpus, result.intended, result.known)}
    if bool(real_from.mask.any()):
        result.scores["constant"]["real"] = constant_agreement(corpus, real_from.target, real_from.mask)
    if given.mode == "traverse":
        _mean_walk(run, result)


def _mean_walk(run: LoadedRun, result: _Result) -> None:
    """What each reader says at each position, mean over walks."""
    corpus, steps = run.data.corpus_record, result.walk["steps"]
    names = list(corpus.classes if corpus.task == "multiclass" else corpus.targets)
    along = names.index(result.walk["along"])
    result.walk["read"] = {
        name: g.head_output(corpus, read, along).reshape(-1, steps).mean(dim=0).tolist()
        for name, read in result.readings.items()
    }


# ----------------------------------------------------------------------------------------------------------- write
def _write(
    path: Path, run: LoadedRun, module: FactorModule, encoded: g.Encoded, result: _Result, given: argparse.Namespace
) -> None:
    images = (result.recipe, result.sequences, given.mode, given.steps or _STEPS)
    figure = generated_images(run, module, encoded, *images) or generation_figure(
        run.data.corpus_record,
        {name: read for name, read in result.readings.items() if name in (_HEAD, _RIDGE)},
        result.intended,
        result.known,
        {name: found["generated"] for name, found in result.scores.items()},
        _shown(run, module, result, given),
        f"mfm generate --mode {given.mode}: {len(result.recipe.ids)} samples",
    )
    write_store(_as_corpus(run, result, given), path, overwrite=True, source_fingerprint=run.data.fingerprint)
    save_figure(figure, path.with_suffix(".png"))
    write_json(
        path.with_suffix(".json"),
        {
            "mode": given.mode,
            "samples": len(result.recipe.ids),
            "intended": result.intended_is,
            "scores": result.scores,
            **({"prior": [check._asdict() for check in result.prior]} if result.prior else {}),
            **({"walk": result.walk} if result.walk else {}),
            "split": given.split,
            "seed": given.seed,
            "checkpoint": str(given.ckpt_path),
            "data": run.data.path,
            "data_fingerprint": run.data.fingerprint,
            "command": os.environ.get("MFM_COMMAND", ""),
        },
    )
    out = Console(file=sys.stdout)
    if result.scores:
        out.print(_table(result))
    for check in result.prior:
        out.print(_in_words(check), soft_wrap=True, highlight=False)
    for suffix in (".h5", ".png", ".json"):
        out.print(os.path.relpath(path.with_suffix(suffix)), soft_wrap=True, highlight=False)


def _as_corpus(run: LoadedRun, result: _Result, given: argparse.Namespace) -> CorpusData:
    labels = {}
    if result.intended.shape[-1] or result.intended.ndim == 1:
        values = result.intended.double().masked_fill(~result.known, torch.nan).numpy()
        source = next(iter(run.data.corpus_data.splits.values())).labels
        keys = run.data.corpus_record.label_keys
        name = run.data.target or next((key for key in keys if key in source), keys[0])
        labels[name] = values.reshape(len(values), -1)
    dims = run.data.feature_dims
    split = SplitData(
        ids=tuple(result.recipe.ids),
        sequences={name: ArraySequences(x, dim=dims[name]) for name, x in result.sequences.items()},
        labels=labels,
    )
    note = f"generated by mfm generate --mode {given.mode}; labels are {result.intended_is}"
    return CorpusData(run.data.path, "generated", {"test": split}, run.data.aligned, (note,))


def _shown(run: LoadedRun, module: FactorModule, result: _Result, given: argparse.Namespace) -> list[Shown]:
    """Three samples for the figure: content, style and what came of them; or three that were generated."""

    def standardised(features: Mapping[str, Tensor]) -> dict[str, FloatArray]:
        lengths = {name: torch.tensor([x.shape[0]]) for name, x in features.items()}
        scaled = module.normalizer({name: x[None] for name, x in features.items()}, lengths)
        return {name: x[0].numpy() for name, x in scaled.items()}

    def generated(place: int, title: str) -> Shown:
        parts = {name: torch.from_numpy(x[place]) for name, x in result.sequences.items()}
        return Shown(title, standardised(parts))

    recipe, count = result.recipe, len(result.recipe.ids)
    if given.mode != "swap":
        span = min(count, given.steps or _STEPS) if given.mode != "prior" else min(3, count)
        places = sorted({0, span // 2, span - 1})
        word = "draw" if given.mode == "prior" else "step"
        return [generated(place, f"{word} {place}") for place in places]
    wanted = {int(recipe.content[0]): "content", int(recipe.style[0]): "style"}
    shown, start = {}, 0
    for batch in run.data.predict_dataloader():
        for place in [one for one in wanted if start <= one < start + len(batch.ids)]:
            row = place - start
            parts = {
                name: x[row, : int(batch.lengths[name][row]) if batch.present[name][row] else 0]
                for name, x in batch.features.items()
            }
            shown[wanted[place]] = Shown(f"{wanted[place]} (real)", standardised(parts))
        start += len(batch.ids)
    return [shown["content"], shown["style"], generated(0, "generated from both")]


def _table(result: _Result) -> Table:
    metrics = list(next(iter(result.scores.values()))["generated"])
    table = Table(title=f"Intended label ({result.intended_is}) read by", title_justify="left")
    table.add_column("reader")
    columns = {"generated": "generated", "style_label": "style's label", "real": "real"}
    used = [key for key in columns if any(key in found for found in result.scores.values())]
    for key in used:
        for metric in metrics:
            table.add_column(f"{columns[key]}\n{metric}", justify="right")
    for name, found in result.scores.items():
        numbers = [found.get(key, {}).get(metric, math.nan) for key in used for metric in metrics]
        table.add_row(name, *("-" if math.isnan(number) else f"{number:.3f}" for number in numbers))
    return table


def _in_words(check: PriorCheck) -> str:
    said = f"codes {check.block}, {check.samples} samples: "
    if math.isnan(check.p):
        return said + "too few to compare with the prior"
    verdict = "not told apart from N(0, I)" if check.p > 0.05 else "not N(0, I): the prior draws other codes than these"
    numbers = f"MMD^2 {check.mmd:.4f}, p {check.p:.3f}, mean {check.mean:.2f}, deviation {check.deviation:.2f}"
    return f"{said}{numbers}; {verdict}"
