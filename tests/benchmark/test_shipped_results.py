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


def documents_command():
    """The words of the command that made the document."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return shlex.split(next(line for line in text.splitlines() if line.startswith("`mfm ")).strip("`"))


@pytest.mark.skipif(not FOLDERS, reason="no results ship yet")
def test_the_readmes_table_is_what_the_results_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    words = documents_command()
    assert "--readme" in words
    # the document's intervals take a minute, and are checked below; the table has none
    place = words.index("--document")
    assert main([*words[1:place], *words[place + 2 :], "--resamples", "20", "--check"]) == 0


@pytest.mark.slow
@pytest.mark.skipif(not FOLDERS, reason="no results ship yet")
def test_the_documents_command_makes_the_document(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main([*documents_command()[1:], "--check"]) == 0
