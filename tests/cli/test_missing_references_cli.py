"""Every configuration of the references for missing modalities, and `mfm robustness --compare` of them."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.data.synthetic import write_corpus

CONFIGS = [name for name in shipped_configs() if name.startswith("missing/")]
LONGER = {"missing/discriminative.yaml": ("--trainer.max_epochs", "4", "--model.lr", "0.05")}
QUICK = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of mosi.yaml, and one of every reference: those that need it start from it."""
    folder = tmp_path_factory.mktemp("runs")
    write_corpus("mosi", folder / "mosi.pkl", samples=(10, 6, 7), seed=4)
    for name in ("mosi.yaml", *CONFIGS):
        options = ["--config", name, "--data.path", str(folder / "mosi.pkl"), "--data.max_lengths", "5"]
        if "init_from" in yaml.safe_load(shipped_configs()[name].read_text())["model"]["init_args"]:
            options += ["--model.init_from", checkpoint(folder, "mosi")]
        assert main(["fit", *options, "--run_dir", str(folder / Path(name).stem), *QUICK, *LONGER.get(name, ())]) == 0
    return folder


def checkpoint(runs, name):
    return str(runs / name / "checkpoints" / "best.ckpt")


def rows(folder):
    return list(csv.DictReader((Path(folder) / "robustness.csv").open()))


def test_they_differ_from_mosi_in_the_reference_alone():
    mosi = yaml.safe_load(shipped_configs()["mosi.yaml"].read_text())
    assert {Path(name).stem for name in CONFIGS} == {"authors_surrogate", "discriminative", "generative"}
    for name in CONFIGS:
        config = yaml.safe_load(shipped_configs()[name].read_text())
        assert {key: config[key] for key in config if key != "model"} == {k: mosi[k] for k in mosi if k != "model"}
        options = {k: v for k, v in config["model"]["init_args"].items() if not k.startswith(("reference", "init"))}
        if name != "missing/discriminative.yaml":
            assert options == mosi["model"]["init_args"]
        else:
            assert options.items() <= mosi["model"]["init_args"].items()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "authors" in name else []) for name in CONFIGS]
)
def test_scores_with_and_without_text(name, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = checkpoint(runs, Path(name).stem)
    assert main(["test", "--ckpt_path", best, "--output", "full.json"]) == 0
    assert main(["test", "--ckpt_path", best, "--data.missing", "[text]", "--output", "lacking.json"]) == 0
    full, lacking = (json.loads(Path(file).read_text()) for file in ("full.json", "lacking.json"))
    assert full["test/mae"] != lacking["test/mae"]
    assert lacking["test/loss"] == pytest.approx(lacking["test/mae"], rel=1e-5)  # nothing else to compare with


def test_a_checkpoint_has_every_subset_as_it_was_best(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    epochs = list(csv.DictReader((runs / "discriminative" / "metrics.csv").open()))
    best = {
        key: min(float(row[key]) for row in epochs if row[key]) for key in epochs[0] if key.startswith("val/subset/")
    }
    assert len(best) == 7
    chosen = {key: [row[key] and float(row[key]) for row in epochs].index(value) for key, value in best.items()}
    assert len(set(chosen.values())) > 1  # not all from one epoch
    assert main(["validate", "--ckpt_path", checkpoint(runs, "discriminative"), "--output", "v.json"]) == 0
    scores = json.loads(Path("v.json").read_text())
    assert {key: scores[key] for key in best} == pytest.approx(best, rel=1e-5)
    fitted = json.loads((runs / "discriminative" / "metrics_fit.json").read_text())
    assert fitted["best/val/best_of_subsets"] == pytest.approx(sum(best.values()) / 7, rel=1e-5)


@pytest.mark.slow
def test_comparisons_are_scored_as_they_would_be_alone(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compared = [f"--compare={Path(name).stem}={checkpoint(runs, Path(name).stem)}" for name in CONFIGS]
    options = ["--protocols", "subsets", "steps", "--draws", "1", "--methods", "absent", "mean_fill", "--output"]
    assert main(["robustness", "--ckpt_path", checkpoint(runs, "mosi"), *options, "all", *compared]) == 0
    names = {Path(name).stem for name in CONFIGS}
    together = rows("all")
    assert {row["method"] for row in together} == {"absent", "mean_fill", "constant", *names}
    assert {row["method"] for row in together if row["protocol"] == "steps"} == {"absent", *names}
    content = json.loads(Path("all/robustness.json").read_text())
    assert names <= content["methods"].keys()
    options = ["--protocols", "subsets", "steps", "--draws", "1", "--methods", "own", "--output", "alone"]
    assert main(["robustness", "--ckpt_path", checkpoint(runs, "discriminative"), *options]) == 0
    place = ("protocol", "observed", "level", "draw", "mae")
    own = [tuple(row[key] for key in place) for row in rows("alone") if row["method"] == "own"]
    assert own == [tuple(row[key] for key in place) for row in together if row["method"] == "discriminative"]
    full = {row["method"]: row["mae"] for row in together if row["observed"] == "audio+text+vision"}
    assert full["absent"] == full["generative"] == full["authors_surrogate"] != full["discriminative"]


@pytest.fixture(scope="module")
def others(runs):
    """Runs that cannot be compared with those of `runs`."""
    shared = ["--config", "demo.yaml", "--data.max_lengths", "5", *QUICK]
    write_corpus("mosi", runs / "other.pkl", samples=(8, 4, 4), seed=5)
    variants = {
        "other_file": ["--data.path", str(runs / "other.pkl")],
        "two": ["--data.path", str(runs / "mosi.pkl"), "--data.modalities", "[text, audio]"],
        "corpus": ["--data.path", str(runs / "mosi.pkl"), "--data", "AffectDataModule", "--data.corpus", "mosei"],
    }
    for name, options in variants.items():
        assert main(["fit", *shared, *options, "--run_dir", str(runs / name)]) == 0
    return runs


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("x={other_file}", "other data"),
        ("x={two}", "modalities audio (5), text (768)"),
        ("x={corpus}", "corpus 'mosei', not 'mosi'"),
        ("{two}", "NAME=CHECKPOINT"),
        ("own={mosi}", "'own' is taken"),
        ("x=none.ckpt", "--compare x: no such file: none.ckpt"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(given, named, others, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {name: checkpoint(others, name) for name in ("mosi", "other_file", "two", "corpus")}
    arguments = ["--ckpt_path", places["mosi"], "--compare", given.format(**places), "--output", "none"]
    capsys.readouterr()
    assert main(["robustness", *arguments]) == 2
    assert named in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
