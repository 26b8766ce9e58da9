"""What a suite is: corpora x models x seeds, a budget, and the `mfm fit` command of every cell."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from mfm.errors import ConfigurationError, nearest

_EPOCHS = "trainer.max_epochs"


@dataclass(frozen=True)
class CorpusEntry:
    """A corpus of a suite: a file, or how to generate one; `note` is what a reader of its results should know."""

    label: str
    title: str
    corpus: str
    base: str
    path: str | None = None
    generate: Mapping[str, Any] | None = None
    configs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True)
class Variation:
    """Settings of a model: configurations in order, options, and a tuned overlay."""

    configs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    tuned: str | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model of a suite, with what differs for single corpora."""

    label: str
    title: str
    everywhere: Variation
    corpora: Mapping[str, Variation] = field(default_factory=dict)

    def on(self, corpus: str) -> Variation:
        """Settings on a corpus: what is given for it replaces configurations and overlay, and adds to the options."""
        here = self.corpora.get(corpus, Variation())
        return Variation(
            here.configs or self.everywhere.configs,
            {**self.everywhere.options, **here.options},
            here.tuned or self.everywhere.tuned,
        )


@dataclass(frozen=True)
class Budget:
    """What each run may use: epochs, and seconds of training. None is what the configuration says."""

    max_epochs: int | None = None
    max_seconds: int | None = None


class Source(NamedTuple):
    """A configuration: its name in the suite, its file, and its text."""

    name: str
    path: str
    text: str


class Recipe(NamedTuple):
    """What a cell is made of, in the order in which it is applied.

    Attributes:
        configs: The model's configurations, then the corpus'.
        options: The corpus' and the model's.
        tuned: The overlay of a search.
        last: The suite's overrides.
    """

    configs: tuple[Source, ...]
    options: dict[str, Any]
    tuned: Source | None
    last: dict[str, Any]

    def epochs(self) -> Any:
        """`trainer.max_epochs` as given last; None where it is not given."""
        found = [_epochs_in(source.text) for source in self.configs]
        found.append(self.options.get(_EPOCHS))
        found += [_epochs_in(self.tuned.text)] if self.tuned is not None else []
        found.append(self.last.get(_EPOCHS))
        return next((epochs for epochs in reversed(found) if epochs is not None), None)


class Cell(NamedTuple):
    """One run of a suite."""

    corpus: str
    model: str
    seed: int

    @property
    def key(self) -> str:
        """`corpus/model/seed_1`: its name and the folder of its run."""
        return f"{self.corpus}/{self.model}/seed_{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A suite, checked."""

    name: str
    title: str
    corpora: Mapping[str, CorpusEntry]
    models: Mapping[str, ModelEntry]
    seeds: tuple[int, ...]
    budget: Budget
    overrides: Mapping[str, Any]
    reference: str | None = None

    def cells(self) -> list[Cell]:
        """All cells; seeds go slowest, so that a suite that is stopped early has all models."""
        return [Cell(corpus, model, seed) for seed in self.seeds for corpus in self.corpora for model in self.models]

    def recipe(
        self, cell: Cell, tuned: str | None, opened: Callable[[str], Source], *, untuned: bool = False
    ) -> Recipe:
        """What a cell is made of.

        Args:
            cell: The cell.
            tuned: Template of a tuned overlay for models that have none of their own.
            opened: Finds and reads the configuration of a name.
            untuned: Leave out every overlay: what a search begins with.
        """
        corpus, model = self.corpora[cell.corpus], self.models[cell.model]
        here = model.on(cell.corpus)
        values = {"corpus": corpus.corpus, "base": corpus.base, "label": corpus.label, "model": model.label}

        def source(template: str) -> Source:
            return opened(_filled(template, values, f"models.{cell.model}"))

        overlay = None if untuned else here.tuned or tuned
        return Recipe(
            configs=tuple(source(name) for name in (*here.configs, *corpus.configs)),
            options={**corpus.options, **here.options},
            tuned=None if overlay is None else source(overlay),
            last=dict(self.overrides),
        )

    def limited(self, recipe: Recipe) -> dict[str, Any]:
        """The overrides of a cell, and its budget."""
        last = dict(recipe.last)
        if self.budget.max_epochs is not None:
            epochs = recipe.epochs()
            less = type(epochs) is int and 0 <= epochs < self.budget.max_epochs
            last[_EPOCHS] = epochs if less else self.budget.max_epochs
        if self.budget.max_seconds is not None:
            last["trainer.max_time"] = {"seconds": self.budget.max_seconds}
        return last

    def arguments(self, cell: Cell, path: str, recipe: Recipe, *, shown: bool = False) -> tuple[str, ...]:
        """Arguments of `mfm fit` for a cell, but for `--run_dir`; later ones win.

        Args:
            cell: The cell.
            path: Its data.
            recipe: What it is made of.
            shown: Name configurations as the suite does, not by their paths on this machine.
        """

        def given(source: Source) -> tuple[str, str]:
            return "--config", source.name if shown else source.path

        def spelled(options: Mapping[str, Any]) -> list[str]:
            return [f"--{name}={one if isinstance(one, str) else json.dumps(one)}" for name, one in options.items()]

        return (
            *(word for source in recipe.configs for word in given(source)),
            *spelled(recipe.options),
            *(() if recipe.tuned is None else given(recipe.tuned)),
            *spelled(self.limited(recipe)),
            f"--data.path={path}",
            f"--seed_everything={cell.seed}",
        )

    def config_hash(self, cell: Cell, recipe: Recipe) -> str:
        """Identify what is run, whatever the seed and wherever the files are.

        Returns:
            SHA-256 over the configurations' text, the options and how the corpus is generated.
        """
        content = {
            "configs": [source.text for source in recipe.configs],
            "options": recipe.options,
            "tuned": recipe.tuned.text if recipe.tuned is not None else None,
            "last": self.limited(recipe),
            "generate": self.corpora[cell.corpus].generate,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _filled(name: str, values: Mapping[str, str], where: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found.group(1) not in values:
            raise ConfigurationError(f"{where}: {name!r} has {found.group()}: {nearest(found.group(1), values)}")
        return values[found.group(1)]

    return re.sub(r"\{(\w+)\}", value, name)


def _epochs_in(text: str) -> Any:
    content = yaml.safe_load(text)
    trainer = content.get("trainer") if isinstance(content, dict) else None
    return trainer.get("max_epochs") if isinstance(trainer, dict) else None
