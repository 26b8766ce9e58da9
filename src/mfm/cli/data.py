"""`mfm data`: look at a file, convert it, align sequences, export, check a store, generate a corpus."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mfm.cli.align import DESCRIPTION as ALIGN
from mfm.cli.align import EXAMPLES as ALIGN_EXAMPLES
from mfm.cli.align import add_options as align_options
from mfm.cli.align import inspect_sequence
from mfm.cli.align import run as align
from mfm.cli.export import DESCRIPTION as EXPORT
from mfm.cli.export import EXAMPLES as EXPORT_EXAMPLES
from mfm.cli.export import add_options as export_options
from mfm.cli.export import run as export
from mfm.cli.option_file import OptionFileParser
from mfm.cli.progress import progress_bar
from mfm.corpora import CORPORA, get_corpus
from mfm.errors import ConfigurationError, DataFormatError

_DESCRIPTION = """\
Look at the files that features of multimodal corpora come in, and turn them into the project's own.

  MMSA pickles       CMU-MOSI, CMU-MOSEI, CH-SIMS (aligned_50.pkl, unaligned_50.pkl, unaligned_39.pkl, ...)
  MulT/MultiBench    the same and IEMOCAP, UR-FUNNY, MUStARD; written by Python 2 or 3
  MFN folders        ICT-MMMO, YouTube, POM, MOUD (audio_train.h5, y_train.h5, ...)
  stores             what `mfm data convert` and `mfm data align` write

Pickles are interpreted, never run: a file that asks for anything but numpy arrays and Python's containers
is refused, and the refusal names what it asked for.
"""
_INSPECT = """\
Say what a file is, which published file it matches, and what is in it: shapes, types, real lengths, padding,
NaN and infinities, all-zero samples, labels, repeated names and names shared between splits.
"""
_INSPECT_EXAMPLES = """\
examples:
  mfm data inspect aligned_50.pkl
  mfm data inspect mmmo/ --modalities audio video
  mfm data inspect mosei.h5 --json | jq .splits.train.labels

columns of the table:
  T, D       steps stored for each sample, and features of a step
  length     real steps of the samples that have the modality: minimum - median - maximum (mean)
  padding    zeros before the real steps (pre), after them (post), or either (mixed)
  absent     samples in which the modality is all zero
  zero steps all-zero steps between real ones; they stay steps
"""
_CONVERT = """\
Write the real steps of every sample to an HDF5 store: ragged, compressed where that saves 15 % or more, with
provenance and fingerprint. Training reads it lazily, so that a corpus larger than the memory can be trained on.
The file appears under its name only when it is complete.
"""
_CONVERT_EXAMPLES = """\
examples:
  mfm data convert aligned_50.pkl --output mosei.h5
  mfm data convert mmmo/ --output mmmo.h5 --modalities audio video --overwrite
  mfm fit --config mosei.yaml --data.path mosei.h5
"""
_VERIFY = """\
Read a store from end to end and compare it with the fingerprint written in it. Exit status 0 when it is
sound, 1 when it is not.
"""
_GENERATE = """\
Write a synthetic corpus with the structure and the defects of a published one (pre-padding, NaN and -inf in
audio, float64, lists): for trying things out, and for tests. Labels can be learned from it.
"""
_GENERATE_EXAMPLES = """\
examples:
  mfm data generate --corpus mosi --output corpus.pkl
  mfm data generate --corpus iemocap --samples 100 20 20 --output iemocap.pkl
  mfm data generate --corpus mosei --samples 16326 1871 4659 --output mosei.pkl      (4 GB)
  mfm data generate --corpus mmmo --output mmmo                                      (a folder)
  mfm data generate --corpus mosi --unlabelled --samples 0 0 50 --output new.pkl
