"""`mfm data align`: from computational sequences to an aligned store, with a report of every decision."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mfm.cli.progress import progress_bar
from mfm.data.alignment.placing import (
    AlignmentOptions,
    HowFrames,
    InvalidIntervals,
    Membership,
    Wordless,
    WordOrder,
)
from mfm.data.alignment.sources import Sources
from mfm.errors import ConfigurationError

if TYPE_CHECKING:
    from mfm.data.alignment.corpus import Outcome
    from mfm.data.alignment.report import Tally

_DEFAULTS = AlignmentOptions()
_SHOWN = 100  # characters of a metadata entry

DESCRIPTION = """\
Align computational sequences of the CMU-Multimodal-SDK (.csd) to words, and write a store whose samples are the
labelled segments and whose steps are their words. Every frame, word and segment is counted in the report as used,
or as dropped for one reason. Structure decides, metadata never does: intervals may be unsorted, overlap or be empty,
and videos may be in one file and not in another.
"""
EXAMPLES = """\
examples:
  mfm data align --pivot words.csd --feature text=glove.csd --feature audio=covarep.csd --feature vision=facet.csd \\
      --labels labels.csd --folds mosi.json --output mosi.h5
  mfm data align --pivot words.csd --feature text=glove.csd --labels labels.csd --output mosi.h5 --require-all
  mfm data align --config align-mosi.yaml --folds mosi.json --output mosi.h5
  mfm fit --config mosi.yaml --data.path mosi.h5

