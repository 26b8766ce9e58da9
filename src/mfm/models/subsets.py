"""Subsets of modalities: their names, and distributions to draw them from while training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mfm.errors import ConfigurationError, nearest

Subset = tuple[str, ...]
"""Names of the modalities observed, sorted."""

DISTRIBUTIONS = ("uniform", "per_size", "empirical")
"""Distributions by name; the fourth, `weights`, is a mapping from subsets to weights."""

MOST_MODALITIES = 12
"""More modalities than this have more than 4,095 subsets, too many to list."""


def all_subsets(modalities: Iterable[str]) -> list[Subset]:
    """Every non-empty subset, by size and then by name.

    Raises:
        ConfigurationError: More than `MOST_MODALITIES` modalities.

    >>> all_subsets(["text", "audio"])
    [('audio',), ('text',), ('audio', 'text')]
    """
    names = sorted(set(modalities))
    if len(names) > MOST_MODALITIES:
        raise ConfigurationError(
            f"{len(names)} modalities have {2 ** len(names) - 1} subsets; name the ones of interest, or use at most "
            f"{MOST_MODALITIES} modalities"
        )
    return [chosen for size in range(1, len(names) + 1) for chosen in itertools.combinations(names, size)]


def subset_name(subset: Iterable[str]) -> str:
    """Name of a subset, as in tables and options.

    >>> subset_name(["text", "audio"])
    'audio+text'
    """
    return "+".join(sorted(subset))


def parse_subset(name: str, modalities: Sequence[str]) -> Subset:
    """The subset that a name such as `text+audio` means.

    Args:
        name: Names joined with `+`, in any order.
        modalities: The modalities there are.

    Raises:
        ConfigurationError: Nothing is named, or something that is no modality (the nearest is named).
    """
    parts = [part.strip() for part in name.split("+")] if name in modalities or name.strip() else []
    if name in modalities:  # a modality whose own name has a plus in it
        parts = [name]
    if not parts:
        raise ConfigurationError(
            f"a subset with nothing observed cannot be inferred from; join some of {', '.join(sorted(modalities))} by +"
        )
    for part in parts:
        if part not in modalities:
            raise ConfigurationError(f"subset {name!r} names no modality with {part!r}: {nearest(part, modalities)}")
    return tuple(sorted(set(parts)))


class SubsetDistribution:
    """Draws which of its modalities each sample of a batch is observed with; never none of them.

    * `uniform`: every non-empty subset of what the sample has, alike.
    * `per_size`: first a size, alike, then a subset of that size, alike: single modalities are met more often.
    * `weights`, a mapping: subset -> weight >= 0, among those subsets that the sample has; a sample that has none of
      them keeps all it has.
    * `empirical`: the presence pattern of a sample of the batch drawn at random, as far as the sample has it; where
      nothing would be left it keeps all it has.

    Args:
        distribution: A name in `DISTRIBUTIONS`, or a mapping such as `{text+audio: 2, text: 1}`.
        modalities: Names of the model's modalities.

    Raises:
        ConfigurationError: An unknown name, subset or modality, or weights that are negative, not finite or all 0.
    """

    def __init__(self, distribution: str | Mapping[str, float], modalities: Iterable[str]) -> None:
        self.modalities = sorted(modalities)
        self.name = "weights" if isinstance(distribution, Mapping) else distribution
        self.weights: dict[Subset, float] = {}
        if isinstance(distribution, Mapping):
            self.weights = _checked_weights(distribution, self.modalities)
        elif distribution not in DISTRIBUTIONS:
            raise ConfigurationError(
                f"unknown distribution of subsets {distribution!r}: {nearest(str(distribution), DISTRIBUTIONS)}; "
                "or give a mapping from subsets to weights, such as {text+audio: 2, text: 1}"
            )

    def draw(self, present: Mapping[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw for a batch.

        Args:
            present: Modality -> (B,) bool, what each sample has; a modality not named is had by none.
            generator: Source of randomness; the global one by default.

        Returns:
            Modality -> (B,) bool, for every modality: observed. A subset of `present`, and empty only where that is.
        """
        some = next(iter(present.values()))
        nobody = torch.zeros_like(some)
        had = torch.stack([present.get(name, nobody) for name in self.modalities], dim=1)
        choose = {
            "uniform": self._uniform,
            "per_size": self._per_size,
            "weights": self._weighted,
            "empirical": self._empirical,
        }[self.name]
        observed = choose(had, generator) & had
        observed = torch.where(observed.any(dim=1, keepdim=True), observed, had)
        return {name: observed[:, column] for column, name in enumerate(self.modalities)}

    def _uniform(self, had: Tensor, generator: torch.Generator | None) -> Tensor:
        """As `per_size`, with sizes weighted by how many subsets of that size there are."""
        n = len(self.modalities)
        table = torch.tensor(
            [[float(math.comb(count, size)) for size in range(1, n + 1)] for count in range(n + 1)],
            device=had.device,
        )
        table[0, 0] = 1.0  # a sample without anything draws too, and keeps nothing
        size = torch.multinomial(table[had.sum(dim=1)], 1, generator=generator) + 1
        return _any_of_size(had, size, generator)

    def _per_size(self, had: Tensor, generator: torch.Generator | None) -> Tensor:
        count = had.sum(dim=1, keepdim=True)
        draw = torch.rand(count.shape, generator=generator, device=had.device)
        size = (draw * count).long().clamp(max=(count - 1).clamp(min=0)) + 1
        return _any_of_size(had, size, generator)

    def _weighted(self, had: Tensor, generator: torch.Generator | None) -> Tensor:
        subsets = torch.tensor([[name in subset for name in self.modalities] for subset in self.weights])
        subsets = subsets.to(had.device)
        possible = ~(subsets[None] & ~had[:, None]).any(dim=2)
        weights = torch.tensor(list(self.weights.values()), device=had.device) * possible
        none = weights.sum(dim=1, keepdim=True) == 0
        chosen = torch.multinomial(weights + none, 1, generator=generator).squeeze(1)
        return torch.where(none, had, subsets[chosen])

    def _empirical(self, had: Tensor, generator: torch.Generator | None) -> Tensor:
        others = torch.randint(len(had), (len(had),), generator=generator, device=had.device)
        return had[others]


def _any_of_size(had: Tensor, size: Tensor, generator: torch.Generator | None) -> Tensor:
    """`size` (B, 1) of the modalities that each sample has, (B, M), alike."""
    order = torch.rand(had.shape, generator=generator, device=had.device).masked_fill(~had, 2.0)
    return order.argsort(dim=1).argsort(dim=1) < size


def _checked_weights(weights: Mapping[str, float], modalities: Sequence[str]) -> dict[Subset, float]:
    checked: dict[Subset, float] = {}
    for name, weight in weights.items():
        subset = parse_subset(str(name), modalities)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigurationError(f"the weight of subset {name!r} is {weight!r}, but must be a number >= 0")
        if subset in checked:
            raise ConfigurationError(f"the weights name subset {subset_name(subset)!r} twice; name it once")
        checked[subset] = float(weight)
    checked = {subset: weight for subset, weight in checked.items() if weight}
    if not checked:
        raise ConfigurationError("the weights of subsets leave none to draw; give at least one a weight above 0")
    return checked
