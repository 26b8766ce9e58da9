"""The study in its database: opened anew or again, what counts as a trial, and the next one.

A trial is drawn by its own generator, seeded with the study's seed and the number of the draw, so that a study that was
killed and goes on draws what it would have drawn.
"""

from __future__ import annotations

import itertools
import os
import socket
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mfm.errors import ConfigurationError, MFMError, MissingDependencyError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

NAME = "mfm"
ERROR, WORKER, RECORD, OWN, DRAW = "error", "worker", "record", "own", "draw"  # attributes of trials
PRUNERS = ("median", "hyperband", "none")
_HEARTBEAT, _GRACE = 30, 120  # seconds: signs of life of trials on other machines
_UNSIGNED = timedelta(minutes=1)  # a trial that has not said who runs it by then was killed before it could


def require_optuna() -> None:
    """Import Optuna, and keep its remarks off the screen.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError("mfm tune needs Optuna: pip install 'mfm-lightning[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # failures are in our own table, without tracebacks
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats, constant_liar


def open_storage(url: str) -> RDBStorage:
    """Open or make the database.

    Raises:
        ConfigurationError: Not a database that can be opened.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import event, make_url

    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
    try:
        storage = RDBStorage(url, engine_kwargs=options, heartbeat_interval=_HEARTBEAT, grace_period=_GRACE)
    except Exception as error:  # SQLAlchemy and its drivers raise a dozen types
        shown = " ".join(str(error).split())[:200]
        raise ConfigurationError(f"--storage {url} cannot be opened: {shown}") from error
    if make_url(url).get_backend_name() == "sqlite":

        def prepare(connection: Any, _: Any) -> None:
            # a commit for every epoch: with a write-ahead log it takes no flush of the disk, and a kill loses nothing
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

        event.listen(storage.engine, "connect", prepare)
        storage.engine.dispose()
    return storage


def open_study(
    storage: RDBStorage,
    mode: Literal["min", "max"],
    settings: Mapping[str, Any],
) -> Study:
    """Open the study of a database, or begin it; what was left half-done is marked as failed.

    Args:
        storage: The database.
        mode: Whether the objective is better small (`min`) or large (`max`).
        settings: What makes trials comparable, as JSON knows it; recorded, and compared when the study goes on.

    Raises:
        ConfigurationError: The database has a study with other settings.
    """
    import optuna

    study = optuna.create_study(
        storage=storage,
        study_name=NAME,
        direction="minimize" if mode == "min" else "maximize",
        load_if_exists=True,
    )
    known = study.user_attrs
    for name, value in settings.items():
        if name not in known:
            study.set_user_attr(name, value)
        elif known[name] != value:
            raise ConfigurationError(
                f"the study was begun with another {name} ({_difference(known[name], value)}): go on with the same, or "
                "choose another --output"
            )
    fail_abandoned(study)
    return study


def own_is_due(study: Study) -> bool:
    """Whether no trial has, or is about to have, the configuration as it stands."""
    return not any(OWN in t.user_attrs for t in study.get_trials(deepcopy=False) if not _interrupted(t))


def _difference(before: Any, now: Any) -> str:
    """Where two settings differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        key = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
        return f"{key}: {_difference(before.get(key), now.get(key))}"
    return f"{before!r} then, {now!r} now"


def fail_abandoned(study: Study) -> None:
    """Mark trials as failed whose process is gone; they are replaced."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _abandoned(trial):
            fail_trial(study, trial.number)


def _abandoned(trial: FrozenTrial) -> bool:
    if WORKER not in trial.user_attrs:
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > _UNSIGNED
    host, _, process = trial.user_attrs[WORKER].rpartition(":")
    return bool(host == socket.gethostname()) and not _alive(int(process))


def fail_trial(study: Study, number: int) -> None:
    """Mark a running trial as failed, unless it ended meanwhile."""
    from optuna.trial import TrialState

    with suppress(ValueError):  # what Optuna raises for a trial that has ended
        study.tell(number, state=TrialState.FAIL)


def _alive(process: int) -> bool:
    if process == os.getpid():  # asked before this process has run any, so it is a namesake's
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def worker_name(process: int | None = None) -> str:
    """Who runs a trial: machine and process (this one by default)."""
    return f"{socket.gethostname()}:{process or os.getpid()}"


def _interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial was killed half-done; one that failed by itself says why."""
    return trial.state.name == "FAIL" and ERROR not in trial.user_attrs


def counted(study: Study) -> list[FrozenTrial]:
    """Trials that are done: complete, pruned, or failed by themselves."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and not _interrupted(t)]


def running(study: Study) -> list[str]:
    """Who has a trial under way, in any process; see `worker_name`."""
    trials = study.get_trials(deepcopy=False)
    return [t.user_attrs[WORKER] for t in trials if t.state.name == "RUNNING" and WORKER in t.user_attrs]


def next_draw(study: Study, taken: Collection[int] = ()) -> int:
    """The first draw that no trial has, or had and was not killed with.

    Args:
        study: The study.
        taken: Draws of trials that are about to begin.
    """
    lasting = (trial for trial in study.get_trials(deepcopy=False) if not _interrupted(trial))
    known = {*taken, *(trial.user_attrs.get(DRAW) for trial in lasting)}
    return next(draw for draw in itertools.count() if draw not in known)


def best_trial(study: Study) -> FrozenTrial:
    """The complete trial with the best value.

    Raises:
        MFMError: There is none; the first failure is named.
    """
    done = counted(study)
    if not any(trial.state.name == "COMPLETE" for trial in done):
        reason = next((trial.user_attrs[ERROR] for trial in done if ERROR in trial.user_attrs), "none was finished")
        raise MFMError(f"none of {len(done)} trials gave a value: {reason}")
    return study.best_trial


def run_next(
    study: Study,
    objective: Callable[[Trial], float],
    seed: int,
    draw: int,
    pruner: BasePruner,
    own: Mapping[str, Any] | None = None,
) -> None:
    """Run one more trial; an objective that raises fails its trial only.

    Args:
        study: The study.
        objective: Trains, and returns the value.
        seed: The study's seed.
        draw: See `next_draw`.
        pruner: Decides which trials end early.
        own: Parameters that are not drawn: those of the configuration as it stands.
    """
    from optuna.samplers import PartialFixedSampler, TPESampler

    # constant_liar: TPE keeps away from what others are trying at the moment
    sampler = TPESampler(seed=int(np.random.SeedSequence([seed, draw]).generate_state(1)[0]), constant_liar=True)
    # not Optuna's queue: two processes can take one trial out of it where the database is SQLite
    study.sampler = sampler if own is None else PartialFixedSampler(dict(own), sampler)
    study.pruner = pruner

    def marked(trial: Trial) -> float:
        trial.set_user_attr(DRAW, draw)
        if own is not None:
            trial.set_user_attr(OWN, True)
        return objective(trial)

    study.optimize(marked, n_trials=1, catch=(Exception,))


def build_pruner(name: str, steps: int, *, folds: bool) -> BasePruner:
    """A pruner by name.

    Args:
        name: One of `PRUNERS`.
        steps: Largest number of steps a trial reports: epochs, or folds.
        folds: Whether steps are folds.
    """
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=0 if folds else 5)
    if name == "hyperband":
        return HyperbandPruner(min_resource=max(1, steps // 9), max_resource=max(2, steps))
    return NopPruner()
