"""`mfm robustness`, as a user runs it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from mfm.cli import main


def best_of(run):
    return str(run / "checkpoints" / "best.ckpt")


def rows(folder):
    return list(csv.DictReader((Path(folder) / "robustness.csv").open()))


@pytest.fixture
def refused(capsys, workplace):
    """Run the command, expect a refusal that leaves nothing behind, and return its sentence."""

    def run(*arguments):
        capsys.readouterr()
        status = main(["robustness", *arguments, "--output", "none"])
        assert status in (1, 2)
        assert not Path("none").exists()
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


@pytest.mark.slow
def test_all_protocols_repeat_by_seed(surrogate_run, workplace, capsys):
    best = best_of(surrogate_run)
    runs_of = {"a": ("1", []), "b": ("1", ["--protocols", "random"]), "c": ("2", ["--protocols", "random"])}
    for folder, (seed, options) in runs_of.items():
        arguments = ["--ckpt_path", best, "--output", folder, "--draws", "2", "--seed", seed, *options]
        assert main(["robustness", *arguments]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "c/robustness.json"
    found, again, other = (rows(folder) for folder in "abc")
    assert [row for row in found if row["protocol"] == "random"] == again != other
    assert list(found[0])[:5] == ["protocol", "observed", "level", "draw", "method"]
    assert {row["protocol"] for row in found} == {"subsets", "random", "spans", "steps", "noise"}
    assert {row["method"] for row in found} == {"own", "zero_fill", "mean_fill", "absent", "constant"}
    subsets = [row for row in found if row["protocol"] == "subsets" and row["method"] == "own"]
    assert len(subsets) == 7
    for row in subsets[2:4]:  # the same scores as `mfm test` with the others missing
        missing = sorted({"audio", "text", "vision"} - set(row["observed"].split("+")))
        assert main(["test", "--ckpt_path", best, "--data.missing", json.dumps(missing), "--output", "t.json"]) == 0
        assert float(row["mae"]) == pytest.approx(json.loads(Path("t.json").read_text())["test/mae"], abs=1e-5)
    content = json.loads(Path("a/robustness.json").read_text())
    assert content["seed"] == 1
    assert content["metric"] == "mae"
    assert content["data_fingerprint"]
    joint = [row for row in found if row["protocol"] == "steps" and row["observed"] == "" and row["method"] == "own"]
    heights = {}
    for row in joint:
        heights.setdefault(float(row["level"]), []).append(float(row["mae"]))
    area = next(
        one for one in content["areas"] if (one["protocol"], one["observed"], one["method"]) == ("steps", [], "own")
    )
    expected = np.trapezoid([np.mean(values) for values in heights.values()], list(heights)) / 0.9
    assert area["metrics"]["mae"]["mean"] == pytest.approx(expected, rel=1e-5)
    assert Path("a/robustness.png").read_bytes().startswith(b"\x89PNG")


def test_choices_and_the_default_folder(run):
    options = ["--protocols", "subsets", "--subsets", "text", "vision+audio", "--methods", "absent", "zero_fill"]
    assert main(["robustness", "--ckpt_path", best_of(run), *options, "--split", "valid"]) == 0
    found = rows(run / "robustness_valid")
    assert [(row["observed"], row["method"]) for row in found] == [
        ("text", "absent"),
        ("text", "zero_fill"),
        ("audio+vision", "absent"),
        ("audio+vision", "zero_fill"),
        ("", "constant"),
    ]


def test_a_checkpoint_without_surrogate_says_how_to_train_one(finished_run, refused):
    best = best_of(finished_run)
    sentence = refused("--ckpt_path", best, "--methods", "surrogate")
    assert sentence.endswith(
        f"mfm fit --config {finished_run / 'config.yaml'} --model.surrogate posthoc --model.init_from {best}"
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--subsets", ""], "nothing observed"),
        (["--subsets", "text+audoi"], "audio"),
        (["--subsets", "text", "--data.missing", "[text]"], "nothing observed"),
        (["--protocols", "subset"], "subsets"),
        (["--methods", "zerofill"], "zero_fill"),
        (["--metric", "mea"], "mae"),
        (["--draws", "0"], "at least 1"),
        (["--data.modalities", "[text, pose]"], "pose"),
        (["--protocol", "subsets"], "--protocol"),
        (["--device", "abacus"], "--device"),
    ],
)
def test_refusals(options, named, finished_run, refused):
    assert named in refused("--ckpt_path", best_of(finished_run), *options)


def test_no_checkpoint(refused):
    assert "--ckpt_path" in refused()
