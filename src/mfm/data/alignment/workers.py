"""Aligning the videos of a corpus one after the other, or several at once in processes of their own."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from typing import NamedTuple

from mfm.data.alignment.align import AlignmentOptions, align_video, check_width
from mfm.data.alignment.csd import ComputationalSequence
from mfm.data.alignment.parts import Aligned, FinishedVideos
from mfm.data.alignment.sources import Sources
from mfm.errors import MFMError

_AHEAD = 4  # videos for each worker that are under way or wait to be written


class WorkerLostError(MFMError):
    """A process was killed from outside; what is finished stays finished."""


class Job(NamedTuple):
    """A video to align."""

    video: str
    split: str


class Task(NamedTuple):
    """What is done with every video.

    Attributes:
        sources: The files.
        dims: Modality -> D.
        options: How to align.
    """

    sources: Sources
    dims: Mapping[str, int]
    options: AlignmentOptions


class VideoAligner:
    """Reads and aligns single videos; a context manager that holds the files open.

    Args:
        task: Which files, and how.
    """

    def __init__(self, task: Task) -> None:
        self._stack = ExitStack()
        sources, self._dims, self._options = task
        with self._stack:
            self._pivot = self._stack.enter_context(ComputationalSequence(sources.pivot))
            self._labels = self._stack.enter_context(ComputationalSequence(sources.labels))
            self._features = {
                name: self._stack.enter_context(ComputationalSequence(sources.features[name]))
                for name in sorted(sources.features)
            }
            self._label_width = self._labels.frames(self._labels.first()).values.shape[1]
            self._stack = self._stack.pop_all()

    def __enter__(self) -> VideoAligner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def align(self, job: Job) -> Aligned:
        """Samples of a video, and what became of everything in it."""
        labels = self._labels.frames(job.video)
        if len(labels):
            check_width(job.video, "labels", labels, self._label_width)
        return align_video(
            job.video,
            job.split,
            self._pivot.words(job.video),
            labels,
            {name: file.frames(job.video) if job.video in file else None for name, file in self._features.items()},
            self._dims,
            self._options,
        )


def aligned_videos(jobs: Sequence[Job], task: Task, finished: FinishedVideos, workers: int) -> Iterator[Aligned]:
    """Align videos in order, each kept in `finished` before it is handed over; those that are there are read.

    Args:
        jobs: The videos.
        task: Which files, and how.
        finished: Where finished videos are kept.
        workers: Number of processes; 1 is this one.

    Raises:
        WorkerLostError: A worker was killed.
        MFMError: What `align_video` refuses.
    """
    if workers > 1:
        yield from _in_processes(jobs, task, finished, workers)
        return
    with VideoAligner(task) as aligner:
        for job in jobs:
            aligned = finished.load(job.video)
            if aligned is None:
                aligned = aligner.align(job)
                finished.save(job.video, aligned)
            yield aligned


def _in_processes(jobs: Sequence[Job], task: Task, finished: FinishedVideos, workers: int) -> Iterator[Aligned]:
    # spawned, since a fork would share HDF5's state with this process
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (task, finished))
    waiting: deque[tuple[Job, Future[None]]] = deque()
    rest = iter(jobs)
    try:
        while True:
            while len(waiting) < _AHEAD * workers and (job := next(rest, None)) is not None:
                waiting.append((job, pool.submit(_align_and_keep, job)))
            if not waiting:
                return
            job, future = waiting.popleft()
            future.result()
            aligned = finished.load(job.video)
            if aligned is None:
                raise MFMError(f"the finished video {job.video!r} cannot be read back; check the disk and start again")
            yield aligned
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker was killed, perhaps for want of memory; go on with --resume and fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker(NamedTuple):
    aligner: VideoAligner
    finished: FinishedVideos


_worker: list[_Worker] = []  # of this process; empty in the one that starts workers


def _start(task: Task, finished: FinishedVideos) -> None:
    _worker.append(_Worker(VideoAligner(task), finished))


def _align_and_keep(job: Job) -> None:
    aligner, finished = _worker[0]
    if finished.load(job.video) is None:
        finished.save(job.video, aligner.align(job))
