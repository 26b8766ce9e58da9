"""The commands of `docs/alignment.md`, run as written: on small synthetic files, and on published ones (slow)."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mfm.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "alignment"))

from csd_files import words_of, write_csd

TEXT = (Path(__file__).parents[2] / "docs" / "alignment.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|python|text)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n", re.MULTILINE)


def steps():
    """(what to run, what is shown of its output), in order; Python has its output in the next block."""
    for (kind, content), (_, following) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if kind == "python":
            yield content, following
        if kind == "console":
            _, *parts = COMMAND.split(content)
            yield from ((f"$ {command}", shown) for command, shown in zip(parts[::2], parts[1::2], strict=True))


def run(step):
    """Run a step in the current folder; returns what it prints."""
    if not step.startswith("$ mfm "):
        return subprocess.run([sys.executable, "-c", step], capture_output=True, text=True, check=True).stdout
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(shlex.split(step.removeprefix("$ mfm ").replace("\\\n", " "))) == 0
    return out.getvalue()


def write_corpus(folder):
    """Files of the names in the walk-through: ten videos, three of them without audio."""
    rng, times = np.random.default_rng(0), np.arange(12.0)[:, None] + [0, 1]
    fine = np.arange(120)[:, None] * 0.1 + [0, 0.1]
    names = [f"v{number}" for number in range(10)]
    (folder / "csd").mkdir(parents=True)
    (folder / "folds").mkdir()
    words = words_of(["sp" if step % 4 == 3 else f"w{step}" for step in range(12)])
    segments = np.add(times[:12:4], [0, 3])
    files = {
        "CMU_MOSI_ModifiedTimestampedWords": dict.fromkeys(names, (times, words)),
        "CMU_MOSI_GloVe50": {name: (times, rng.normal(size=(12, 5))) for name in names},
        "MOSI16_Librosa": {name: (fine, rng.normal(size=(120, 4))) for name in names[:7]},
        "CMU_MOSI_Opinion_Labels": {name: (segments, rng.uniform(-3, 3, size=(3, 1))) for name in names},
    }
    for name, videos in files.items():
        write_csd(folder / "csd" / f"{name}.csd", videos)
    folds = {"train": names[:6], "valid": names[6:8], "test": names[8:]}
    (folder / "folds" / "mosi.json").write_text(json.dumps(folds))


def test_the_commands_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "DATA")
    taken = [step for step, _ in steps()]
    assert len(taken) == 9
    for step in taken:
        run(step)
    assert json.loads(Path("runs/aligned/metrics_test.json").read_text())["samples"] == 6
    assert Path("aligned_50.pkl").is_file()
    assert Path("mosi_csd/words.csd").is_file()


@pytest.mark.slow
@pytest.mark.realdata
def test_outputs_are_shown_as_they_are(data_root, tmp_path, monkeypatch):
    """What training and testing print differs between processors, and is not compared; nor are fingerprints."""
    monkeypatch.chdir(tmp_path)
    Path("DATA").symlink_to(data_root)
    for step, shown in steps():
        printed = run(step)
        if not step.startswith(("$ mfm fit", "$ mfm test")):
            assert plain(printed) == plain(shown)


def plain(text):
    return [re.sub(r"[0-9a-f]{64}", "", line).rstrip() for line in text.strip().splitlines()]