"""


def main(argv: list[str]) -> int:
    """Run `mfm data`.

    Args:
        argv: Arguments after `mfm data`.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
        SystemExit: After `--help` (0) or a wrong option (2).
    """
    options = _parser().parse_args(argv or ["--help"])
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mfm data", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=OptionFileParser)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], says: str, description: str, examples: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=says,
            description=description,
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(command=run)
        return command

    inspect = add("inspect", _inspect, "what a file is, and what is wrong with it", _INSPECT, _INSPECT_EXAMPLES)
    inspect.add_argument("path", metavar="PATH", help="pickle, MFN folder, store or .csd")
    inspect.add_argument("--json", action="store_true", help="print the report as JSON")
    _add_modalities(inspect)
    inspect.add_argument(
        "--sha256", action="store_true", default=None, help="hash the file even if it is larger than 512 MB"
    )

    convert = add("convert", _convert, "to the project's HDF5 store", _CONVERT, _CONVERT_EXAMPLES)
    convert.add_argument("path", metavar="PATH", help="pickle, MFN folder or store")
    convert.add_argument("--output", required=True, metavar="X.h5", help="store to write")
    convert.add_argument("--overwrite", action="store_true", help="replace an existing file")
    _add_modalities(convert)

    export_options(add("export", export, "to the formats of MMSA, MulT and the SDK", EXPORT, EXPORT_EXAMPLES))
    align_options(add("align", align, "computational sequences (.csd) to a store", ALIGN, ALIGN_EXAMPLES))

    verify = add("verify", _verify, "check a store", _VERIFY, "")
    verify.add_argument("path", metavar="X.h5", help="store that `mfm data convert` wrote")
    verify.add_argument("--json", action="store_true", help="print the report as JSON")

    generate = add(
        "generate", _generate, "a synthetic corpus in the structure of a published one", _GENERATE, _GENERATE_EXAMPLES
    )
    generate.add_argument("--output", required=True, metavar="F", help="pickle, or folder of an MFN corpus, to write")
    generate.add_argument("--corpus", default="mosi", metavar="NAME", help=f"{', '.join(CORPORA)} (default: mosi)")
    generate.add_argument(
        "--samples",
        nargs=3,
        type=int,
        default=(300, 100, 100),
        metavar=("TRAIN", "VALID", "TEST"),
        help="samples of each split (default: 300 100 100)",
    )
    generate.add_argument("--steps", type=int, metavar="T", help="steps stored for each sample (default: as published)")
    generate.add_argument(
        "--dims", nargs="+", metavar="NAME=D", help="modalities and their dimensions (default: as published)"
    )
    generate.add_argument("--seed", type=int, default=0, help="other numbers with the same structure (default: 0)")
    generate.add_argument("--unlabelled", action="store_true", help="leave the labels out, as in a new file")
    generate.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def _add_modalities(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="only these (default: all that are complete)")


def _inspect(options: argparse.Namespace) -> int:
    from mfm.data.alignment.csd import is_sequence
    from mfm.data.inspect import inspect_corpus

    if is_sequence(options.path):
        return inspect_sequence(options.path, options.json)
    with progress_bar("reading") as progress:
        report = inspect_corpus(options.path, options.modalities, sha256=options.sha256, progress=progress)
    if options.json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n")
        return 0
    from mfm.cli.data_report import print_report

    print_report(report)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from mfm.data.readers import fingerprint_meanwhile, read_corpus
    from mfm.data.store import store_fingerprint, write_store

    source, target = Path(options.path), Path(options.output)
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigurationError(f"--output {target} is the file that is read; choose another name")
    if target.exists() and not options.overwrite:
        raise ConfigurationError(f"{target} exists already; choose another name or add --overwrite")
    started = time.perf_counter()
    with fingerprint_meanwhile(source) as origin:
        data = read_corpus(source, options.modalities)
        with progress_bar("converting") as progress:
            write_store(data, target, progress=progress, overwrite=options.overwrite, source_fingerprint=origin)
    samples = ", ".join(f"{name} {len(split)}" for name, split in data.splits.items())
    seconds = time.perf_counter() - started
    print(f"{target}: {samples} samples, {_megabytes(target.stat().st_size)}, {seconds:.1f} s")
    print(f"fingerprint {store_fingerprint(target)}")
    for note in data.notes:
        print(f"note: {note}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    import dataclasses

    from mfm.data.store import verify_store

    report = verify_store(options.path)
    if options.json:
        print(json.dumps(dataclasses.asdict(report) | {"ok": report.ok}, indent=2))
        return 0 if report.ok else 1
    if not report.ok:
        raise DataFormatError(f"{report.path} is damaged: {'; '.join(report.problems)}")
    samples = ", ".join(f"{name} {count}" for name, count in report.samples.items())
    print(f"{report.path}: sound; {samples} samples, schema {report.schema_version}, fingerprint {report.computed}")
    for name, count in report.nonfinite.items():
        if count:
            print(f"note: {name} holds {count:,} NaN or infinite values, as its source did")
    return 0


def _generate(options: argparse.Namespace) -> int:
    from mfm.data.synthetic import write_corpus

    get_corpus(options.corpus)  # an unknown name is told before anything is looked at
    target = Path(options.output)
    aside = _out_of_the_way(target, options.overwrite)
    try:
        with progress_bar("generating") as progress:
            write_corpus(
                options.corpus,
                target,
                tuple(options.samples),
                options.seed,
                dims=_dims(options.dims),
                steps=options.steps,
                labelled=not options.unlabelled,
                progress=progress,
            )
    except BaseException:
        if aside is not None and not target.exists():
            aside.rename(target)
        raise
    if aside is not None:
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    size = sum(f.stat().st_size for f in target.iterdir()) if target.is_dir() else target.stat().st_size
    print(f"{target}: {_megabytes(size)}; look at it with: mfm data inspect {target}")
    return 0


def _out_of_the_way(target: Path, overwrite: bool) -> Path | None:
    """Move what will be replaced aside, so that it can come back if writing fails."""
    if not target.exists():
        return None
    if not overwrite:
        raise ConfigurationError(f"{target} exists already; choose another name or add --overwrite")
    if target.is_dir() and any(file.suffix != ".h5" or not file.is_file() for file in target.iterdir()):
        raise ConfigurationError(f"{target} holds more than .h5 files and is not replaced; choose another name")
    return target.rename(target.with_name(f".{target.name}.replaced"))


def _dims(given: Sequence[str] | None) -> dict[str, int] | None:
    if given is None:
        return None
    dims = {}
    for item in given:
        name, equals, number = item.partition("=")
        if not (name and equals and number.isdigit()):
            raise ConfigurationError(f"--dims takes NAME=D, for example text=300, got {item!r}")
        dims[name] = int(number)
    return dims


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
