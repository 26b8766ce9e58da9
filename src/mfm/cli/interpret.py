"""`mfm interpret`: which factor feeds which modality, where, and what each modality is worth."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfm.analysis.figures import save_figure
from mfm.analysis.interpretation import Interpretation, Options, interpret
from mfm.analysis.interpretation_figures import contribution_figure, flow_figure, ratios_figure
from mfm.analysis.interpretation_report import as_json, in_words, write_table
from mfm.cli.factor_models import factor_module, named, reads_labels
from mfm.cli.loading import LoadedRun, constant_of, load_run, moved
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.files import write_json, write_text
from mfm.models.mfm import Factors, MFMOutput
from mfm.models.variants import SHARED
from mfm.modules import FactorModule

_DESCRIPTION = """\
Say what a trained MFM does with each modality, on a split:

  information ratio   normalised HSIC of the shared factor F_y with the reconstruction X^, over that of the modality's
                      own factor F_a with it, with bootstrap interval, permutation p-values and the level of chance
  gradient flow       ||d x^_t / d F_y||^2 for each modality and step, beside the words where steps are words
  contribution        Shapley share of each modality in the metric, over all subsets of modalities

Writes interpretation.json, interpretation.csv, interpretation.txt (what was found, and what cannot be concluded),
ratios.png, gradient_flow.png and contribution.png.
"""
_EXAMPLES = """\
examples:
  mfm interpret --ckpt_path RUN/checkpoints/best.ckpt
  mfm interpret --ckpt_path best.ckpt --split valid --kernel linear --output linear
  mfm interpret --ckpt_path best.ckpt --samples 2000 --ids 'video$_$3' 'video$_$4'
  mfm interpret --ckpt_path best.ckpt --data.path other.pkl
