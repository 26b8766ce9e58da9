"""`mfm generate`: new samples from exchanged, walked, interpolated or drawn codes."""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mfm.analysis import generation as g
from mfm.analysis.generation_scores import label_said, prior_checks
from mfm.cli.factor_models import factor_module, named, reads_labels
from mfm.cli.generated import CODE, CONTENTS, SAID, Generated, outputs_of, score, write
from mfm.cli.loading import LoadedRun, load_run
from mfm.errors import ConfigurationError, nearest
from mfm.modules import FactorModule

_DESCRIPTION = """\
Generate samples from a trained MFM, in the file's units, as a store that `--data.path` reads like any other file:

  swap         Z_y of one sample (--content) with the Z_ai of another (--style); --count random pairs without names
  traverse     Z_y walked from the lowest to the highest output of the head, the Z_ai of a sample (--style) held
  prior        Z drawn from N(0, I), with a test of whether the codes of the split are distributed like that
  interpolate  all codes, on the line from --content to --style

Then asks who can read the intended label in what was generated: the model's own head after encoding it again, and a
ridge regression that was fitted to real training samples and has never seen the model. The intended label is that of
the content sample for swap, and what the head says of the code for the others; of several targets, --target chooses.

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
    target = _target(run, given)
    path = _output(given, run)
    encoded = _encode(run, module)
    result = _generate(run, module, encoded, given, target)

    def encode_split(split: str) -> g.Encoded:
        return _encode(load_run(given.ckpt_path, overrides, split=split, command="generate"), module)

    score(run, module, encoded, result, encode_split)
    write(path, run, module, encoded, result, given)
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
    add("--target", metavar="NAME", help="which of several targets is scored, and walked; by default all are scored")
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


def _target(run: LoadedRun, given: argparse.Namespace) -> int | None:
    """Which target is asked for.

    Raises:
        ConfigurationError: The corpus has no such target.
    """
    corpus = run.data.corpus_record
    if given.target is None:
        return None
    if given.target not in corpus.targets:
        raise ConfigurationError(
            f"--target: {corpus.title} has no {given.target!r}: {nearest(given.target, corpus.targets)}"
        )
    return corpus.targets.index(given.target)


def _encode(run: LoadedRun, module: FactorModule) -> g.Encoded:
    encoded = g.encode(
        module.model, module.surrogate, module.normalizer, run.data.predict_dataloader(), aligned=run.data.aligned
    )
    if reads_labels(run):
        return encoded
    return replace(encoded, prediction=encoded.prediction[:, :0])  # a head that is as it was initialised says nothing


# -------------------------------------------------------------------------------------------------------- generate
def _generate(
    run: LoadedRun, module: FactorModule, encoded: g.Encoded, given: argparse.Namespace, target: int | None
) -> Generated:
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
    _check_not_empty(recipe)
    sequences = g.realise(module.model, module.normalizer, recipe)
    on_code = g.head_on(module.model, recipe.codes) if encoded.prediction.shape[1] else None
    if given.mode == "swap" and bool(encoded.mask[recipe.content].any()):
        intended, known, meaning = encoded.target[recipe.content], encoded.mask[recipe.content], CONTENTS
    else:
        # without a head nothing is intended, and no label is written
        intended = torch.zeros(len(recipe.ids), 0) if on_code is None else label_said(corpus, on_code)
        known, meaning = torch.ones_like(intended, dtype=torch.bool), SAID
    result = Generated(recipe, sequences, steps, intended, known, meaning, target, walk=walk)
    if on_code is not None:
        result.readings[CODE] = on_code
    if given.mode == "prior":
        result.prior = prior_checks(encoded, seed=given.seed)
    return result


def _check_not_empty(recipe: g.Recipe) -> None:
    empty = (torch.stack(list(recipe.lengths.values())).amax(dim=0) == 0).nonzero().flatten().tolist()
    if empty:
        raise ConfigurationError(
            f"{recipe.ids[empty[0]]} would have no step: its two samples have no modality in common, and no surrogate "
            "infers one; name two others with --content and --style"
        )


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
        raise ConfigurationError(
            f"{named(run)} reads no label, so that there is no direction to walk; use --mode swap, prior or interpolate"
        )
    names = outputs_of(corpus)
    along = given.along or (names[-1] if corpus.task == "multiclass" else given.target or names[0])
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
