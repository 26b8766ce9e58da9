"""Search spaces: which options are tuned, and between which values.

A space is a YAML mapping from option paths, as on the command line, to one range each:

    model.lr: {log_uniform: [1.0e-4, 3.0e-3]}        # also uniform, int, log_int: [lowest, highest], both included
    model.network.hidden: {choice: [32, 64, 128]}    # the configuration's own value is one of them, too
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mfm.errors import ConfigurationError, nearest
from mfm.models.decoders import DECODERS
from mfm.models.encoders import ENCODERS
from mfm.models.fusion import FUSIONS
from mfm.models.networks import NETWORKS
from mfm.models.per_modality import DEFAULT
from mfm.models.registry import Registry

if TYPE_CHECKING:
    from optuna import Trial

RANGES = ("uniform", "log_uniform", "int", "log_int")
KINDS = (*RANGES, "choice")
GROUPS = ("model", "data", "trainer", "early_stopping")
_PARTS: dict[str, Registry[Any]] = {
    "network": NETWORKS,
    "encoder": ENCODERS,
    "surrogate_encoder": ENCODERS,
    "fusion": FUSIONS,
    "decoder": DECODERS,
}
_FREE = ("optimizer", "schedule")  # mappings whose settings torch names
# these say what is scored, and on what: the best of them would be the easiest task, not the best model
_FIXED = frozenset(
    [f"data.{name}" for name in (
        "path", "corpus", "missing", "limit", "labels", "target", "duplicate_ids", "predict_split", "seed",
    )]
    + [f"trainer.{name}" for name in ("limit_val_batches", "overfit_batches", "fast_dev_run")]
)  # fmt: skip
_EXPONENT = re.compile(r"[+-]?\d+\.?\d*[eE][+-]?\d+")  # a number that YAML 1.1 takes for text: 1e-4
_ABSENT: Any = object()


@dataclass(frozen=True)
class Dimension:
    """One tuned option.

    Attributes:
        option: Its path, e.g. `model.network.hidden`.
        kind: One of `KINDS`.
        values: Lowest and highest value of a range, or the choices.
    """

    option: str
    kind: str
    values: tuple[Any, ...]

    @property
    def encoded(self) -> tuple[Any, ...]:
        """The choices as Optuna can store them: mappings and lists as JSON."""
        return tuple(_encode(value) for value in self.values)

    def contains(self, value: Any) -> bool:
        """Whether a value is in the range or among the choices."""
        if self.kind == "choice":
            return _encode(value) in self.encoded
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        whole = "int" not in self.kind or isinstance(value, int)
        return number and whole and bool(self.values[0] <= value <= self.values[1])

    def suggest(self, trial: Trial) -> Any:
        """Let a trial choose."""
        if self.kind == "choice":
            return self.decode(trial.suggest_categorical(self.option, self.encoded))
        low, high = self.values
        if "int" in self.kind:
            return trial.suggest_int(self.option, low, high, log=self.kind.startswith("log"))
        return trial.suggest_float(self.option, low, high, log=self.kind.startswith("log"))

    def decode(self, value: Any) -> Any:
        """The option's value for what Optuna stored."""
        return dict(zip(self.encoded, self.values, strict=True))[value] if self.kind == "choice" else value

    def __str__(self) -> str:
        return f"{self.kind} [{', '.join(map(str, self.encoded))}]"


