"""Trials of one study in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import TYPE_CHECKING, Any

import torch

from mfm.benchmark.running import threads_of
from mfm.cli.tune_trials import TrialCLI, quieten_trials
from mfm.errors import MFMError
from mfm.tuning.objective import Objective, describe
from mfm.tuning.space import SearchSpace
from mfm.tuning.study import (
    ERROR,
    NAME,
    WORKER,
    build_pruner,
    counted,
    fail_abandoned,
    fail_trial,
    next_draw,
    open_storage,
    own_is_due,
    require_optuna,
    run_next,
    running,
    worker_name,
)

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_LOST = 3  # workers that die without having begun a trial, before the study gives up


@dataclass(frozen=True)
class Plan:
    """What a worker needs to know to run trials.

    Attributes:
        arguments: Options of `mfm fit`.
        config: The configuration that trials vary.
        space: What they vary.
        own: Stored parameters of the configuration as it stands.
        storage: URL of the database.
        trials: Number of trials of the study.
        seed: Its seed.
        folds: Folds over videos; 0 for none.
        pruner: Name of the pruner.
        steps: Largest number of steps that a trial reports.
    """

    arguments: list[str]
    config: dict[str, Any]
    space: SearchSpace
    own: dict[str, Any]
    storage: str
    trials: int
    seed: int
    folds: int
    pruner: str
    steps: int


class Runner:
    """Runs trials of a plan, one at a time, in this process.

    Args:
        plan: The plan.
        cli: Options already parsed.
        storage: The study's database.
    """

    def __init__(self, plan: Plan, cli: TrialCLI, storage: RDBStorage) -> None:
        import optuna

        self.plan, self.storage = plan, storage
        self.study = optuna.load_study(study_name=NAME, storage=self.storage)
        self.pruner = build_pruner(plan.pruner, plan.steps, folds=plan.folds > 0)
        self.objective = Objective(cli.build, plan.config, plan.space, folds=plan.folds, seed=plan.seed)

    def left(self, workers: Collection[str] = ()) -> int:
        """Trials that nobody has begun or been told to begin.

        Args:
            workers: Names of workers of this study that have one to do, begun or not.
        """
        elsewhere = set(running(self.study)) - set(workers)
        return self.plan.trials - len(counted(self.study)) - len(elsewhere) - len(workers)

    def run(self, draw: int, own: bool) -> None:
        """Run one more trial.

        Args:
            draw: Number of the draw.
            own: Whether it has the configuration as it stands.
        """
        plan = self.plan
        run_next(self.study, self.objective, plan.seed, draw, self.pruner, plan.own if own else None)


def run_here(runner: Runner, announce: Callable[[], None]) -> None:
    """Run what is left of a study in this process.

    Args:
        runner: Its trials.
        announce: Called after each.
    """
    while runner.left() > 0:
        runner.run(next_draw(runner.study), own_is_due(runner.study))
        announce()


def _work(plan: Plan, threads: int, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    torch.set_num_threads(threads)
    require_optuna()
    try:
        runner = Runner(plan, TrialCLI(plan.arguments), open_storage(plan.storage))
        quieten_trials()
        while True:
            runner.run(*connection.recv())
            connection.send(None)
    except EOFError:  # the parent is gone
        return
    except Exception as error:
        connection.send(describe(error))


def run_in_processes(runner: Runner, jobs: int, announce: Callable[[], None]) -> None:
    """Run what is left of a study in worker processes; one that dies fails its trial and is replaced.

    Args:
        runner: The study, as this process sees it.
        jobs: Trials at once.
        announce: Called after each trial.

    Raises:
        MFMError: A worker cannot start.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mfm.cli.tune_workers"])  # torch and Lightning are imported once for all workers
    threads = threads_of(jobs)
    workers: dict[Connection, ForkServerProcess] = {}
    draws: dict[Connection, int] = {}
    lost = 0

    def left() -> int:
        return runner.left([_name(process) for process in workers.values()])

    def begin(connection: Connection, process: ForkServerProcess) -> None:
        # of several that start together, one has the configuration as it stands: the next might ask for what is due
        # before the first has begun
        draws[connection] = next_draw(runner.study, [draws[other] for other in workers])
        connection.send((draws[connection], not workers and own_is_due(runner.study)))
        workers[connection] = process

    def start() -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(runner.plan, threads, theirs), daemon=True)
        process.start()
        theirs.close()
        begin(ours, process)

    try:
        while len(workers) < jobs and left() > 0:
            start()
        while workers:
            for connection in [found for found in wait(list(workers)) if isinstance(found, Connection)]:
                process = workers.pop(connection)
                if _trial_ended(connection):
                    announce()
                    if left() > 0:
                        begin(connection, process)
                    else:
                        process.kill()
                    continue
                process.join()
                lost += not _fail_lost(runner, process)
                if lost >= _LOST:
                    raise MFMError(f"{lost} processes ended before a trial, the last with exit code {process.exitcode}")
                announce()
                if left() > 0:
                    start()
    finally:
        for process in workers.values():
            process.kill()  # Lightning would answer a request to end with the end of a batch
            process.join()
        fail_abandoned(runner.study)


def _name(process: ForkServerProcess) -> str:
    return worker_name(process.pid)


def _trial_ended(connection: Connection) -> bool:
    """Whether a worker reports the end of a trial; False when the worker is dead.

    Raises:
        MFMError: It could not start.
    """
    try:
        problem = connection.recv()
    except (EOFError, ConnectionResetError):
        return False
    if problem is not None:
        raise MFMError(problem)
    return True


def _fail_lost(runner: Runner, process: ForkServerProcess) -> bool:
    """Fail the trial of a worker that died, which counts: what killed it (memory, mostly) would kill it again."""
    for trial in runner.study.get_trials(deepcopy=False):
        if trial.state.name == "RUNNING" and trial.user_attrs.get(WORKER) == _name(process):
            error = f"its process was ended (exit code {process.exitcode})"
            runner.storage.set_trial_user_attr(trial._trial_id, ERROR, error)
            fail_trial(runner.study, trial.number)
            return True
    return False
