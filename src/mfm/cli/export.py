"""`mfm data export`: a corpus as other people's code reads it."""

from __future__ import annotations

import argparse
from pathlib import Path

from mfm.cli.progress import progress_bar
from mfm.errors import ConfigurationError

DESCRIPTION = """\
Write a store, or any file that mfm reads, as other people's code reads it:

  mmsa   a pickle {split: {raw_text, text, audio, vision, id, annotations, regression_labels, ...}}
  mult   a pickle {split: {text, audio, vision, labels, id}}, pre-padded
  csd    a folder of computational sequences: one .csd a modality, words, labels, and folds.json

Names of modalities and samples stay as they are. What the format cannot hold is listed.
"""
EXAMPLES = """\
examples:
  mfm data export mosi.h5 --format mmsa --output aligned_50.pkl
  mfm data export mosi.h5 --format mult --output mosi_data.pkl --modalities text audio vision
  mfm data export mosi.h5 --format csd --output mosi_csd
  mfm data align --pivot mosi_csd/words.csd --feature text=mosi_csd/text.csd --labels mosi_csd/labels.csd \\
      --folds mosi_csd/folds.json --output again.h5
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `mfm data export`."""
    parser.add_argument("path", metavar="X.h5", help="store, pickle or MFN folder to read")
    parser.add_argument("--format", required=True, choices=("mmsa", "mult", "csd"), help="whose format")
    parser.add_argument("--output", required=True, metavar="Y", help="file to write; for csd a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file or folder of .csd files")
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="only these (default: all that are complete)")
    parser.add_argument("--target", metavar="NAME", help="label array that becomes regression_labels (mmsa) or labels")


def run(options: argparse.Namespace) -> int:
    """Run `mfm data export`.

    Raises:
        MFMError: A mistake of the user's; the caller prints it.
    """
    from mfm.data.export import export_mmsa, export_mult
    from mfm.data.export_csd import export_csd
    from mfm.data.readers import read_corpus

    source, target = Path(options.path), Path(options.output)
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigurationError(f"--output {target} is the file that is read; choose another name")
    if target.exists() and not options.overwrite:
        raise ConfigurationError(f"{target} exists already; choose another name or add --overwrite")
    if options.format == "csd" and options.target is not None:
        raise ConfigurationError("--target is for formats with one label array; csd gets a file for each")
    data = read_corpus(source, options.modalities)
    with progress_bar("exporting") as progress:
        if options.format == "csd":
            notes = export_csd(data, target, overwrite=options.overwrite, progress=progress)
        else:
            export = export_mmsa if options.format == "mmsa" else export_mult
            notes = export(data, target, target=options.target, overwrite=options.overwrite, progress=progress)
    samples = ", ".join(f"{name} {len(split):,}" for name, split in data.splits.items())
    print(f"{target}: {samples} samples as {options.format}")
    for note in notes:
        print(f"note: {note}")
    return 0
