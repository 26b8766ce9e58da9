"""A study that is killed, resumed, shared or refused; with an objective that costs nothing."""

import os
import shutil
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from mfm.errors import ConfigurationError, MFMError
from mfm.tuning.study import (
    DRAW,
    ERROR,
    WORKER,
    best_trial,
    build_pruner,
    counted,
    next_draw,
    open_storage,
    open_study,
    own_is_due,
    require_optuna,
    run_next,
    worker_name,
)

SETTINGS = {"configuration": {"model": {"lr": 0.1}}, "seed": 1}
require_optuna()


def objective(trial):
    trial.set_user_attr(WORKER, worker_name())
    x, y = trial.suggest_float("x", -3, 3), trial.suggest_categorical("y", [0, 1, 2])
    for step in range(4):
        trial.report(x * x + y + 4 - step, step)
    return x * x + y


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A database with its tables, which take Optuna longest to make."""
    path = tmp_path_factory.mktemp("empty") / "study.db"
    open_storage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture
def database(empty, tmp_path):
    return shutil.copy(empty, tmp_path)


def opened(path, settings=SETTINGS):
    return open_study(open_storage(f"sqlite:///{path}"), "min", settings)


def run(study, count, function=objective, pruner=None):
    for _ in range(count):
        own = {"x": 1.0, "y": 1} if own_is_due(study) else None
        run_next(study, function, 1, next_draw(study), pruner or build_pruner("none", 4, folds=False), own)


def shown(study):
    return [(trial.params, trial.value) for trial in counted(study)]


@pytest.fixture(scope="module")
def whole(empty, tmp_path_factory):
    study = opened(shutil.copy(empty, tmp_path_factory.mktemp("whole")))
    run(study, 12)
    return study


def test_first_trial_is_the_configuration_as_it_stands(whole):
    assert shown(whole)[0] == ({"x": 1.0, "y": 1}, 2.0)
    assert len({params["x"] for params, _ in shown(whole)}) == 12  # every trial draws anew


@pytest.mark.parametrize("at", [0, 2])
def test_killed_and_resumed_equals_uninterrupted(database, whole, at):
    def killed(trial):
        objective(trial)
        raise KeyboardInterrupt

    study = opened(database)
    run(study, at)
    with pytest.raises(KeyboardInterrupt):
        run(study, 1, killed)
    assert len(counted(study)) == at
    again = opened(database)
    run(again, 12 - at)
    assert shown(again) == shown(whole)
    assert [trial.number for trial in again.trials] == list(range(13))
    assert again.trials[at].state is TrialState.FAIL


def test_trial_of_a_dead_process_is_replaced_and_of_a_living_one_kept(database):
    study = opened(database)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host = worker_name().rpartition(":")[0]
    for process in (int(dead.stdout), os.getppid(), os.getpid()):
        study.ask().set_user_attr(WORKER, f"{host}:{process}")
    study.ask().set_user_attr(WORKER, "elsewhere:1")
    states = [trial.state for trial in opened(database).trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING]


def test_draws_of_killed_trials_are_free_again(database):
    study = opened(database)
    run(study, 3)
    for draw in (3, 4):
        study.ask().set_user_attr(DRAW, draw)
    assert next_draw(study) == 5
    study.tell(3, state=TrialState.FAIL)  # killed
    assert next_draw(study) == 3
    assert next_draw(study, [3, 5]) == 6


def test_failed_trials_count_and_the_study_goes_on(database):
    def failing(trial):
        trial.set_user_attr(ERROR, "out of memory")
        raise RuntimeError("out of memory")

    study = opened(database)
    run(study, 2, failing)
    with pytest.raises(MFMError, match="none of 2 trials gave a value: out of memory"):
        best_trial(study)
    run(study, 2)
    assert len(counted(study)) == 4
    assert best_trial(study).number in (2, 3)


def test_other_settings_are_refused(database):
    opened(database)
    with pytest.raises(ConfigurationError, match=r"another configuration \(model: lr: 0.1 then, 0.2 now\)"):
        opened(database, {**SETTINGS, "configuration": {"model": {"lr": 0.2}}})
    with pytest.raises(ConfigurationError, match="--storage nonsense cannot be opened"):
        open_storage("nonsense")


@pytest.mark.parametrize(("name", "pruned"), [("median", True), ("hyperband", True), ("none", False)])
def test_hopeless_trials_are_pruned(name, pruned):
    reported = []

    def curve(trial):
        level = trial.number if trial.number < 6 else 100.0
        for step in range(12):
            trial.report(level + 1 / (1 + step), step)
            reported.append((trial.number, step))
            if trial.should_prune():
                raise optuna.TrialPruned
        return level

    study = optuna.create_study()
    run(study, 7, curve, build_pruner(name, 12, folds=False))
    assert (study.trials[6].state is TrialState.PRUNED) == pruned
    assert ((6, 11) not in reported) == pruned
    assert best_trial(study).value == 0
