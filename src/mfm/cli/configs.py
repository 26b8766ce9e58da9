"""Configurations that ship with the package, and how `--config` finds them."""

from __future__ import annotations

import sys
from pathlib import Path

from mfm.errors import ConfigurationError, nearest

_PACKAGE = Path(__file__).resolve().parents[1]
# in an installed wheel beside the package; in a source checkout at its top
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parents[1] / "configs")


def shipped_configs() -> dict[str, Path]:
    """Name (`mosi.yaml`, `ablations/x.yaml`) -> file of every shipped configuration."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    if folder is None:
        return {}
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> str:
    """Resolve what was given as `--config`: a file of that name, or else a shipped one.

    Args:
        name: A path, or the name of a shipped configuration with or without `.yaml`; text that is itself a
            configuration (it has a line break) is left alone.

    Raises:
        ConfigurationError: Neither exists; the nearest shipped name is given.
    """
    if "\n" in name or Path(name).is_file():
        return name
    shipped = shipped_configs()
    for candidate in (name, f"{name}.yaml"):
        if candidate in shipped:
            return str(shipped[candidate])
    raise ConfigurationError(
        f"--config: no file {name!r} here, and no shipped one of that name: {nearest(name, shipped)}; mfm configs "
        "lists them"
    )


def with_configs_found(arguments: list[str]) -> list[str]:
    """Replace the value of every `--config` / `-c` by the path of the file it means."""
    found = list(arguments)
    for index, argument in enumerate(arguments):
        if argument in ("--config", "-c") and index + 1 < len(arguments):
            found[index + 1] = find_config(arguments[index + 1])
        elif argument.startswith("--config="):
            found[index] = f"--config={find_config(argument.partition('=')[2])}"
    return found


def main(arguments: list[str]) -> int:
    """List the shipped configurations with the first line of each."""
    if arguments:
        sys.stdout.write("usage: mfm configs\n\nList the shipped configurations; `mfm fit --config NAME` finds each.\n")
        return 0 if arguments[0] in ("-h", "--help") else 2
    for name, path in shipped_configs().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        sys.stdout.write(f"{name:24} {first.lstrip('# ')}\n")
    return 0
