"""Where the runs of a suite are carried out: processes of this machine, or dask's workers on any."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from mfm.benchmark.isolation import Task, preload, run_isolated
from mfm.benchmark.records import Record
from mfm.errors import ConfigurationError, MissingDependencyError

Execute = Callable[[Sequence[Task]], Iterator[tuple[Task, Record]]]
"""Carries tasks out and yields each with its record as it ends."""


def processes(jobs: int, modules: Sequence[str] = ()) -> Execute:
    """Run so many tasks at once, each in a process of its own.

    Args:
        jobs: How many at once, >= 1.
        modules: What the processes need imported; it is imported once.
    """

    def execute(tasks: Sequence[Task]) -> Iterator[tuple[Task, Record]]:
        preload(modules)
        ended: queue.SimpleQueue[tuple[Task, Record | BaseException]] = queue.SimpleQueue()
        running: set[Any] = set()
        stopping = threading.Event()

        def started(process: Any) -> None:
            running.add(process)
            if stopping.is_set():
                process.kill()

        def one(task: Task) -> None:
            if stopping.is_set():
                return
            try:
                ended.put((task, run_isolated(task, started)))
            except BaseException as error:  # handed on to whoever waits
                ended.put((task, error))

        pool = ThreadPoolExecutor(jobs)
        try:
            for task in tasks:
                pool.submit(one, task)
            for _ in tasks:
                task, record = ended.get()
                if isinstance(record, BaseException):
                    raise record
                yield task, record
        finally:  # all are through, or we were interrupted
            stopping.set()
            for process in list(running):
                with suppress(ValueError, AttributeError):  # it has ended
                    process.kill()
            pool.shutdown(cancel_futures=True)

    return execute


def dask(jobs: int, scheduler: str | None = None) -> Execute:
    """Run tasks on the workers of dask.distributed, each in a process of its own there.

    A task whose worker is lost is given to another. All machines need the suite's folder and the data under the same
    paths.

    Args:
        jobs: Workers of a cluster on this machine, where no scheduler is given.
        scheduler: Address of a scheduler, e.g. `tcp://10.0.0.1:8786`, or its scheduler file.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "--executor dask needs the distributed package: pip install 'mfm-lightning[dask]'"
        ) from error

    def execute(tasks: Sequence[Task]) -> Iterator[tuple[Task, Record]]:
        with ExitStack() as stack:
            if scheduler is None:
                cluster = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
                client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
            else:
                client = stack.enter_context(_connected(distributed, scheduler))
            of = {client.submit(run_isolated, task, pure=False, retries=3): task for task in tasks}
            for future in distributed.as_completed(list(of)):
                task = of[future]
                error = future.exception()
                lost = {**task.about, "status": "failed", "error": f"its worker was lost: {error}"}
                yield task, lost if error is not None else future.result()

    return execute


def _connected(distributed: Any, scheduler: str) -> Any:
    known = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
    try:
        return distributed.Client(**known, timeout="30s")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--scheduler: no scheduler answers at {scheduler}; check its address") from error
