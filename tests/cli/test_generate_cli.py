"""`mfm generate`, as a user runs it, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from mfm.cli import main as mfm
from mfm.cli.generate import main as generate
from mfm.data.readers import read_corpus
from mfm.data.store import verify_store
from mfm.data.synthetic import write_corpus
from mfm.errors import MFMError

FAST = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("generate")
    for corpus, config, options in (
        ("mosi", "demo.yaml", ()),
        ("youtube", "demo.yaml", ("--data", "YouTubeDataModule")),
    ):
        path = place / corpus
        write_corpus(corpus, path if corpus == "youtube" else path.with_suffix(".pkl"), samples=(40, 12, 14), seed=3)
        data = path if corpus == "youtube" else path.with_suffix(".pkl")
        shared = ["--config", config, *options, "--data.path", str(data), "--data.max_lengths", "6", *FAST]
        assert mfm(["fit", *shared, "--run_dir", str(place / f"run_{corpus}")]) == 0
    return place


def best(folder, corpus="mosi"):
    return str(folder / f"run_{corpus}/checkpoints/best.ckpt")


@pytest.mark.parametrize(
    ("mode", "options", "samples"),
    [("swap", ["--count", "9"], 9), ("prior", ["--count", "11"], 11), ("traverse", ["--count", "1", "--steps", "3"], 3),
     ("interpolate", ["--count", "2", "--steps", "2"], 4)],
)  # fmt: skip
def test_each_mode_writes_a_store_that_the_model_tests_on(
    mode, options, samples, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    ask = ["--ckpt_path", best(folder), "--mode", mode, *options]
    assert generate([*ask, "--output", "g.h5"]) == 0
    out = capsys.readouterr().out
    assert out.strip().splitlines()[-3:] == ["g.h5", "g.png", "g.json"]
    assert sorted(file.name for file in Path().iterdir()) == ["g.h5", "g.json", "g.png"]
    assert verify_store("g.h5").ok
    split = read_corpus("g.h5").splits["test"]
    source = read_corpus(folder / "mosi.pkl").splits["test"]
    assert len(split) == len(set(split.ids)) == samples
    assert all(one.startswith(f"{mode}[") for one in split.ids)
    for name, sequences in split.sequences.items():
        assert sequences.dim == source.sequences[name].dim
        assert all(np.isfinite(sequences.steps(place)).all() for place in range(samples))
        assert sequences.lengths.max() <= 6
    found = json.loads(Path("g.json").read_text())
    assert set(found["scores"]) == {"head on the code", "own head", "independent ridge", "constant"}
    assert set(found["scores"]["own head"]["real"]) == {"mae", "corr"}
    assert ("prior" in found) == (mode == "prior")
    assert ("N(0, I)" in out or "too few" in out) == (mode == "prior")
    assert ("style_label" in found["scores"]["own head"]) == (mode == "swap")
    if mode == "traverse":
        assert np.diff(found["walk"]["read"]["head on the code"]).shape == (2,)
    first = Path("g.json").read_text()
    assert generate([*ask, "--output", "g.h5"]) == 0  # repeatable, and replaces what was there
    assert Path("g.json").read_text() == first


def test_the_model_tests_on_the_store_as_the_scores_say(folder, tmp_path, monkeypatch, capsys):
    """Same samples, labels and units."""
    monkeypatch.chdir(tmp_path)
    assert generate(["--ckpt_path", best(folder), "--mode", "swap", "--count", "12", "--output", "g.h5"]) == 0
    found = json.loads(Path("g.json").read_text())["scores"]["own head"]["generated"]
    capsys.readouterr()
    assert mfm(["test", "--ckpt_path", best(folder), "--data.path", "g.h5", *FAST[2:]]) == 0
    tested = json.loads(Path(capsys.readouterr().out.strip().splitlines()[-1]).read_text())
    assert tested["test/mae"] == pytest.approx(found["mae"], rel=1e-4)


def test_named_samples_give_label_lengths_and_the_rest_of_the_style(folder, tmp_path):
    source = read_corpus(folder / "mosi.pkl").splits["test"]
    content, style = source.ids[2], source.ids[5]
    options = ["--content", content, "--style", style, "--output", str(tmp_path / "g.h5")]
    assert generate(["--ckpt_path", best(folder), "--mode", "swap", *options]) == 0
    split = read_corpus(tmp_path / "g.h5").splits["test"]
    assert split.ids == (f"swap[content={content},style={style}]",)
    assert split.labels["regression_labels"][0] == pytest.approx(source.labels["regression_labels"][2])
    for name, sequences in split.sequences.items():
        assert sequences.lengths[0] == min(6, source.sequences[name].lengths[5])


def test_classes(folder, tmp_path):
    output = tmp_path / "g.h5"
    assert generate(["--ckpt_path", best(folder, "youtube"), "--mode", "traverse", "--output", str(output)]) == 0
    assert set(json.loads(output.with_suffix(".json").read_text())["scores"]["own head"]["generated"]) == {"acc"}
    labels = read_corpus(output).splits["test"].labels
    assert np.isin(next(iter(labels.values())), (0, 1, 2)).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "--mode"),
        (["--mode", "swop"], "did you mean 'swap'"),
        (["--mode", "swap", "--count", "0"], "--count is 0"),
        (["--mode", "traverse", "--steps", "1"], "--steps is 1"),
        (["--mode", "prior", "--style", "a"], "--style means nothing"),
        (["--mode", "swap", "--content", "nobody"], "--content"),
        (["--mode", "swap", "--count", "9999"], "more than the"),
        (["--mode", "traverse", "--along", "sentimnt"], "did you mean 'sentiment'"),
        (["--mode", "swap", "--output", "g.csv"], ".h5"),
        (["--mode", "swap", "--output", "nowhere/g.h5"], "does not exist"),
        (["--mode", "swap", "--seed", "-1"], "--seed"),
    ],
)
def test_refusals(options, named, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MFMError) as raised:
        generate(["--ckpt_path", best(folder), *options])
    assert raised.value.exit_status == 2
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
