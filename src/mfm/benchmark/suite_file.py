"""The file of a suite, and what can be wrong with it.

The YAML of a suite::

    name: mosi-context
    corpora:
      mosi_context:                       # a label of your choice
        corpus: mosi                      # {corpus} in the names of configurations
        base: mosi                        # {base} there: whose configurations to take; {corpus} by default
        path: ${MFM_DATA}/mosi/context_aligned_10.pkl
        title: CMU-MOSI, utterances in context of ten
        config: my_overlay.yaml           # further configuration(s), after the model's
        options: {data.modalities: [audio, text]}
        note: What a reader of its results should know.
    models:
      mfm: "{corpus}.yaml"                # short for {config: "{corpus}.yaml"}
      tfn:
        config: collection/{base}_tfn.yaml        # {label} and {model} are the suite's own names
        options: {model.lr: 1.0e-3}
        tuned: tuned/{label}_tfn/best.yaml
        corpora: {pom: {config: collection/mosi_tfn.yaml}}      # other settings there
    seeds: [1, 2, 3, 4, 5]
    budget: {max_epochs: 40, max_seconds: 900}
    overrides: {trainer.accelerator: cpu}
    reference: mfm

A budget is a limit: a configuration may use less. Instead of `path`, `generate` has the options of a `FactorWorld` and
`samples: [train, valid, test]`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mfm.benchmark.suite import Budget, CorpusEntry, ModelEntry, Suite, Variation
from mfm.errors import ConfigurationError, nearest

_SUITE = ("name", "title", "corpora", "models", "seeds", "budget", "overrides", "reference")
_CORPUS = ("corpus", "base", "path", "generate", "title", "config", "options", "note")
_VARIATION = ("config", "options", "tuned")
_MODEL = (*_VARIATION, "title", "corpora")
_BUDGET = ("max_epochs", "max_seconds")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"\$\{(\w+)\}")
# decided by the suite for every cell
_RESERVED = ("run_dir", "seed_everything", "data.path", "trainer.max_time", "ckpt_path", "config")


def parse_suite(content: Any, where: str) -> Suite:
    """Check the content of a suite's file.

    Args:
        content: What YAML made of it.
        where: Name of the file, for messages.

    Raises:
        ConfigurationError: A key that is unknown, missing or has a value that cannot be used.
    """
    suite = _mapping(content, where, _SUITE)
    for key in ("name", "corpora", "models"):
        if key not in suite:
            raise ConfigurationError(f"{where} has no {key!r}; a suite needs name, corpora and models")
    corpora = {label: _corpus(label, value, where) for label, value in _labelled(suite, "corpora", where).items()}
    models = {
        label: _model(label, value, where, tuple(corpora)) for label, value in _labelled(suite, "models", where).items()
    }
    seeds = suite.get("seeds", [1, 2, 3, 4, 5])
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise ConfigurationError(f"{where}: seeds is {seeds!r}; give a list of whole numbers >= 0, e.g. [1, 2, 3]")
    if len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"{where}: seeds is {seeds}; name each seed once")
    reference = suite.get("reference")
    if reference is not None and reference not in models:
        raise ConfigurationError(f"{where}: reference is {reference!r}: {nearest(str(reference), models)}")
    name = _text(suite["name"], f"{where}: name")
    if not _LABEL.fullmatch(name):
        raise ConfigurationError(f"{where}: name is {name!r}; use letters, digits, '-', '_' and '.'")
    return Suite(
        name=name,
        title=_text(suite.get("title", name), f"{where}: title"),
        corpora=corpora,
        models=models,
        seeds=tuple(seeds),
        budget=_budget(suite.get("budget"), where),
        overrides=_options(suite.get("overrides"), f"{where}: overrides"),
        reference=reference,
    )


def expand_path(path: str, variables: Mapping[str, str], where: str) -> str:
    """Replace every `${NAME}` of a path.

    Raises:
        ConfigurationError: A variable that is not set.
    """

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        if not variables.get(name):
            remedy = "give --data DIR or set it" if name == "MFM_DATA" else "set it in the environment"
            raise ConfigurationError(f"{where}: ${{{name}}} in {path!r} is not set; {remedy}")
        return variables[name]

    return _VARIABLE.sub(value, path)


def _corpus(label: str, value: Any, where: str) -> CorpusEntry:
    where = f"{where}: corpora.{label}"
    entry = {"path": value} if isinstance(value, str) else _mapping(value, where, _CORPUS)
    if ("path" in entry) == ("generate" in entry):
        raise ConfigurationError(f"{where} needs either path (a file) or generate (a synthetic corpus)")
    generate = entry.get("generate")
    if generate is not None and not isinstance(generate, dict):
        raise ConfigurationError(f"{where}.generate is {generate!r}; give a mapping, e.g. {{label_noise: 0.5}}")
    return CorpusEntry(
        label=label,
        title=_text(entry.get("title", label), f"{where}.title"),
        corpus=_text(entry.get("corpus", label), f"{where}.corpus"),
        base=_text(entry.get("base", entry.get("corpus", label)), f"{where}.base"),
        path=None if generate is not None else _text(entry["path"], f"{where}.path"),
        generate=generate,
        configs=_names(entry.get("config"), f"{where}.config"),
        options=_options(entry.get("options"), f"{where}.options"),
        note=None if entry.get("note") is None else _text(entry["note"], f"{where}.note"),
    )


def _model(label: str, value: Any, where: str, corpora: Sequence[str]) -> ModelEntry:
    where = f"{where}: models.{label}"
    entry = {"config": value} if isinstance(value, (str, list)) else _mapping(value, where, _MODEL)
    if "config" not in entry:
        raise ConfigurationError(f"{where} has no config; name a configuration, e.g. config: mosi.yaml")
    others: Any = entry.get("corpora", {})
    if not isinstance(others, dict):
        raise ConfigurationError(f"{where}.corpora is {others!r}; give a mapping of corpora to settings")
    for corpus in others:
        if corpus not in corpora:
            raise ConfigurationError(f"{where}.corpora names {corpus!r}: {nearest(str(corpus), corpora)}")
    return ModelEntry(
        label=label,
        title=_text(entry.get("title", label), f"{where}.title"),
        everywhere=_variation(entry, where),
        corpora={
            corpus: _variation(
                {"config": one} if isinstance(one, (str, list)) else _mapping(one, f"{where}.{corpus}", _VARIATION),
                f"{where}.corpora.{corpus}",
            )
            for corpus, one in others.items()
        },
    )


def _variation(entry: Mapping[str, Any], where: str) -> Variation:
    tuned = entry.get("tuned")
    return Variation(
        _names(entry.get("config"), f"{where}.config"),
        _options(entry.get("options"), f"{where}.options"),
        None if tuned is None else _text(tuned, f"{where}.tuned"),
    )


def _budget(value: Any, where: str) -> Budget:
    given = _mapping({} if value is None else value, f"{where}: budget", _BUDGET)
    for key, number in given.items():
        if number is not None and (type(number) is not int or number < 1):
            raise ConfigurationError(f"{where}: budget.{key} is {number!r}; give a whole number >= 1, or null")
    return Budget(**given)


def _options(value: Any, where: str) -> dict[str, Any]:
    options = {} if value is None else value
    if not isinstance(options, dict):
        raise ConfigurationError(f"{where} is {value!r}; give a mapping of options, e.g. {{model.lr: 1.0e-3}}")
    for name in options:
        if name in _RESERVED:
            raise ConfigurationError(f"{where}.{name} cannot be given: the suite decides it (seeds, budget, path)")
    return {str(name): one for name, one in options.items()}


def _labelled(suite: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    entries = suite[key]
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(f"{where}: {key} is {entries!r}; give a mapping of labels, at least one")
    for label in entries:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise ConfigurationError(f"{where}: {key} has the label {label!r}; use letters, digits, '-', '_' and '.'")
    return entries


def _mapping(value: Any, where: str, known: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} is {value!r}; give a mapping with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise ConfigurationError(f"{where} has an unknown key {key!r}: {nearest(str(key), known)}")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    names = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"{where} is {value!r}; give a name or a list of names")
    return tuple(names)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where} is {value!r}; give a text")
    return value
