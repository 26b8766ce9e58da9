from pathlib import Path

import numpy as np
import pytest

from mfm.cli import main
from mfm.data.readers import read_corpus

SMALL = ["--samples", "6", "3", "3", "--dims", "text=6", "audio=5", "vision=4"]


@pytest.fixture
def store(tmp_path, capsys):
    assert main(["data", "generate", "--output", str(tmp_path / "corpus.pkl"), *SMALL]) == 0
    assert main(["data", "convert", str(tmp_path / "corpus.pkl"), "--output", str(tmp_path / "corpus.h5")]) == 0
    capsys.readouterr()
    return tmp_path / "corpus.h5"


@pytest.mark.parametrize("form", ["mmsa", "mult"])
def test_export_and_convert_back(store, tmp_path, capsys, form):
    out = tmp_path / "out.pkl"
    assert main(["data", "export", str(store), "--format", form, "--output", str(out)]) == 0
    said = capsys.readouterr()
    assert "train 6, valid 3, test 3 samples" in said.out
    assert said.err == ""
    one, two = read_corpus(store).splits["train"], read_corpus(out).splits["train"]
    assert one.ids == two.ids
    for name, sequences in one.sequences.items():
        np.testing.assert_array_equal(sequences.lengths, two.sequences[name].lengths)
        np.testing.assert_array_equal(sequences.steps(2), two.sequences[name].steps(2))


def test_csd_folder(store, tmp_path, capsys):
    out = tmp_path / "sequences"
    command = ["data", "export", str(store), "--format", "csd", "--output", str(out)]
    assert main(command) == 0
    assert "no times" in capsys.readouterr().out
    assert {"audio.csd", "folds.json", "regression_labels.csd", "text.csd", "vision.csd"} <= {
        path.name for path in out.iterdir()
    }
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    (out / "mine.txt").write_text("keep")
    assert main([*command, "--overwrite"]) == 2
    assert (out / "mine.txt").read_text() == "keep"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "csd", "--target", "labels", "--output", "x"], "--target is for formats"),
        (["--format", "mult", "--target", "rating", "--output", "x.pkl"], "no label array 'rating'"),
        (["--format", "mmsa", "--output", "nowhere/x.pkl"], "create it first"),
        (["--format", "csd", "--output", "nowhere/x"], "create it first"),
    ],
)
def test_mistakes_are_one_sentence(store, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(Path().iterdir())
    assert main(["data", "export", str(store), *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before
