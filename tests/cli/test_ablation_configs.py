"""Every configuration of the ablations, from a generated file to test scores through the command line."""

import json
from pathlib import Path

import h5py
import pytest
import torch
import yaml

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.data.synthetic import write_corpus
from mfm.models.variants import LAYOUTS

ABLATIONS = [name for name in shipped_configs() if name.startswith("ablations/")]
QUICK = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.max_lengths", "6")
TWO_STAGE = "ablations/two_stage_beta_vae.yaml"
FAST = ("ablations/m_a.yaml", "ablations/mfm.yaml", "ablations/kl.yaml")  # no joint factor, all, variational
VARIATIONAL = {"ablations/kl.yaml", "ablations/beta_kl.yaml", TWO_STAGE}


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    """A small file with the structure of MMSA's MOSI."""
    path = tmp_path_factory.mktemp("data") / "mosi.pkl"
    write_corpus("mosi", path, samples=(8, 5, 5), seed=4)
    return path


def setting(name, key):
    return yaml.safe_load(shipped_configs()[name].read_text())["model"]["init_args"].get(key)


def test_every_rung_is_there_and_they_differ_in_their_factors_alone():
    rungs = {setting(name, "variant"): name for name in ABLATIONS if name not in VARIATIONAL}
    assert set(rungs) == set(LAYOUTS)
    mosi = yaml.safe_load(shipped_configs()["mosi.yaml"].read_text())
    own = ("variant", "z_shared", "f_shared", "dropout_shared", "divergence", "weight_kl", "stage")
    for name in ABLATIONS:
        config = yaml.safe_load(shipped_configs()[name].read_text())
        options = {key: value for key, value in config["model"]["init_args"].items() if key not in own}
        published = mosi["model"]["init_args"]
        assert options.items() <= published.items(), name
        left_out = {"weight_mmd", "kernel", "mmd_on"} if name in VARIATIONAL else set()
        assert published.keys() - options.keys() == left_out, name
        assert {key: config[key] for key in config if key != "model"} == {k: mosi[k] for k in mosi if k != "model"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in ABLATIONS if name != TWO_STAGE],
)
def test_from_file_to_scores(name, corpus_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", name, "--data.path", str(corpus_file), "--run_dir", "run", *QUICK]) == 0
    checkpoint = "run/checkpoints/best.ckpt"
    assert main(["test", "--ckpt_path", checkpoint]) == 0
    scores = json.loads(Path("run/metrics_test.json").read_text())
    assert "test/mae" in scores
    layout = LAYOUTS[setting(name, "variant")]
    blocks = {"y"} if layout.joint else set()
    blocks |= {"text", "audio", "vision"} if layout.own else set()
    blocks |= {"shared"} if layout.shared else set()
    assert ("test/reconstruction/text" in scores) == layout.generates
    assert ("test/mmd" in scores) == (layout.generates and name not in VARIATIONAL)
    kl = {score.removeprefix("test/kl/") for score in scores if score.startswith("test/kl/")}
    assert kl == ({"z_y", "text", "audio", "vision"} if name in VARIATIONAL else set())
    assert main(["predict", "--ckpt_path", checkpoint, "--output", "p.csv", "--factors", "f.h5"]) == 0
    with h5py.File("f.h5") as file:
        assert set(file["z"]) == set(file["f"]) == blocks


def weights(path):
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_two_stages_from_file_to_scores(corpus_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data.path", str(corpus_file)]
    assert main(["fit", "--config", TWO_STAGE, *data, "--run_dir", "one", *QUICK]) == 0
    assert "best val/loss" in capsys.readouterr().out
    first = "one/checkpoints/best.ckpt"
    assert main(["test", "--ckpt_path", first]) == 0
    scores = json.loads(Path("one/metrics_test.json").read_text())
    assert "test/reconstruction/text" in scores
    assert not {"test/prediction", "test/mae"} & set(scores)
    assert main(["predict", "--ckpt_path", first, "--output", "p.csv", "--factors", "f.h5"]) == 0
    assert Path("p.csv").read_text().splitlines()[0] == "id,split"

    second = ["--model.stage", "discriminate", "--model.init_from", first, "--run_dir", "two"]
    assert main(["fit", "--config", "one/config.yaml", *second]) == 0
    assert "best val/mae" in capsys.readouterr().out
    before, after = weights(first), weights("two/checkpoints/best.ckpt")
    assert {name for name in after if name not in before} == {name for name in after if ".head." in name}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert main(["test", "--ckpt_path", "two/checkpoints/best.ckpt"]) == 0
    scores = json.loads(Path("two/metrics_test.json").read_text())
    assert {"test/mae", "test/prediction", "test/reconstruction/text", "test/kl/z_y"} <= set(scores)
    assert scores["test/loss"] == pytest.approx(scores["test/prediction"])
    Path(first).unlink()  # the second stage stands alone, also when it goes on
    assert main(["fit", "--ckpt_path", "two/checkpoints/last.ckpt", "--trainer.max_epochs", "2"]) == 0
    resumed = weights("two/checkpoints/last.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in before.items())
    assert any(not torch.equal(after[name], resumed[name]) for name in after if ".head." in name)


def test_an_unknown_variant_is_one_sentence(corpus_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--config", "ablations/m_a.yaml", "--data.path", str(corpus_file), "--model.variant", "M_F"]
    try:
        status = main(["fit", *given, *QUICK])
    except SystemExit as stopped:
        status = stopped.code
    assert status != 0
    said = capsys.readouterr().err
    assert "M_F" in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
