"""Turn a parser's complaint into one sentence, and keep known noise off the screen."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from jsonargparse import ArgumentParser

from mfm.datamodules import AffectDataModule
from mfm.errors import ConfigurationError, MFMError, nearest
from mfm.modules.base import AffectModule

_UNKNOWN = (
    re.compile(r"[Oo]ption '([^']+)' is not accepted"),
    re.compile(r"does not accept option '([^']+)'"),
    re.compile(r"[Kk]ey '([^']+)' is not expected"),
    re.compile(r"unrecognized arguments?: (?:--)?([^\s=]+)"),
    re.compile(r"Unrecognized arguments?: (?:--)?([^\s=]+)"),
    re.compile(r"No action for (?:destination )?key ['\"]([^'\"]+)['\"]"),
)
_VALUE = re.compile(
    r"(?:Subtypes: \[(?P<subtypes>.+?)\] Errors:.*?|Expected an? (?P<kind>.+?)\. ?)"
    r"(?:Given|Got) value: (?P<value>.+?)(?: - |$)"
)


@contextmanager
def translate_errors(arguments: list[str], parsers: Mapping[str, ArgumentParser]) -> Iterator[None]:
    """Raise a parser's error as a `ConfigurationError` of one sentence, with the nearest option for a typo."""
    try:
        yield
    except Exception as error:
        ours = _mistake(error)
        if ours is not None:  # jsonargparse wraps what a constructor raises
            raise ours from error
        if not isinstance(error, ArgumentError):
            raise
        command = next((argument for argument in arguments if argument in parsers), None)
        raise ConfigurationError(one_sentence(str(error), parsers.get(command or ""))) from error


def _mistake(error: BaseException | None) -> MFMError | None:
    """The `MFMError` among an error and its causes."""
    while error is not None and not isinstance(error, MFMError):
        error = error.__cause__ or error.__context__
    return error


def one_sentence(message: str, parser: ArgumentParser | None) -> str:
    """Shorten a parser's message to what a user needs."""
    for pattern in _UNKNOWN:
        found = pattern.search(message)
        if found:
            name = found.group(1).removeprefix("--")
            return f"unknown option {name!r}: {nearest_option(name, parser)}"
    for base, option in ((AffectModule, "--model"), (AffectDataModule, "--data")):
        given = re.search(r"Expected a dot import path string: (\w+)", message)
        if given and (f'"{option[2:]}"' in message or option in message):
            return f"{option}: no class {given.group(1)!r}: {nearest(given.group(1), _subclasses(base))}"
    wrong = _wrong_value(" ".join(message.split()))
    if wrong is not None:
        return wrong
    if "required" in message and ("model" in message or "data" in message):
        return f"{' '.join(message.split())}; give a configuration, e.g. --config mosei.yaml (mfm configs lists them)"
    return " ".join(message.split())


def _wrong_value(message: str) -> str | None:
    """Say which option has a value of the wrong type; the parser's own message tells it several times over."""
    keys = list(re.finditer(r'Parser key "([\w.]+)"', message))
    found = _VALUE.search(message, keys[-1].end()) if keys else None
    if found is None or "class_path" in found["value"]:
        return None
    inner, outer = keys[-1].group(1), keys[0].group(1)
    option = inner if "." in inner or len(keys) == 1 else f"{outer}.{inner}"
    kinds = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", found["subtypes"] or found["kind"]).replace("NoneType", "null")
    remedy = f", e.g. '[{found['value']}]'" if "list[" in kinds and "[" not in found["value"] else ""
    return f"--{option} is {found['value']!r}, but must be of type {kinds.replace('typing.', '')}{remedy}"


def nearest_option(name: str, parser: ArgumentParser | None) -> str:
    """Name the option that was probably meant."""
    known = set() if parser is None else {action.dest for action in parser._actions if action.dest != "help"}
    known = {option for option in known if not option.startswith(("model", "data"))}
    for base, prefix in ((AffectModule, "model"), (AffectDataModule, "data")):
        for klass in _subclasses(base).values():
            known |= {f"{prefix}.{parameter}" for parameter in _parameters(klass)}
    plain = name.replace(".init_args", "")
    prefixed = plain if "." in plain else next((k for k in _closest(plain, known)), plain)
    return nearest(prefixed, known).partition("Known:")[0].strip() or "`--help` lists the options"


def _closest(name: str, known: set[str]) -> list[str]:
    """Options whose last part is closest to a name given without its group."""
    import difflib

    tails = {option.rpartition(".")[2]: option for option in sorted(known)}
    return [tails[tail] for tail in difflib.get_close_matches(name, tails, n=1, cutoff=0.5)]


def _parameters(klass: type) -> set[str]:
    """Named arguments of a class and of the bases that its `**kwargs` go to."""
    names: set[str] = set()
    for base in klass.__mro__:
        if base.__module__.startswith("mfm.") and "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {"self"}
    return names


def _subclasses(base: type) -> dict[str, type]:
    found: dict[str, type] = {base.__name__: base}
    children: list[type] = type.__subclasses__(base)
    for klass in children:
        found |= _subclasses(klass)
    return found


def quiet_known_warnings() -> None:
    """Silence messages that a user can do nothing about; each line says whose they are. Show our own."""
    own = logging.getLogger("mfm")
    own.setLevel(logging.INFO)
    own.handlers[:] = [logging.StreamHandler()]  # of today's standard error, which a notebook or a test may replace
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hardware lists and advertisements
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # Lightning 2.6 calls what jsonargparse 4.53 deprecates (Lightning issue 21900)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"jsonargparse.*|lightning.*")
    warnings.filterwarnings("ignore", message=r".*JsonargparseDeprecationWarning.*")
    with suppress(ImportError):  # private, and gone in some versions
        from jsonargparse._deprecated import JsonargparseDeprecationWarning

        warnings.filterwarnings("ignore", category=JsonargparseDeprecationWarning)
    # the advice to use many workers is wrong for stores of this size
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # small corpora have fewer batches than log_every_n_steps; everything is logged by epoch
    warnings.filterwarnings("ignore", message=r".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=r".*Checkpoint directory .* exists and is not empty.*")
    # evaluation neither selects nor stops, so it has no use for the callbacks that did
    warnings.filterwarnings("ignore", message=r".*callbacks used to create the checkpoint need to be provided.*")
    # Lightning 2.6 asks torch 2.13 in a deprecated way
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
