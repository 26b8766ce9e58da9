"""The `mfm` command: a thin dispatcher that imports only what the chosen subcommand needs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mfm import __version__
from mfm.errors import MFMError, nearest

_USAGE = """\
usage: mfm COMMAND [options]        (mfm COMMAND --help teaches each)

The Multimodal Factorization Model for sentiment and emotion in video.

Train and evaluate
  fit        train a model:            mfm fit --config mosei.yaml --data.path aligned_50.pkl
             go on after a kill:       mfm fit --ckpt_path RUN/checkpoints/last.ckpt
  validate   score the validation split
  test       score the test split:     mfm test --ckpt_path RUN/checkpoints/best.ckpt
  predict    predictions and factors:  mfm predict --ckpt_path RUN/checkpoints/best.ckpt --output p.csv --factors f.h5

Compare
  benchmark  corpora x models x seeds: mfm benchmark run mosi-context --data DATA --output DIR
  tune       search for options:       mfm tune --config mosi.yaml --data.path X.pkl --space mfm --output DIR

Understand
  interpret    which factor feeds which modality, where, and what each modality is worth
  robustness   what missing modalities, lost steps and noise cost
  reconstruct  a missing modality from the others, in the file's units
  generate     new samples from exchanged, walked, interpolated or drawn codes, and who reads the label in them

Data
  data inspect   what a file is, and what is wrong with it
  data convert   to the project's HDF5 store
  data align     computational sequences (.csd) to a store of words
  data export    a store as MMSA, MulT or the CMU-Multimodal-SDK read it
  data verify    check a store
  data generate  a synthetic corpus in the structure of a published one

More
  demo       all of the above on a synthetic corpus, in minutes
  configs    list the shipped configurations
  parts      list encoders, fusions, decoders and networks with their settings

options: --help, --version
"""


def _training(arguments: list[str]) -> int:
    from mfm.cli.training import main as run

    return run(arguments)


def _data(arguments: list[str]) -> int:
    from mfm.cli.data import main as run

    return run(arguments[1:])


def _demo(arguments: list[str]) -> int:
    from mfm.cli.demo import main as run

    return run(arguments[1:])


def _reconstruct(arguments: list[str]) -> int:
    from mfm.cli.reconstruct import main as run

    return run(arguments[1:])


def _generate(arguments: list[str]) -> int:
    from mfm.cli.generate import main as run

    return run(arguments[1:])


def _robustness(arguments: list[str]) -> int:
    from mfm.cli.robustness import main as run

    return run(arguments[1:])


def _interpret(arguments: list[str]) -> int:
    from mfm.cli.interpret import main as run

    return run(arguments[1:])


def _benchmark(arguments: list[str]) -> int:
    from mfm.cli.benchmark import main as run

    return run(arguments[1:])


def _tune(arguments: list[str]) -> int:
    from mfm.cli.tune import main as run

    return run(arguments[1:])


def _configs(arguments: list[str]) -> int:
    from mfm.cli.configs import main as run

    return run(arguments[1:])


def _parts(arguments: list[str]) -> int:
    from mfm.cli.parts import main as run

    return run(arguments[1:])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    **dict.fromkeys(("fit", "validate", "test", "predict"), _training),
    "data": _data,
    "interpret": _interpret,
    "robustness": _robustness,
    "reconstruct": _reconstruct,
    "generate": _generate,
    "benchmark": _benchmark,
    "demo": _demo,
    "tune": _tune,
    "configs": _configs,
    "parts": _parts,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        Exit status: 0, 1 (bad data or a failed write), 2 (bad option), 130 (interrupted).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_USAGE)
        return 0
    if arguments[0] in ("-V", "--version"):
        sys.stdout.write(f"mfm {__version__}\n")
        return 0
    command = COMMANDS.get(arguments[0])
    if command is None:
        sys.stderr.write(f"mfm: unknown command {arguments[0]!r}: {nearest(arguments[0], COMMANDS)}\n")
        return 2
    try:
        return command(arguments)
    except MFMError as error:
        sys.stderr.write(f"mfm {arguments[0]}: {error}\n")
        return error.exit_status
    except KeyboardInterrupt:
        sys.stderr.write(f"mfm {arguments[0]}: interrupted\n")
        return 130
    except BrokenPipeError:  # `mfm ... | head`
        sys.stderr.close()
        return 141
