"""Options of a subcommand out of a YAML file: `--config FILE`, for commands whose options are argparse's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mfm.cli.configs import find_config
from mfm.errors import ConfigurationError, nearest


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would keep the last."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if twice is not None:
        raise ConfigurationError(f"{node.start_mark.name}: {twice!r} is given twice; name each once")
    values = [loader.construct_object(value, deep=True) for _, value in node.value]
    return dict(zip(keys, values, strict=True))


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: str, option: str) -> Any:
    """Read a YAML file in which no key is given twice.

    Args:
        path: The file.
        option: The option that named it, for messages.

    Raises:
        ConfigurationError: It cannot be read, or has a key twice.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            return _UniqueKeys(file).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{option}: {path} is not readable YAML ({str(error).splitlines()[0]})") from error


class OptionFileParser(argparse.ArgumentParser):
    """A parser that reads the files given with `--config`, where it has that option."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; see `argparse.ArgumentParser`."""
        if args is not None and "--config" in self._option_string_actions:
            args = with_option_files(args, self)
        return super().parse_known_args(args, namespace)


def with_option_files(arguments: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Replace every `--config FILE` by the options that the file holds, in front of all others, so that flags win.

    A file is a mapping of option names, with `-` or `_`, to values; `true` is a bare flag, `false` and `null` leave the
    default, a list is several values, and a mapping is one `NAME=VALUE` for each entry. An entry that is given on the
    command line, or in a later file, replaces that of the file.

    Args:
        arguments: Arguments of the subcommand.
        parser: Its parser.

    Raises:
        ConfigurationError: No such file, not such a mapping, a key twice, or an unknown option.
    """
    rest: list[str] = []
    files: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--config":
            files.append(next(words, ""))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    content: dict[str, Any] = {}
    for file in files:
        for name, value in _read(find_config(file), parser).items():
            both = isinstance(value, dict) and isinstance(content.get(name), dict)
            content[name] = {**content[name], **value} if both else value
    given = _given_entries(rest)
    options = [word for name, value in content.items() for word in _spelled(name, value, given)]
    return [*options, *rest]


def _read(path: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    known = {option.lstrip("-") for action in parser._actions for option in action.option_strings} - {
        "help",
        "h",
        "config",
    }
    content = read_yaml(path, "--config")
    if not isinstance(content, dict):
        raise ConfigurationError(f"--config: {path} is no mapping of options to values")
    found = {str(name).replace("_", "-"): value for name, value in content.items()}
    for name in found:
        if name not in known:
            raise ConfigurationError(f"--config: {path} has an unknown option {name!r}: {nearest(name, known)}")
    return found


def _given_entries(rest: Sequence[str]) -> set[tuple[str, str]]:
    """(option, name) of every `--option NAME=VALUE` of the command line."""
    given = set()
    option = ""
    for word in rest:
        if word.startswith("--"):
            option, _, word = word[2:].partition("=")
        name, equals, _ = word.partition("=")
        if equals:
            given.add((option, name))
    return given


def _spelled(option: str, value: Any, given: set[tuple[str, str]]) -> Iterator[str]:
    if value is None or value is False:
        return
    if isinstance(value, Mapping):
        for name, part in value.items():
            if (option, str(name)) not in given:
                yield from (f"--{option}", f"{name}={part}")
    elif isinstance(value, list):
        yield from (f"--{option}", *map(str, value))
    elif value is True:
        yield f"--{option}"
    else:
        yield f"--{option}={value}"
