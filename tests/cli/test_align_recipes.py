"""The shipped recipes and `--config` of `mfm data align`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.data.store import read_store
from mfm.datamodules import MOSEIDataModule, MOSIDataModule, POMDataModule

sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "alignment"))

from csd_files import words_of, write_csd

RECIPES = {
    "align-mosi.yaml": (MOSIDataModule, 1),
    "align-mosei.yaml": (MOSEIDataModule, 7),
    "align-pom.yaml": (POMDataModule, 17),
}
FOLDS = {"train": ["a", "b"], "valid": ["c"], "test": ["d"]}


def test_every_recipe_is_tested():
    assert {name for name in shipped_configs() if name.startswith("align-")} == set(RECIPES)


def write_corpus(recipe, width):
    """Files of the names in a recipe: four videos of two segments of three words, or of one segment (POM)."""
    content = yaml.safe_load(shipped_configs()[recipe].read_text())
    times, rng = np.arange(6.0)[:, None] + [0, 1], np.random.default_rng(0)
    segments = np.array([[0.0, 6.0]] if width == 17 else [[0.0, 3.0], [3.0, 6.0]])
    videos = [video for names in FOLDS.values() for video in names]
    write_csd(content["pivot"], {video: (times, words_of(["a", "b", "sp", "c", "d", "e"])) for video in videos})
    for path in content["feature"].values():
        write_csd(path, {video: (times, rng.normal(size=(6, 4))) for video in videos})
    ratings = {video: (segments, rng.uniform(1, 3, size=(len(segments), width))) for video in videos}
    write_csd(content["labels"], ratings)
    Path("folds.json").write_text(json.dumps(FOLDS))
    return content, ratings


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_aligns_and_its_data_module_opens_the_store(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, width = RECIPES[recipe]
    content, ratings = write_corpus(recipe, width)
    assert main(["data", "align", "--config", recipe, "--folds", "folds.json", "--output", "o.h5"]) == 0
    train = read_store("o.h5").splits["train"]
    assert set(train.sequences) == set(content["feature"])
    labels = np.concatenate([ratings[video][1] for video in FOLDS["train"]])
    if width == 7:
        np.testing.assert_array_equal(train.labels["labels"], labels[:, :1])
        np.testing.assert_array_equal(train.labels["emotions"], labels[:, 1:])
    else:
        np.testing.assert_array_equal(train.labels["labels"], labels)
    data = module(path="o.h5", batch_size=2)
    data.setup("fit")
    assert len(data.train_dataloader()) == (1 if width == 17 else 2)


def test_flags_win_over_the_file_and_later_files_over_earlier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus("align-mosi.yaml", 1)
    write_csd("other.csd", {"a": (np.array([[0.0, 9.0]]), np.ones((1, 2)))})
    Path("mine.yaml").write_text("max_length: 2\noverwrite: true\nrequire-all: false\nfeature: {vision: other.csd}\n")
    command = ["data", "align", "--config", "align-mosi.yaml", "--config=mine.yaml", "--output", "o.h5"]
    assert main([*command, "--folds", "folds.json", "--feature", "audio=other.csd", "--max-length", "1"]) == 0
    report = json.loads(Path("o.report.json").read_text())
    assert report["options"]["max_length"] == 1
    assert report["dims"] == {"audio": 2, "text": 4, "vision": 2}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("feature: {text: a.csd, text: b.csd}", "'text' is given twice"),
        ("reduce: mean\nreduce: max", "'reduce' is given twice"),
        ("reduction: mean", "unknown option 'reduction': did you mean 'reduce'?"),
        ("- mean", "no mapping of options"),
        ("a: [", "not readable YAML"),
        ("label_columns: {labels: one}\n", "--label-columns takes NAME=COLUMNS"),
        ("label_columns: {labels: 0-9}\n", "'labels' is to have column 9, counted from 0, but"),
    ],
)
def test_mistakes_in_the_file_are_one_sentence(content, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_corpus("align-mosi.yaml", 1)
    Path("mine.yaml").write_text(content)
    before = sorted(tmp_path.iterdir())
    command = ["data", "align", "--config", "align-mosi.yaml", "--config", "mine.yaml", "--output", "o.h5"]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_no_such_recipe(capsys):
    assert main(["data", "align", "--config", "align-mosy.yaml", "--output", "o.h5"]) == 2
    assert "did you mean 'align-mosi.yaml'" in capsys.readouterr().err