a frame belongs to a word when they share more than --min-overlap seconds; where none does, the step is a zero vector
marked as unobserved, and where no step of a segment has one, the modality is absent there. Samples are named
VIDEO$_$K, K counted from 0 in the order of the label file.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mfm data align`."""
    parser.add_argument(
        "--config", metavar="F.yaml", help="these options as YAML, a file or a shipped recipe; flags win"
    )
    _add_files(parser.add_argument_group("what is read and written"))
    _add_splits(parser.add_argument_group("splits"))
    _add_words(parser.add_argument_group("which words belong to a segment"))
    _add_frames(parser.add_argument_group("how frames become steps"))
    _add_running(parser.add_argument_group("running"))


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--pivot", required=True, type=Path, metavar="F.csd", help="timestamped words; a word is a step")
    add(
        "--feature",
        required=True,
        action="append",
        metavar="NAME=F.csd",
        help="modality and its frames; once for each modality",
    )
    add("--labels", required=True, type=Path, metavar="F.csd", help="labelled segments; a segment is a sample")
    add(
        "--label-columns",
        nargs="+",
        action="extend",
        metavar="NAME=COLUMNS",
        help="label arrays of the store and their columns in the file, for example labels=0 emotions=1-6 (default: "
        "labels, with all)",
    )
    add(
        "--shift-rows",
        nargs="+",
        action="extend",
        metavar="NAME=K",
        help="content of row r belongs to the interval of row r + K, by modality or pivot: for published files whose "
        "words are a row late, pivot=-1 and text=-1; the report says where that seems so",
    )
    add(
        "--invalid-intervals",
        choices=get_args(InvalidIntervals),
        default=_DEFAULTS.invalid_intervals,
        help="end before start, or not finite: drop and list (default), or refuse",
    )
    add("--require-all", action="store_true", help="leave out (and list) videos that a feature file lacks")
    add("--output", required=True, type=Path, metavar="X.h5", help="store to write")
    add("--report", type=Path, metavar="R.json", help="report to write (default: X.report.json beside the store)")


def _add_splits(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--folds", type=Path, metavar="F.json", help="videos of train, valid and test; drawn by --seed without it")
    add(
        "--fractions",
        nargs=3,
        type=float,
        default=(0.7, 0.1, 0.2),
        metavar=("TRAIN", "VALID", "TEST"),
        help="shares of videos without --folds (default: 0.7 0.1 0.2)",
    )
    add("--seed", type=int, default=0, help="of the draw without --folds (default: 0)")


def _add_words(group: argparse._ArgumentGroup) -> None:
    add, d = group.add_argument, _DEFAULTS
    add(
        "--membership",
        choices=get_args(Membership),
        default=d.membership,
        help="a word belongs to a segment when its midpoint is in [start, end) (default), when they overlap, or when "
        "it is contained",
    )
    add(
        "--pauses",
        nargs="*",
        default=list(d.pauses),
        metavar="WORD",
        help="words to drop (default: sp); none to keep all",
    )
    add("--word-order", choices=get_args(WordOrder), default=d.word_order, help="of a segment (default: start)")
    add("--max-length", type=int, metavar="N", help="keep the first N words of a segment (default: all)")
    add(
        "--wordless",
        choices=get_args(Wordless),
        default=d.wordless,
        help="segments without words: drop and list (default), keep where they have frames, or refuse",
    )


def _add_frames(group: argparse._ArgumentGroup) -> None:
    add, d = group.add_argument, _DEFAULTS
    add("--min-overlap", type=float, default=d.min_overlap, metavar="S", help="in seconds (default: 1e-5)")
    add(
        "--nearest-within",
        type=float,
        metavar="S",
        help="a word without a frame gets the nearest one, by midpoints, at most S seconds away (default: a zero "
        "vector marked as unobserved)",
    )
    add(
        "--reduce",
        choices=get_args(HowFrames),
        default=d.reduction,
        help="frames of a word to one vector, per dimension over finite values: mean (default), max, last (of the "
        "frame that starts last), weighted (mean by shared seconds); all: kept as they are, word by word",
    )
    add("--unaligned", action="store_true", help="keep each modality's own frames of a segment")
    for option, meaning in (("pool", "frames averaged to one step"), ("max-frames", "steps kept of a segment")):
        metavar = "NAME=N"
        add(f"--{option}", nargs="+", action="extend", metavar=metavar, help=f"unaligned: {meaning}, by modality")


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--workers", type=int, default=1, metavar="N", help="processes; the result is the same (default: 1)")
    add("--resume", action="store_true", help="go on with the videos that a killed run finished")
    add("--overwrite", action="store_true", help="replace existing files, and discard what a stopped run finished")


def run(options: argparse.Namespace) -> int:
    """Run `mfm data align`.

    Args:
        options: Parsed options.

    Returns:
        Exit status.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
    """
    from mfm.data.alignment.corpus import align_corpus

    if options.output.is_dir():
        raise ConfigurationError(f"--output {options.output} is a folder; give the store to write, for example mosi.h5")
    report = options.report or options.output.with_name(f"{options.output.stem}.report.json")
    command = os.environ.get("MFM_COMMAND") or shlex.join(["mfm", *sys.argv[1:]])
    try:
        with progress_bar("aligning videos") as progress:
            outcome = align_corpus(
                _sources(options),
                options.output,
                report,
                _alignment(options),
                overwrite=options.overwrite,
                resume=options.resume,
                workers=options.workers,
                record={"command": command},
                progress=progress,
            )
    except KeyboardInterrupt:
        sys.stderr.write("finished videos are kept: the same command with --resume goes on\n")
        raise
    _print_summary(outcome, options.output, report)
    return 0


def _sources(options: argparse.Namespace) -> Sources:
    return Sources(
        options.pivot,
        _features(options.feature),
        options.labels,
        options.folds,
        options.fractions,
        options.seed,
        _columns(options.label_columns),
    )


def _alignment(options: argparse.Namespace) -> AlignmentOptions:
    return AlignmentOptions(
        reduction=options.reduce,
        membership=options.membership,
        min_overlap=options.min_overlap,
        pauses=tuple(options.pauses),
        max_length=options.max_length,
        invalid_intervals=options.invalid_intervals,
        require_all=options.require_all,
        nearest_within=options.nearest_within,
        word_order=options.word_order,
        wordless=options.wordless,
        unaligned=options.unaligned,
        pool=_numbers("--pool", options.pool),
        max_frames=_numbers("--max-frames", options.max_frames),
        shift_rows=_numbers("--shift-rows", options.shift_rows, negative=True),
    )


def inspect_sequence(path: str, as_json: bool) -> int:
    """Print what a computational sequence holds, for `mfm data inspect`.

    Args:
        path: The file.
        as_json: Print JSON.

    Returns:
        Exit status.
    """
    from mfm.data.alignment.csd import describe

    found = describe(path)
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    pieces = f" in {found['pieces']:,} pieces" if found["pieces"] > found["videos"] else ""
    print(f"{path}: computational sequence {found['root']!r}, {found['videos']:,} videos{pieces}")
    print(f"{found['rows']:,} rows in all; the first video has {found['type']} of shape {tuple(found['shape'])}")
    print("metadata, as the file says and nothing relies on:")
    for key, value in found["metadata"].items():
        print(f"  {key}: {value if len(value) <= _SHOWN else value[:_SHOWN] + '...'}")
    print("make samples of it with: mfm data align")
    return 0


def _features(given: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for item in given:
        name, equals, path = item.partition("=")
        if not (name and equals and path):
            raise ConfigurationError(f"--feature takes NAME=FILE, for example text=glove.csd, got {item!r}")
        if name in found:
            raise ConfigurationError(
                f"--feature {name} is given twice, {found[name]} and {path}; name each modality once"
            )
        found[name] = Path(path)
    return found


def _numbers(option: str, given: Sequence[str] | None, *, negative: bool = False) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in given or ():
        name, _, number = item.partition("=")
        if not name or name in found or not re.fullmatch(r"-?[0-9]+" if negative else r"[0-9]+", number):
            example = "text=-1" if negative else "audio=10"
            raise ConfigurationError(f"{option} takes NAME=N, each name once, for example {example}, got {item!r}")
        found[name] = int(number)
    return found


def _columns(given: Sequence[str] | None) -> dict[str, tuple[int, ...]] | None:
    """`["labels=0", "emotions=1-3,5"]` -> `{"labels": (0,), "emotions": (1, 2, 3, 5)}`."""
    found: dict[str, tuple[int, ...]] = {}
    for item in given or ():
        name, _, columns = item.partition("=")
        ranges = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in columns.split(",")]
        if not name or not all(ranges) or name in found:
            raise ConfigurationError(
                f"--label-columns takes NAME=COLUMNS, each name once, for example labels=0 emotions=1-6, got {item!r}"
            )
        spans = [(int(one[1]), int(one[2] or one[1])) for one in ranges if one]
        found[name] = tuple(column for first, last in spans for column in range(first, last + 1))
        if any(first > last for first, last in spans) or len(set(found[name])) < len(found[name]):
            raise ConfigurationError(f"--label-columns {item}: name each column once, the lower end of a range first")
    return found or None


def _print_summary(outcome: Outcome, store: Path, report: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        console = Console(file=console.file, width=160)
    totals = outcome.totals
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("", "seen", "used", "dropped", "why"):
        table.add_column(heading, justify="left" if heading in ("", "why") else "right")
    rows: list[tuple[str, Tally]] = [("segments", totals.segments), ("words", totals.words)]
    for name, tally in [*rows, *((f"frames of {name}", tally) for name, tally in totals.features.items())]:
        why = ", ".join(f"{reason} {count:,}" for reason, count in tally.dropped.items())
        table.add_row(escape(name), f"{tally.seen:,}", f"{tally.used:,}", f"{tally.seen - tally.used:,}", why)
    console.print(table)
    steps, samples = sum(totals.steps.values()), sum(totals.samples.values())
    for name in totals.features:
        share = totals.observed.get(name, 0) / max(steps, 1)  # frames that are kept need no words
        console.print(
            f"{escape(name)}: {share:.1%} of {steps:,} steps have a frame, absent in "
            f"{totals.absent.get(name, 0):,} of {samples:,} samples",
            highlight=False,
        )
    for note in outcome.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    counts = ", ".join(f"{name} {count}" for name, count in totals.samples.items())
    print(f"{store}: {counts} samples, fingerprint {outcome.fingerprint}")
    print(f"every decision: {report}")
