import json
import os
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mfm.cli import main
from mfm.data.readers import read_corpus

SMALL = ["--samples", "6", "3", "3", "--dims", "text=6", "audio=5", "vision=4"]


@pytest.fixture
def corpus(tmp_path, capsys):
    path = tmp_path / "corpus.pkl"
    assert main(["data", "generate", "--output", str(path), *SMALL]) == 0
    capsys.readouterr()
    return path


def test_inspect_prints_a_table(corpus, capsys):
    assert main(["data", "inspect", str(corpus)]) == 0
    out, err = capsys.readouterr()
    assert "mmsa, aligned" in out
    assert "regression_labels" in out
    assert err == ""


def test_inspect_json(corpus, capsys):
    assert main(["data", "inspect", str(corpus), "--json", "--modalities", "audio"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["splits"]["train"]["modalities"]) == ["audio"]


def test_report_survives_markup_in_names(tmp_path, capsys):
    path = tmp_path / "[bold]x.pkl"
    split = {"[red]m[/x]": np.ones((2, 3, 4)), "labels": [1, 2], "id": ["a[1]", "a[1]"]}
    path.write_bytes(pickle.dumps({"train": split}))
    assert main(["data", "inspect", str(path)]) == 0
    assert "[red]m[/x]" in capsys.readouterr().out


def test_convert_and_verify(corpus, tmp_path, capsys):
    target = tmp_path / "corpus.h5"
    assert main(["data", "convert", str(corpus), "--output", str(target)]) == 0
    assert main(["data", "convert", str(corpus), "--output", str(target)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["data", "convert", str(corpus), "--output", str(target), "--overwrite", "--modalities", "text"]) == 0
    assert list(read_corpus(target).splits["train"].sequences) == ["text"]
    assert main(["data", "verify", str(target)]) == 0
    assert main(["data", "verify", str(target), "--json"]) == 0
    with h5py.File(target, "r+") as file:
        file["splits/train/sequences/text/values"][0, 0] += 1
    capsys.readouterr()
    assert main(["data", "verify", str(target)]) == 1
    assert "damaged" in capsys.readouterr().err


def test_convert_refuses_to_write_over_its_source(corpus, capsys):
    before = corpus.read_bytes()
    assert main(["data", "convert", str(corpus), "--output", str(corpus), "--overwrite"]) == 2
    assert corpus.read_bytes() == before


def test_failed_convert_leaves_nothing(tmp_path, capsys):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"train": os.getcwd}))
    assert main(["data", "convert", str(tmp_path / "bad.pkl"), "--output", str(tmp_path / "x.h5")]) == 1
    assert "getcwd" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["bad.pkl"]


def test_generate(corpus, tmp_path, capsys):
    assert main(["data", "generate", "--output", str(corpus), *SMALL]) == 2
    before = corpus.read_bytes()
    assert main(["data", "generate", "--output", str(corpus), *SMALL, "--seed", "1", "--overwrite"]) == 0
    assert corpus.read_bytes() != before
    folder = tmp_path / "moud"
    sizes = ["--samples", "2", "2", "2", "--steps", "5"]
    for _ in range(2):
        assert main(["data", "generate", "--corpus", "moud", "--output", str(folder), "--overwrite", *sizes]) == 0
    assert len(read_corpus(folder).splits["train"]) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["corpus.pkl", "moud"]
    unlabelled = tmp_path / "new.pkl"
    assert main(["data", "generate", "--output", str(unlabelled), "--unlabelled", *SMALL]) == 0
    assert read_corpus(unlabelled).splits["test"].labels == {}


def test_generate_puts_back_what_it_could_not_replace(corpus, capsys):
    before = corpus.read_bytes()
    options = ["--samples", "-1", "3", "3", "--overwrite"]
    assert main(["data", "generate", "--output", str(corpus), *options]) == 2
    assert corpus.read_bytes() == before
    assert [file.name for file in corpus.parent.iterdir()] == [corpus.name]


def test_generate_never_replaces_a_folder_of_other_things(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["data", "generate", "--corpus", "mmmo", "--output", str(tmp_path), "--overwrite"]) == 2
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["inspect", "nothing.pkl"], 2, "does not exist"),
        (["inspect", "."], 1, "not a folder of MFN files"),
        (["verify", "nothing.h5"], 2, "nothing.h5"),
        (["generate", "--output", "x", "--corpus", "mosii"], 2, "did you mean 'mosi'"),
        (["generate", "--output", "x", "--dims", "text"], 2, "NAME=D"),
        (["generate", "--output", "x", "--dims", "text=0"], 2, "text"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, arguments, status, words):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *arguments]) == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["inspect"], ["align"], ["convert"], ["verify"], ["generate"]])
def test_help_teaches(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(["data", *arguments, "--help"])
    assert caught.value.code == 0
    assert "usage: mfm data" in capsys.readouterr().out


def test_looking_at_a_file_needs_no_torch(corpus):
    code = (
        "import sys; from mfm.cli import main; "
        f"main(['data', 'inspect', {str(corpus)!r}]); "
        "assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
