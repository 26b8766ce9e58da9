"""A killed alignment goes on where it was, several processes share one, and the result is always the same."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import h5py
import numpy as np
import pytest
from csd_files import corpus_files

from mfm.data.alignment.align import AlignmentOptions
from mfm.data.alignment.corpus import align_corpus
from mfm.data.alignment.sources import Sources
from mfm.data.alignment.workers import VideoAligner
from mfm.errors import ConfigurationError, DataFormatError, MFMError


@pytest.fixture
def sources(tmp_path):
    files = corpus_files(tmp_path)
    return Sources(files["pivot"], {"x": files["x"], "y": files["y"]}, files["labels"])


def align(sources, name="o", options=None, **more):
    folder = sources.pivot.parent
    return align_corpus(sources, folder / f"{name}.h5", folder / f"{name}.json", options or AlignmentOptions(), **more)


def content(path):
    """Every dataset, byte for byte, and every attribute but the date."""
    found = {}

    def visit(name, item):
        found[name] = dict(item.attrs.items())
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name, "values"] = values.tolist() if values.dtype == object else (str(values.dtype), values.tobytes())

    with h5py.File(path) as file:
        file.visititems(visit)
        found["fingerprint"] = file.attrs["fingerprint"]
    return found


def report(path):
    return json.loads(path.read_text())


def stop_after(count):
    def stop(done, total):
        if done == count:
            raise KeyboardInterrupt

    return stop


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("count", [1, 4, 7])
def test_interrupted_and_resumed(sources, tmp_path, count):
    align(sources, "whole")
    with pytest.raises(KeyboardInterrupt):
        align(sources, progress=stop_after(count))
    assert not (tmp_path / "o.h5").exists()
    assert not (tmp_path / "o.json").exists()
    outcome = align(sources, resume=True)
    assert 1 <= outcome.resumed <= count
    assert content(tmp_path / "o.h5") == content(tmp_path / "whole.h5")
    assert report(tmp_path / "o.json") == report(tmp_path / "whole.json")
    assert not hidden(tmp_path)


def test_finished_videos_are_neither_lost_nor_mixed(sources, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        align(sources, progress=stop_after(3))
    with pytest.raises(ConfigurationError, match=r"3 finished videos.*--resume.*--overwrite"):
        align(sources)
    with pytest.raises(ConfigurationError, match=r"other settings \(reduction\)"):
        align(sources, options=AlignmentOptions(reduction="max"), resume=True)
    os.utime(sources.pivot, ns=(1, 1))
    with pytest.raises(ConfigurationError, match=r"other settings \(pivot\)"):
        align(sources, resume=True)
    assert align(sources, overwrite=True).resumed == 0
    assert not hidden(tmp_path)


def test_files_that_change_meanwhile_are_refused(sources, tmp_path):
    def touch(done, total):
        os.utime(sources.labels, ns=(done, done))

    with pytest.raises(DataFormatError, match=r"changed while they were read: .*labels\.csd"):
        align(sources, progress=touch)
    assert not (tmp_path / "o.h5").exists()
    assert not hidden(tmp_path)


def test_a_damaged_finished_video_is_made_again(sources, tmp_path):
    align(sources, "whole")
    with pytest.raises(KeyboardInterrupt):
        align(sources, progress=stop_after(3))
    one, two, three = sorted((tmp_path / ".o.h5.videos").glob("*.npz"))
    one.write_bytes(one.read_bytes()[:100])
    two.write_bytes(b"")
    damaged = bytearray(three.read_bytes())
    damaged[200] ^= 255
    three.write_bytes(damaged)
    align(sources, resume=True)
    assert content(tmp_path / "o.h5") == content(tmp_path / "whole.h5")


def test_an_error_leaves_nothing(sources, tmp_path):
    with h5py.File(sources.features["y"], "r+") as file:
        del file["some root/data/v4/intervals"]
    with pytest.raises(DataFormatError, match="'v4' has no intervals"):
        align(sources)
    assert not hidden(tmp_path)


def test_several_processes_write_the_same(sources, tmp_path):
    align(sources, "whole")
    align(sources, workers=2)
    assert content(tmp_path / "o.h5") == content(tmp_path / "whole.h5")
    assert report(tmp_path / "o.json") == report(tmp_path / "whole.json")
    with h5py.File(sources.features["y"], "r+") as file:
        del file["some root/data/v4/intervals"]
    with pytest.raises(DataFormatError, match="'v4' has no intervals"):
        align(sources, "broken", workers=2)
    with pytest.raises(ConfigurationError, match="at least 1"):
        align(sources, "none", workers=0)
    assert not hidden(tmp_path)


def test_a_worker_that_is_killed_loses_nothing_that_is_finished(sources, tmp_path, monkeypatch):
    class Pool:
        """Finishes two videos; then the system kills it."""

        def __init__(self, processes, context, start, arguments):
            self.task, self.finished = arguments
            self.left = 2

        def submit(self, function, job):
            future = Future()
            if self.left:
                with VideoAligner(self.task) as aligner:
                    future.set_result(self.finished.save(job.video, aligner.align(job)))
            else:
                future.set_exception(BrokenProcessPool())
            self.left -= self.left > 0
            return future

        def shutdown(self, cancel_futures):
            assert cancel_futures

    align(sources, "whole")
    monkeypatch.setattr("mfm.data.alignment.workers.ProcessPoolExecutor", Pool)
    with pytest.raises(MFMError, match=r"killed, .* go on with --resume and fewer --workers"):
        align(sources, workers=2)
    assert not (tmp_path / "o.h5").exists()
    assert align(sources, resume=True).resumed == 2
    assert content(tmp_path / "o.h5") == content(tmp_path / "whole.h5")
    assert not hidden(tmp_path)


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    """Killed with no chance to clean up whenever a few more videos are finished, until a run gets through."""
    files = corpus_files(tmp_path, videos=300)
    sources = Sources(files["pivot"], {"x": files["x"], "y": files["y"]}, files["labels"])
    align(sources, "whole")
    command = [sys.executable, "-m", "mfm", "data", "align", "--pivot", str(sources.pivot), "--labels",
               str(sources.labels), "--output", str(tmp_path / "o.h5"), "--report", str(tmp_path / "o.json"),
               *(f"--feature={name}={path}" for name, path in sources.features.items()), "--resume"]  # fmt: skip
    draw = np.random.default_rng(0)
    kills = 0
    while True:
        enough = finished(tmp_path) + draw.integers(1, 80)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and finished(tmp_path) < enough:
            time.sleep(0.001)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills >= 2
    assert content(tmp_path / "o.h5") == content(tmp_path / "whole.h5")
    assert not hidden(tmp_path)


def finished(folder):
    try:
        return sum(path.suffix == ".npz" for path in (folder / ".o.h5.videos").iterdir())
    except FileNotFoundError:
        return 0