"""
_DEFAULTS = Options()


def main(arguments: list[str]) -> int:
    """Run `mfm interpret`.

    Args:
        arguments: Those after `mfm interpret`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    os.environ.setdefault("MFM_COMMAND", shlex.join(["mfm", "interpret", *arguments]))
    given, overrides = _parser().parse_known_args(arguments)
    # torch's forward-mode derivatives are still compiled by what torch itself deprecates
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*")
    # of a constant prediction or a bootstrap draw: said by the command itself where it matters
    warnings.filterwarnings("ignore", message=r".*is undefined and NaN was given.*")
    torch.set_flush_denormal(True)
    options = Options(
        kernel=given.kernel,
        bandwidth=given.bandwidth,
        summary=given.summary,
        samples=given.samples,
        resamples=given.resamples,
        permutations=given.permutations,
        confidence=given.confidence,
        flow_samples=given.flow_samples,
        segments=given.segments,
        ids=tuple(given.ids or ()),
        metric=given.metric,
        seed=given.seed,
    )
    device = _device(given.device)
    run = load_run(given.ckpt_path, overrides, split=given.split, command="interpret")
    found = _interpret(run, options, device)
    folder = Path(given.output) if given.output else run.run_dir / _folder(given.split, run.data.missing)
    _write(folder, found, {"split": given.split, "options": asdict(options), **_provenance(run, given.ckpt_path)})
    sys.stdout.write(f"\n{os.path.relpath(folder / 'interpretation.json')}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfm interpret",
        usage="mfm interpret --ckpt_path PATH [options] [--data.* as of mfm test]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add, d = parser.add_argument, _DEFAULTS
    add("--ckpt_path", metavar="PATH", help="checkpoint written by mfm fit")
    add("--split", default="test", help="train, valid, test (default) or all")
    add("--output", metavar="DIR", help="folder for the results; interpretation/ in the run's directory by default")
    add(
        "--samples",
        type=int,
        metavar="N",
        help="most samples for the information ratios, drawn by --seed; all by default",
    )
    add("--kernel", default=d.kernel, help="kernel of HSIC: rbf (default) or linear, which sees correlations only")
    add("--bandwidth", type=float, default=d.bandwidth, help="RBF bandwidth in multiples of the median distance (1)")
    add(
        "--summary",
        default=d.summary,
        help="vector of a reconstruction: mean over real steps, flatten, or auto (default), which flattens where all "
        "samples have the same, few steps",
    )
    add(
        "--resamples",
        type=int,
        default=d.resamples,
        help=f"bootstrap draws ({d.resamples}; at most 200 for the metric)",
    )
    add("--permutations", type=int, default=d.permutations, help=f"permutations behind a p-value ({d.permutations})")
    add("--confidence", type=float, default=d.confidence, help="coverage of the intervals (0.95)")
    add(
        "--flow_samples",
        type=int,
        default=d.flow_samples,
        help=f"samples for the mean gradient flow ({d.flow_samples})",
    )
    add("--segments", type=int, default=d.segments, help=f"samples shown step by step ({d.segments})")
    add("--ids", nargs="+", metavar="ID", help="which samples to show; drawn by --seed by default")
    add("--metric", help="metric to share out; the one that selected the model by default")
    add("--seed", type=int, default=d.seed, help="seed of all draws (0)")
    add("--device", default="cpu", help="where the model runs: cpu (default), cuda, ...")
    return parser


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # torch's words for an unknown name, and for one it is not built for
        first = str(error).partition("\n")[0].rstrip(".")
        raise ConfigurationError(
            f"--device {name!r} cannot be used here ({first}); give cpu, or leave it out"
        ) from error
    return device


def _folder(split: str, missing: list[str]) -> str:
    return "_".join(
        ["interpretation", *([] if split == "test" else [split]), *(["without", *missing] if missing else [])]
    )


def _interpret(run: LoadedRun, options: Options, device: torch.device) -> Interpretation:
    module = factor_module(run, "interpret", generates=True)
    shared = _one_for_all(module, named(run))
    model = module.model
    run.module.to(device)

    def forward(batch: AffectBatch) -> MFMOutput:
        codes = module.infer_codes(moved(batch, device))
        factors = model.factorize(codes)
        own = dict.fromkeys(model.modalities, factors.f[SHARED]) if shared else factors.f
        own = {name: factor.cpu() for name, factor in own.items()}
        prediction = model.predict_from(factors).cpu()
        return MFMOutput(prediction, {}, codes, Factors(factors.f_y.cpu(), own), codes)

    def decode(factors: Factors, steps: Any) -> dict[str, Tensor]:
        own = {SHARED: next(iter(factors.f.values()))} if shared else factors.f
        moved = Factors(factors.f_y.to(device), {name: factor.to(device) for name, factor in own.items()})
        return {name: x.cpu() for name, x in model.decode(moved, steps).items()}

    found = interpret(
        forward,
        decode,
        run.data.predict_dataloader(),
        run.data.corpus_record,
        constant=_constant(run),
        texts=_texts(run),
        options=options,
    )
    note = "The modalities have no factors of their own: F_a is one generative factor that all of them share."
    return replace(found, notes=(note, *found.notes)) if shared else found


def _one_for_all(module: FactorModule, name: str) -> bool:
    """Whether one generative factor serves all modalities.

    Raises:
        ConfigurationError: There are not the two kinds of factors that are compared.
    """
    layout = module.model.layout
    if not layout.joint:
        raise ConfigurationError(f"{name} has no joint factor F_y, which interpret compares with the others")
    if not (layout.own or layout.shared):
        raise ConfigurationError(f"{name} has no generative factor besides F_y, and interpret compares the two")
    return layout.shared


def _constant(run: LoadedRun) -> Tensor | None:
    """The training split's median or most frequent class; of the interpreted split where the file has no other."""
    data = run.data
    if not reads_labels(run):
        return None
    splits = data.corpus_data.splits
    name = "train" if "train" in splits and len(splits["train"]) else data.predict_splits[0]
    # nothing to score where the interpreted split has no labels
    return constant_of(run, name) if constant_of(run, data.predict_splits[0]) is not None else None


def _texts(run: LoadedRun) -> list[str] | None:
    """Transcripts of the samples in the order of the split; None where a split of the file has none."""
    names = run.data.predict_splits
    texts: list[str] = []
    for name in dict.fromkeys(names):
        raw = run.data.corpus_data.splits[name].raw_text
        if raw is None:
            return None
        texts.extend(raw[: names.count(name)])
    return texts


def _write(folder: Path, found: Interpretation, provenance: dict[str, Any]) -> None:
    words = in_words(found)
    figures = {"ratios": ratios_figure(found), "gradient_flow": flow_figure(found)}
    contribution = contribution_figure(found)
    if contribution is not None:
        figures["contribution"] = contribution
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    write_table(folder / "interpretation.csv", found)
    write_text(folder / "interpretation.txt", words)
    write_json(folder / "interpretation.json", {**as_json(found), **provenance})
    sys.stdout.write(words)


def _provenance(run: LoadedRun, checkpoint: str) -> dict[str, Any]:
    return {
        "checkpoint": str(checkpoint),
        "data": run.data.path,
        "data_fingerprint": run.data.fingerprint,
        "missing": "+".join(run.data.missing),
        "corpus": run.data.corpus_name,
        "model": type(run.module).__name__,
        "command": os.environ.get("MFM_COMMAND", ""),
        "versions": {name: version(name) for name in ("mfm-lightning", "torch", "lightning")},
    }
