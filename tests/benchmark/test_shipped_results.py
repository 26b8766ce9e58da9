"""The documents that ship are what the results that ship say."""

import shlex
from pathlib import Path

import pytest

from mfm.benchmark.document import BEGIN
from mfm.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "results.md"
FOLDERS = sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/results/*/results.jsonl"))


def test_all_shipped_results_are_in_the_document():
    assert DOCUMENT.is_file() == bool(FOLDERS)
    text = DOCUMENT.read_text(encoding="utf-8") if FOLDERS else ""
    assert (BEGIN in (ROOT / "README.md").read_text(encoding="utf-8")) == bool(FOLDERS)
    assert not [folder for folder in FOLDERS if folder not in text]


@pytest.mark.slow
@pytest.mark.skipif(not FOLDERS, reason="no results ship yet")
def test_the_documents_command_makes_the_document_and_the_readmes_table(monkeypatch):
    monkeypatch.chdir(ROOT)
    command = next(line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("`mfm "))
    words = shlex.split(command.strip("`"))
    assert "--readme" in words
    assert main([*words[1:], "--check"]) == 0
