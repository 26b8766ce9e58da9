"""Finished videos of an alignment that is under way, so that a killed one goes on where it was.

A folder beside the store to be, `.<store>.videos`, holds one file for each finished video and the settings they were
made with. It goes when the store is whole, or when an error ends the work; a kill leaves it.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mfm.data.alignment.offsets import Offset
from mfm.data.alignment.report import SegmentReport, Tally, VideoReport
from mfm.data.alignment.rows import RowFit
from mfm.data.store_stream import WordSample
from mfm.errors import ConfigurationError
from mfm.files import whole_file, write_text

Aligned = tuple[list[WordSample], VideoReport]
_SETTINGS = "settings.json"


class FinishedVideos:
    """The folder of finished videos.

    Args:
        output: The store to be.
        report: The report to be.
        settings: Everything that the samples depend on, as JSON has it; videos made with others are of no use.
    """

    def __init__(self, output: Path, report: Path, settings: Mapping[str, Any]) -> None:
        self.folder = output.with_name(f".{output.name}.videos")
        self._settings = json.dumps(settings, sort_keys=True, indent=1)
        self._targets = (output, report)

    def start(self, *, resume: bool, overwrite: bool) -> int:
        """Make the folder, or take the one that is there.

        Args:
            resume: Keep what an earlier run finished.
            overwrite: Discard it.

        Returns:
            Videos that are finished.

        Raises:
            ConfigurationError: There are finished videos and neither is asked for, or their settings are others.
        """
        there = sorted(self.folder.glob("*.npz")) if self.folder.is_dir() else []
        if there and not (resume or overwrite):
            raise ConfigurationError(
                f"{self.folder} holds {len(there)} finished videos of an alignment that was stopped; go on with "
                "--resume, or begin again with --overwrite"
            )
        if there and resume:
            self._check_settings()
            self._remove_half_written()
            return len(there)
        if self.folder.is_dir():
            self._remove_half_written()
        self.discard()
        write_text(self.folder / _SETTINGS, self._settings)
        return 0

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, video: str, aligned: Aligned) -> None:
        """Keep a finished video; the file appears when it is whole."""
        samples, report = aligned
        arrays = {"about": _bytes({"samples": [_about(one) for one in samples], "report": report.to_json()})}
        if samples:
            arrays["intervals"] = np.concatenate([one.intervals for one in samples])
            arrays["labels"] = np.stack([one.labels for one in samples])
            for number, name in enumerate(samples[0].steps):
                arrays[f"steps_{number}"] = np.concatenate([one.steps[name] for one in samples])
                arrays[f"observed_{number}"] = np.concatenate([one.observed[name] for one in samples])
        packed = io.BytesIO()
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        with whole_file(self._file(video), durable=False) as temporary:  # `load` notices what a power cut damaged
            temporary.write_bytes(packed.getbuffer())

    def load(self, video: str) -> Aligned | None:
        """A finished video; None where there is none, or a power cut left a damaged one."""
        try:
            with np.load(self._file(video)) as stored:
                about = json.loads(stored["about"].tobytes())
                arrays = {name: stored[name] for name in stored.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            self._file(video).unlink()
            return None
        return _samples(about["samples"], arrays), _report(about["report"])

    def _file(self, video: str) -> Path:
        # any name is a name of a video, not of a file
        return self.folder / f"{hashlib.sha256(video.encode()).hexdigest()[:32]}.npz"

    def _remove_half_written(self) -> None:
        """Remove what a killed run was writing."""
        beside = [path for target in self._targets for path in target.parent.glob(f".{target.name}.*.part")]
        for leftover in [*self.folder.glob(".*.part"), *beside]:
            leftover.unlink(missing_ok=True)

    def _check_settings(self) -> None:
        path = self.folder / _SETTINGS
        then: Any = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        now = json.loads(self._settings)
        changed = [key for key in now if then.get(key) != now[key]]
        if changed:
            raise ConfigurationError(
                f"the alignment that was stopped had other settings ({', '.join(changed)}); give the same ones with "
                "--resume, or begin again with --overwrite"
            )


def _bytes(content: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(json.dumps(content).encode(), dtype=np.uint8)


def _about(sample: WordSample) -> dict[str, Any]:
    return {"id": sample.id, "words": sample.words, "lengths": {k: len(v) for k, v in sample.steps.items()}}


def _samples(about: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[WordSample]:
    samples = []
    word, row = 0, dict.fromkeys(about[0]["lengths"], 0) if about else {}
    for index, one in enumerate(about):
        steps, observed = {}, {}
        for number, (name, length) in enumerate(one["lengths"].items()):
            rows = slice(row[name], row[name] + length)
            steps[name], observed[name] = arrays[f"steps_{number}"][rows], arrays[f"observed_{number}"][rows]
            row[name] += length
        count = len(one["words"])
        times = arrays["intervals"][word : word + count]
        word += count
        samples.append(WordSample(one["id"], tuple(one["words"]), times, arrays["labels"][index], steps, observed))
    return samples


def _report(stored: dict[str, Any]) -> VideoReport:
    stored["words"], stored["segments"] = Tally(**stored["words"]), Tally(**stored["segments"])
    stored["features"] = {name: Tally(**tally) for name, tally in stored["features"].items()}
    stored["samples"] = [SegmentReport(**one) for one in stored["samples"]]
    stored["invalid_intervals"] = [tuple(one) for one in stored["invalid_intervals"]]
    stored["offsets"] = {name: Offset(**one) for name, one in stored["offsets"].items()}
    stored["rows"] = None if stored["rows"] is None else RowFit(**stored["rows"])
    return VideoReport(**stored)
