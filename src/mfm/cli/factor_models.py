"""Whether a loaded model has what a command examines, and what it is called where it has not."""

from __future__ import annotations

from mfm.cli.loading import LoadedRun
from mfm.errors import ConfigurationError
from mfm.modules import FactorModule


def named(run: LoadedRun) -> str:
    """A model's name in a message: its class, and its variant where it has several."""
    variant = run.module.hparams.get("variant")
    return type(run.module).__name__ + (f" {variant}" if variant else "")


def factor_module(run: LoadedRun, command: str, *, generates: bool = False) -> FactorModule:
    """The module of a run, seen as a model of factors.

    Args:
        run: The run.
        command: The command, for messages.
        generates: Whether it has to have decoders.

    Raises:
        ConfigurationError: It has no factors, or no decoders where they are needed.
    """
    module = run.module
    if not isinstance(module, FactorModule):
        raise ConfigurationError(
            f"{named(run)} is not made of factors; {command} takes a model that is, such as MFMModule"
        )
    if generates and not module.model.layout.generates:
        raise ConfigurationError(
            f"{named(run)} generates no sequences: it has no decoders of any, and {command} is about what they make"
        )
    return module


def reads_labels(run: LoadedRun) -> bool:
    """Whether the model was trained to read a label."""
    if not run.data.labels or not run.data.output_dim:
        return False
    return not isinstance(run.module, FactorModule) or run.module.model.head is not None


def trains_surrogates(run: LoadedRun) -> bool:
    """Whether the kind of model can be trained with a surrogate, whose place a reference takes."""
    return "surrogate" in run.module.hparams and "reference" not in run.module.hparams
