"""Other checkpoints to set beside a run, on the run's own data."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mfm.cli.loading import LoadedRun, load_run
from mfm.errors import ConfigurationError, MFMError
from mfm.modules.base import AffectModule


def load_compared(
    run: LoadedRun, given: Sequence[str], overrides: list[str], *, split: str, taken: Collection[str], command: str
) -> dict[str, AffectModule]:
    """Load the checkpoints that are to be compared with a run.

    Args:
        run: The run.
        given: What `--compare` names, each `NAME=CHECKPOINT`.
        overrides: The run's own further arguments; all checkpoints get those for the data.
        split: As in `load_run`.
        taken: Names that mean something else.
        command: The command, for messages.

    Returns:
        Name -> trained module, in evaluation mode, on the CPU.

    Raises:
        ConfigurationError: No name, a name twice, or a checkpoint of other data, another corpus, target or modalities.
        MFMError: A checkpoint that cannot be loaded.
    """
    if given and any(argument.startswith(("--config", "-c")) for argument in overrides):
        raise ConfigurationError("--compare takes every checkpoint's own configuration; leave --config out")
    modules: dict[str, AffectModule] = {}
    for item in given:
        name, equals, checkpoint = item.partition("=")
        if not (name and equals and checkpoint):
            raise ConfigurationError(
                f"--compare takes NAME=CHECKPOINT, for example posthoc=RUN/best.ckpt, got {item!r}"
            )
        if name in taken or name in modules:
            raise ConfigurationError(f"--compare: the name {name!r} is taken; choose another for {checkpoint}")
        try:
            other = load_run(checkpoint, overrides, split=split, command=command)
        except MFMError as error:
            raise type(error)(f"--compare {name}: {str(error).removeprefix('--ckpt_path: ')}") from error
        difference = _difference(run, other)
        if difference:
            raise ConfigurationError(
                f"--compare {name}: {checkpoint} {difference}; only models of the same data can be compared"
            )
        modules[name] = other.module
    return modules


def _difference(run: LoadedRun, other: LoadedRun) -> str:
    """In what two runs' data differ, in words; empty where they do not."""
    own, its = run.data, other.data
    if its.corpus_name != own.corpus_name:
        return f"was trained for corpus {its.corpus_name!r}, not {own.corpus_name!r}"
    if not its.labels or its.target != own.target:
        return "was trained " + (
            "without labels" if not its.labels else f"on labels {its.target!r}, not {own.target!r}"
        )
    if other.module.feature_dims != run.module.feature_dims:
        return f"was trained on modalities {_dims(other)}, not {_dims(run)}"
    same_file = Path(its.path).resolve() == Path(own.path).resolve()
    if not same_file and its.fingerprint != own.fingerprint:
        return f"was trained on other data ({its.path}, fingerprint {its.fingerprint[:12]}, not {own.fingerprint[:12]})"
    return ""


def _dims(run: LoadedRun) -> str:
    return ", ".join(f"{name} ({dim})" for name, dim in sorted(run.module.feature_dims.items()))
