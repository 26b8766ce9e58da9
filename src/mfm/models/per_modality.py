"""One thing for each modality, whatever the modalities are called."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from torch import nn

from mfm.errors import ConfigurationError, nearest
from mfm.models.registry import check_value

Part = TypeVar("Part", bound=nn.Module)
Value = TypeVar("Value")

DEFAULT = "default"
"""Key of a per-modality option that stands for every modality not named beside it."""

RESERVED = frozenset({"", "name", "y", "z_y", DEFAULT})
"""What a modality cannot be called: options per modality, parts of the loss and written codes use these keys."""


class PerModality(nn.Module, Generic[Part]):
    """Submodules by modality name, in sorted order.

    Unlike `nn.ModuleDict` it takes any non-empty name, also those of attributes of a module (`type`, `train`)
    and those with dots. In a state dict the parts of `text` are found under `of_text`.

    Args:
        parts: Modality -> submodule.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__()
        self._keys = {name: f"of_{name.replace('%', '%25').replace('.', '%2E')}" for name in sorted(parts)}
        for name, key in self._keys.items():
            self.add_module(key, parts[name])

    def __getitem__(self, name: str) -> Part:
        return cast(Part, self._modules[self._keys[name]])

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def items(self) -> ItemsView[str, Part]:
        """Pairs of modality and submodule, sorted by modality."""
        return {name: self[name] for name in self._keys}.items()


def spread(option: str, value: Value | Mapping[str, Value], modalities: Sequence[str]) -> dict[str, Value]:
    """Resolve an option that is given once for all modalities or per modality.

    Args:
        option: Its name, for messages.
        value: One value for all, or a mapping from modality to value, in which `default` stands for
            every modality not named. A mapping with the key `name` is one part's specification, hence
            one value.
        modalities: The modalities of the model.

    Returns:
        Modality -> value, for every modality.

    Raises:
        ConfigurationError: The mapping names an unknown modality (the nearest is named), or leaves
            one out and has no `default`.

    >>> spread("z", {"text": 64, "default": 32}, ["audio", "text"])
    {'audio': 32, 'text': 64}
    """
    if not isinstance(value, Mapping) or "name" in value:
        return dict.fromkeys(modalities, cast(Value, value))
    for name in value:
        if name not in modalities and name != DEFAULT:
            raise ConfigurationError(f"{option} names an unknown modality {name!r}: {nearest(str(name), modalities)}")
    missing = [name for name in modalities if name not in value]
    if missing and DEFAULT not in value:
        raise ConfigurationError(
            f"{option} has no value for modality {missing[0]!r}; add it, or the key 'default' for all others"
        )
    return {name: value[name] if name in value else value[DEFAULT] for name in modalities}


def spread_checked(option: str, value: Any, modalities: Sequence[str], hint: Any) -> dict[str, Any]:
    """As `spread`, and check each value against a type hint (see `registry.check_value`)."""
    values = spread(option, value, modalities)
    for name, item in values.items():
        check_value(f"{option} of modality {name!r}" if isinstance(value, Mapping) else option, item, hint)
    return values
