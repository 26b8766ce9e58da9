"""`mfm data align` as it is typed."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mfm.cli import main
from mfm.data.store import read_store, verify_store

sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "alignment"))

from csd_files import corpus_files

FOLDS = {"train": ["v0", "v1", "v2"], "valid": ["v3"], "test": ["v4", "v5"]}


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus_files(tmp_path)
    Path("folds.json").write_text(json.dumps(FOLDS))
    files = ["--pivot", "words.csd", "--feature", "x=x.csd", "--feature", "y=y.csd", "--labels", "labels.csd"]
    return ["data", "align", *files, "--folds", "folds.json", "--output", "o.h5"]


def test_store_report_and_summary(arguments, capsys):
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "train 9, valid 3, test 6 samples" in out
    assert "not_in_labels 13" in out
    assert "o.report.json" in out
    assert json.loads(Path("o.report.json").read_text())["totals"]["segments"]["used"] == 18
    assert verify_store("o.h5").ok
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    options = ["--reduce", "last", "--membership", "overlap", "--pauses", "--max-length", "2", "--report", "r.json"]
    assert main([*arguments, "--overwrite", *options]) == 0
    assert read_store("o.h5").splits["train"].raw_text[0] == "w0 w1"
    assert json.loads(Path("r.json").read_text())["options"]["pauses"] == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--feature", "x=y.csd"], "--feature x is given twice"),
        (["--feature", "y.csd"], "NAME=FILE"),
        (["--max-length", "0"], "must be at least 1"),
        (["--output", "words.csd", "--overwrite"], "is a file that is read"),
        (["--folds", "nothing.json"], "no such file"),
        (["--labels", "nothing.csd"], "no such file"),
        (["--output", "."], "is a folder"),
        (["--label-columns", "labels=1-0"], "lower end of a range first"),
        (["--unaligned", "--max-frames", "x=2", "x=3"], "each name once"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(arguments, capsys, more, words):
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert main([*arguments, *more]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_frames_alone_need_no_words(arguments, capsys):
    every_word = ["sp", *(f"w{number}" for number in range(13))]
    assert main([*arguments, "--unaligned", "--wordless", "keep", "--pauses", *every_word]) == 0
    assert "x: 0.0% of 0 steps have a frame" in capsys.readouterr().out


def test_a_full_disk_leaves_nothing(arguments):
    before = sorted(Path().iterdir())
    limit = 8000  # bytes that the system lets a file have
    ran = subprocess.run(
        [sys.executable, "-m", "mfm", *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ran.returncode == 1
    assert "cannot write" in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_inspect_shows_a_sequence_and_its_metadata(arguments, capsys):
    assert main(["data", "inspect", "words.csd"]) == 0
    out = capsys.readouterr().out
    assert "'some root', 7 videos\n91 rows in all; the first video has words of shape (13, 1)" in out
    assert "md5: asdf" in out
    assert main(["data", "inspect", "x.csd", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["videos"], found["rows"], found["shape"], found["type"]) == (6, 78, [13, 3], "float32")
    assert main([*arguments]) == 0
    capsys.readouterr()
    assert main(["data", "inspect", "o.h5"]) == 0
    assert "store, aligned" in capsys.readouterr().out


@pytest.fixture
def mosi(data_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    csd = data_root / "csd"
    pivot, labels = csd / "CMU_MOSI_ModifiedTimestampedWords.csd", csd / "CMU_MOSI_Opinion_Labels.csd"
    files = ["--pivot", pivot, "--labels", labels, "--feature", f"text={csd / 'CMU_MOSI_GloVe50.csd'}"]
    return list(map(str, ["data", "align", *files, "--folds", data_root / "folds" / "mosi.json", "--output", "o.h5"]))


@pytest.mark.realdata
def test_all_of_mosi(mosi, capsys):
    assert main(mosi) == 0
    report = json.loads(Path("o.report.json").read_text())
    totals = report["totals"]
    assert (totals["segments"]["seen"], totals["words"]["seen"]) == (2199, 51056)
    assert totals["features"]["text"]["seen"] == 51056
    assert totals["samples"] == {"train": 1282, "valid": 229, "test": 686}
    # one segment has no length, the other 90 ms that hold no word's midpoint
    dropped = {name: why for video in report["videos"].values() for name, why in video["dropped_segments"].items()}
    assert dropped == {"2WGyTLYerpo$_$43": "no_words", "VCslbP0mgZI$_$0": "no_words"}
    assert totals["observed"] == {"text": sum(totals["steps"].values())}
    assert verify_store("o.h5").ok


@pytest.mark.realdata
def test_videos_that_a_file_lacks(mosi, data_root):
    csd = data_root / "csd"
    more = [f"--feature=audio={csd / 'MOSI16_Librosa.csd'}", f"--feature=vision={csd / 'MOSI16_FaceGeometry.csd'}"]
    assert main([*mosi, *more]) == 0
    report = json.loads(Path("o.report.json").read_text())
    assert report["totals"]["videos"] == {"train": 52, "valid": 10, "test": 31}
    assert sum(len(video["absent"]) for video in report["videos"].values()) == 2 * 77
    assert main([*mosi, *more, "--require-all", "--overwrite"]) == 0
    report = json.loads(Path("o.report.json").read_text())
    assert report["totals"]["videos"] == {"train": 15, "valid": 1, "lacks_feature": 77}
    assert sum(len(split) for split in read_store("o.h5").splits.values()) == report["totals"]["segments"]["used"]