@dataclass(frozen=True)
class SearchSpace:
    """Options and their ranges; see `parse_space`."""

    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Option -> value for a trial."""
        return {dimension.option: dimension.suggest(trial) for dimension in self.dimensions}

    def decode(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Option -> value for a finished trial's parameters."""
        return {d.option: d.decode(parameters[d.option]) for d in self.dimensions if d.option in parameters}

    def check(self, config: Mapping[str, Any], modalities: Sequence[str]) -> None:
        """Refuse options that the configuration does not have.

        Args:
            config: A whole configuration, defaults included.
            modalities: Modalities of the data.

        Raises:
            ConfigurationError: The first such option, with the nearest one.
        """
        for dimension in self.dimensions:
            _check_option(dimension.option, config, modalities)

    def with_own_values(self, config: Mapping[str, Any]) -> SearchSpace:
        """The space with the configuration's own value among every option's choices."""

        def extended(dimension: Dimension) -> Dimension:
            own = current_value(config, dimension.option)
            if dimension.kind != "choice" or own is _ABSENT or dimension.contains(own):
                return dimension
            return replace(dimension, values=(*dimension.values, own))

        return SearchSpace(tuple(extended(dimension) for dimension in self.dimensions))

    def own_parameters(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The configuration as it stands, as a trial's parameters.

        Returns:
            Option -> stored value where that is in the space, and the options where it is not.
        """
        inside, outside = {}, []
        for dimension in self.dimensions:
            own = current_value(config, dimension.option)
            if own is not _ABSENT and dimension.contains(own):
                inside[dimension.option] = _encode(own)
            else:
                outside.append(dimension.option)
        return inside, outside


def parse_space(content: Any, where: str) -> SearchSpace:
    """Read a search space.

    Args:
        content: What the YAML file holds.
        where: The file, for messages.

    Raises:
        ConfigurationError: Not a mapping of options to ranges, an unknown kind of range, or bounds that are none.
    """
    if not isinstance(content, Mapping) or not content:
        raise ConfigurationError(
            f"{where}: a search space is a mapping such as model.lr: {{log_uniform: [1e-4, 1e-2]}}"
        )
    dimensions = []
    for option, given in content.items():
        if not isinstance(given, Mapping) or len(given) != 1:
            raise ConfigurationError(
                f"{where}: {option} is {given!r}, but must be one range, e.g. {{log_uniform: [1e-4, 1e-2]}} or "
                "{choice: [32, 64]}"
            )
        ((kind, values),) = given.items()
        if kind not in KINDS:
            raise ConfigurationError(f"{where}: {option} has an unknown kind of range {kind!r}: {nearest(kind, KINDS)}")
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{where}: {option}: {kind} takes a list, not {values!r}")
        values = [_number(value) for value in values]
        _check_values(f"{where}: {option}", kind, values)
        dimensions.append(Dimension(str(option).replace(".init_args", ""), kind, tuple(values)))
    return SearchSpace(tuple(dimensions))


def _check_values(where: str, kind: str, values: list[Any]) -> None:
    if kind == "choice":
        if len({json.dumps(_encode(value)) for value in values}) < len(values):
            raise ConfigurationError(f"{where}: a choice is given twice")
        return
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(values) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)) or not values[0] < values[1]:
        raise ConfigurationError(f"{where}: {kind} takes two numbers, the lower one first, not {values!r}")
    if "int" in kind and not all(isinstance(value, int) for value in values):
        raise ConfigurationError(f"{where}: {kind} takes two integers, not {values!r}")
    if kind.startswith("log") and values[0] <= 0:
        raise ConfigurationError(f"{where}: {kind} needs numbers above 0, not {values!r}")


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration in which options have other values.

    A part that is given by its name becomes a mapping when one of its settings is set, and a number for all
    modalities becomes the default beside the modality that is set.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    for option, value in values.items():
        *path, last = _keys(option)
        node = changed
        for key in path:
            child = node.get(key)
            if not isinstance(child, dict):
                child = {} if child is None else {"name" if isinstance(child, str) else DEFAULT: child}
                node[key] = child
            node = child
        node[last] = copy.deepcopy(value)
    return changed


def current_value(config: Mapping[str, Any], option: str) -> Any:
    """The value an option has, a part's default included; a marker equal to nothing where there is none."""
    node: Any = config
    keys = _keys(option)
    for depth, key in enumerate(keys):
        if isinstance(node, Mapping) and key in node:
            node = node[key]
            continue
        part = keys[depth - 1]
        if part in _PARTS and _name(node) is not None:
            setting = _PARTS[part].settings(str(_name(node))).get(key)
            found = setting is not None and setting.default is not inspect.Parameter.empty
            return setting.default if setting is not None and found and depth == len(keys) - 1 else _ABSENT
        if isinstance(node, Mapping):
            return node.get(DEFAULT, _ABSENT)
        return node if isinstance(node, (int, float)) and depth == len(keys) - 1 else _ABSENT
    return node


def _check_option(option: str, config: Mapping[str, Any], modalities: Sequence[str]) -> None:
    group, *rest = option.split(".")
    options = {
        f"{name}.{key}"
        for name in GROUPS
        for key in config.get(name, {}).get("init_args", config.get(name, {}))
        if f"{name}.{key}" not in _FIXED
    }
    if option in _FIXED or group == "seed_everything":
        raise ConfigurationError(
            f"the search space has {option}, which says what is scored or by which chance: drop it"
        )
    if ".".join([group, *rest[:1]]) not in options:
        raise ConfigurationError(
            f"the search space has an unknown option {option!r}: {_hint('.'.join([group, *rest[:1]]), options)}"
        )
    if len(rest) < 2 or rest[0] in _FREE:
        return
    value = current_value(config, f"{group}.{rest[0]}")
    if rest[0] in _PARTS and _name(value) is not None:
        known: Iterable[str] = _PARTS[rest[0]].settings(str(_name(value)))
        kind = f"setting of {rest[0]} {_name(value)!r}"
    else:
        known, kind = (*modalities, DEFAULT), f"modality of {group}.{rest[0]}"
    if rest[1] not in known:
        raise ConfigurationError(
            f"the search space has an unknown option {option!r}: {rest[1]!r} is no {kind}; {nearest(rest[1], known)}"
        )


def _hint(option: str, options: set[str]) -> str:
    """The nearest option; all of its group only where nothing is near."""
    hint, _, known = nearest(option, options).partition("? ")
    return f"{hint}?" if known else hint


def _keys(option: str) -> list[str]:
    group, *rest = option.split(".")
    return [group, *(["init_args"] if group in ("model", "data") else []), *rest]


def _name(value: Any) -> str | None:
    """The name of a part that is given by its name or by a mapping with one."""
    name = value.get("name") if isinstance(value, Mapping) else value
    return name if isinstance(name, str) else None


def _encode(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, (Mapping, list, tuple)) else value


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value
