"""Named parts with typed settings.

An encoder, a fusion or a decoder is chosen in a configuration by its name, or by a mapping of its
name and settings: `encoder: lstm` or `encoder: {name: transformer, layers: 2}`. A part's settings
are the keyword-only parameters of its constructor; what the model itself decides (feature
dimensions, code sizes) are the other parameters and cannot be set by the user. A name with a dot is the
import path of a class that is not registered.
"""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable, Mapping
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from torch import nn

from mfm.errors import ConfigurationError, nearest

Part = TypeVar("Part", bound=nn.Module)
Spec = str | Mapping[str, Any]


class Range(NamedTuple):
    """Bounds of a number: `low` is allowed, `below` is not."""

    low: float
    below: float | None = None

    def __str__(self) -> str:
        return f">= {self.low:g}" + (f" and < {self.below:g}" if self.below is not None else "")


Size = Annotated[int, Range(1)]
"""A width, a count or a number of layers: an integer of at least 1."""

Rate = Annotated[float, Range(0.0, 1.0)]
"""A dropout probability in [0, 1)."""

_KINDS: dict[Any, tuple[type | tuple[type, ...], str]] = {
    bool: (bool, "true or false"),
    int: (int, "an integer"),
    float: ((int, float), "a number"),
    str: (str, "a name"),
    type(None): (type(None), "null"),
}


def describe_type(hint: Any) -> str:
    """Say in words what values a type hint allows.

    >>> describe_type(Size | None)
    'an integer >= 1 or null'
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([describe_type(arguments[0]), *map(str, arguments[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(argument) for argument in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping from names to {describe_type(arguments[1])}"
    return _KINDS[hint][1]


def allows(hint: Any, value: Any) -> bool:
    """Whether a type hint made of the types above allows a value (`True` is no integer, 1 is a number)."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = arguments[1:]
        return allows(arguments[0], value) and all(
            value >= bound.low and (bound.below is None or value < bound.below) for bound in bounds
        )
    if origin in (Union, types.UnionType):
        return any(allows(argument, value) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            allows(arguments[0], key) and allows(arguments[1], item) for key, item in value.items()
        )
    return isinstance(value, _KINDS[hint][0]) and (hint is bool or not isinstance(value, bool))


def _is_checkable(hint: Any) -> bool:
    """Whether a type hint is made of the types above."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_checkable(arguments[0]) and all(isinstance(bound, Range) for bound in arguments[1:])
    if origin in (Union, types.UnionType) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return all(map(_is_checkable, arguments))
    return origin is Literal or (origin is None and hint is not None and hint in _KINDS)


def check_value(option: str, value: Any, hint: Any) -> None:
    """Refuse a value that a type hint does not allow.

    Raises:
        ConfigurationError: The value is of another type or out of range; says what is allowed.
    """
    if not allows(hint, value):
        raise ConfigurationError(f"{option} is {value!r}, but must be {describe_type(hint)}")


class Setting(NamedTuple):
    """One setting of a part: its type hint and its default (`inspect.Parameter.empty` if it must be given)."""

    hint: Any
    default: Any


class Registry(Generic[Part]):
    """Parts of one kind by name.

    Args:
        kind: What the parts are, as in messages: `encoder`, `fusion`, `decoder`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._parts: dict[str, type[Part]] = {}

    def register(self, name: str) -> Callable[[type[Part]], type[Part]]:
        """Class decorator that makes a part known as `name`.

        Raises:
            ConfigurationError: The name is taken by another class.
        """

        def decorate(part: type[Part]) -> type[Part]:
            if name in self._parts:
                raise ConfigurationError(f"{self.kind} {name!r} is registered already; choose another name")
            self._parts[name] = part
            return part

        return decorate

    def names(self) -> list[str]:
        """Names of all parts, sorted."""
        return sorted(self._parts)

    def settings(self, name: str) -> dict[str, Setting]:
        """Settings of the part `name` in the order of its constructor.

        Raises:
            ConfigurationError: Unknown name, or a setting whose values cannot be checked by its type hint.
        """
        constructor = self._get(name).__init__
        hints = get_type_hints(constructor, include_extras=True)
        settings = {
            parameter.name: Setting(hints.get(parameter.name), parameter.default)
            for parameter in inspect.signature(constructor).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        for key, setting in settings.items():
            if not _is_checkable(setting.hint):
                raise ConfigurationError(
                    f"setting {key!r} of {self.kind} {name!r} has no type that values can be checked by: annotate it "
                    "with bool, int, float, str, a Literal, a Mapping of these, or one of these or None"
                )
        return settings

    def build(self, spec: Spec, **context: Any) -> Part:
        """Build a part.

        Args:
            spec: A name, or a mapping with the key `name` and any of the part's settings.
            **context: What the model decides; the constructor's other parameters.

        Returns:
            The part.

        Raises:
            ConfigurationError: Unknown name or setting (the nearest is named), a value of the wrong
                type or out of range.
        """
        if isinstance(spec, str):
            spec = {"name": spec}
        if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
            raise ConfigurationError(
                f"{self.kind} is {spec!r}, but must be a name or a mapping with the key 'name'; "
                f"known: {', '.join(self.names())}"
            )
        name = spec["name"]
        part, settings = self._get(name), self.settings(name)
        given = {key: value for key, value in spec.items() if key != "name"}
        for key, value in given.items():
            if key not in settings:
                raise ConfigurationError(f"{self.kind} {name!r} has no setting {key!r}: {nearest(str(key), settings)}")
            check_value(f"setting {key!r} of {self.kind} {name!r}", value, settings[key].hint)
        return part(**context, **given)

    def describe(self) -> str:
        """All parts with what they are and their settings, one part a paragraph, for the command's help."""
        paragraphs = []
        for name in self.names():
            summary = (inspect.getdoc(self._get(name)) or "").partition("\n")[0]
            lines = [f"{name}: {summary}"]
            for key, setting in self.settings(name).items():
                default = "" if setting.default is inspect.Parameter.empty else f" (default {setting.default})"
                lines.append(f"    {key}: {describe_type(setting.hint)}{default}")
            paragraphs.append("\n".join(lines))
        return "\n".join(paragraphs)

    def _get(self, name: str) -> type[Part]:
        if name not in self._parts and "." in name and all(part.isidentifier() for part in name.split(".")):
            return self._import(name)
        if name not in self._parts:
            raise ConfigurationError(f"unknown {self.kind} {name!r}: {nearest(name, self._parts)}")
        return self._parts[name]

    def _import(self, path: str) -> type[Part]:
        """The class of this import path, which may be registered under a name as well."""
        module, _, attribute = path.rpartition(".")
        try:
            part = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.kind} {path!r} cannot be imported ({error}): is the folder of {module.partition('.')[0]!r} in "
                "PYTHONPATH?"
            ) from error
        if not (isinstance(part, type) and issubclass(part, nn.Module)):
            raise ConfigurationError(f"{self.kind} {path!r} is no torch.nn.Module")
        return cast(type[Part], part)
