"""Suites by their names, their configurations, and where their corpora are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mfm.benchmark.suite import CorpusEntry, Source, Suite
from mfm.benchmark.suite_file import expand_path, parse_suite
from mfm.cli.configs import find_config, shipped_configs
from mfm.cli.option_file import read_yaml
from mfm.errors import ConfigurationError, CorpusNotFoundError, nearest


def read_suite(name: str) -> Suite:
    """Read a suite: a file, or a shipped one by its name."""
    if Path(name).is_file():
        path = name
    else:
        shipped = {one.stem: str(one) for key, one in shipped_configs().items() if key.startswith("suites/")}
        if name.removesuffix(".yaml") not in shipped:
            raise ConfigurationError(
                f"SUITE: no file {name!r}, and no shipped suite of that name: {nearest(name, shipped)}"
            )
        path = shipped[name.removesuffix(".yaml")]
    return parse_suite(read_yaml(path, "SUITE"), path)


def opened(name: str) -> Source:
    """Read a configuration: a file, or a shipped one by its name."""
    path = find_config(name)
    read_yaml(path, f"config {name!r}")  # refused before anything runs
    return Source(name, path, Path(path).read_text(encoding="utf-8"))


def corpus_paths(
    suite: Suite,
    labels: Iterable[str],
    data: str | None,
    folder: Path,
    *,
    skip_missing: bool = False,
    dry: bool = False,
) -> dict[str, str]:
    """Corpus -> its file, generated ones being made.

    Args:
        suite: The suite.
        labels: Its corpora that are wanted.
        data: What ${MFM_DATA} means; the environment's by default.
        folder: Folder of the results; generated corpora go to its `data`.
        skip_missing: Leave out corpora whose files are not there.
        dry: Generate nothing.

    Raises:
        CorpusNotFoundError: A file is not there, or none is.
    """
    variables = {**os.environ, **({"MFM_DATA": data} if data else {})}
    paths = {}
    for label in labels:
        entry = suite.corpora[label]
        if entry.path is None:
            paths[label] = str(folder / "data" / f"{label}.h5") if dry else _generated(entry, folder)
            continue
        path = Path(expand_path(entry.path, variables, f"corpora.{label}"))
        if path.exists():
            paths[label] = str(path.resolve())
        elif skip_missing:
            print(f"left out: {label}, for {path} does not exist", flush=True)
        else:
            raise CorpusNotFoundError(
                f"corpora.{label}: {path} does not exist; give --data DIR, or leave it out with --skip-missing"
            )
    if not paths:
        raise CorpusNotFoundError("none of the suite's corpora is there; give --data DIR")
    return paths


def _generated(entry: CorpusEntry, folder: Path) -> str:
    from mfm.benchmark.generated import generate

    return str(Path(generate(entry, folder)).resolve())
