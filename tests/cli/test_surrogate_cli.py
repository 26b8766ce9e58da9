"""Training surrogates from the command line, jointly and on a frozen model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mfm.cli import main

SMALL = ("--config", "demo.yaml", "--model.surrogate_width", "8", "--model.surrogate_hidden", "8")
FAST = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu")


def fit(path, run_dir, *options):
    assert main(["fit", *SMALL, "--data.path", str(path), "--run_dir", run_dir, *FAST, *options]) == 0
    return f"{run_dir}/checkpoints/best.ckpt"


def score(checkpoint, *options):
    assert main(["test", "--ckpt_path", checkpoint, "--output", "s.json", *options]) == 0
    return json.loads(Path("s.json").read_text())


def state(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def test_joint_and_posthoc_from_the_command_line(corpus_file, finished_run, workplace, capsys):
    plain = str(finished_run / "checkpoints/best.ckpt")
    joint = fit(corpus_file, "joint", "--model.surrogate", "joint", "--model.surrogate_subsets", "{text+audio: 1}")
    assert any(name.startswith("surrogate.") for name in state(joint))
    full, lacking = score(joint), score(joint, "--data.missing", "[text]")
    assert "test/surrogate/reconstruction/text" in full
    assert not any("surrogate" in name for name in lacking)  # nothing to compare with
    assert lacking["test/mae"] != full["test/mae"]

    moved = Path("moved.ckpt")
    moved.write_bytes(Path(plain).read_bytes())
    posthoc = fit(corpus_file, "posthoc", "--model.surrogate", "posthoc", "--model.init_from", str(moved))
    moved.unlink()  # neither testing nor resuming needs it
    before, after = state(plain), state(posthoc)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert (
        score(posthoc, "--data.missing", "[text]")["test/mae"] != score(plain, "--data.missing", "[text]")["test/mae"]
    )
    assert main(["fit", "--ckpt_path", "posthoc/checkpoints/last.ckpt", "--trainer.max_epochs", "2"]) == 0
    resumed = state("posthoc/checkpoints/last.ckpt")
    assert all(torch.equal(value, resumed[name]) for name, value in before.items())
    assert any(not torch.equal(after[name], resumed[name]) for name in after if name.startswith("surrogate."))

    capsys.readouterr()
    wrong = ["--model.surrogate", "posthoc", "--model.init_from", plain, "--model.z_y", "5"]
    assert main(["fit", *SMALL, "--data.path", str(corpus_file), *FAST, *wrong]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mfm fit: --model.init_from")
    assert "--config RUN/config.yaml" in error


@pytest.mark.slow
def test_resumed_training_equals_uninterrupted_training(corpus_file, workplace):
    options = ("--model.surrogate", "joint", "--model.surrogate_dropout", "0.3", "--data.missing_rate", "0.2")
    fit(corpus_file, "whole", *options, "--trainer.max_epochs", "2")
    fit(corpus_file, "cut", *options)
    assert main(["fit", "--ckpt_path", "cut/checkpoints/last.ckpt", "--trainer.max_epochs", "2"]) == 0
    whole, cut = (state(f"{run}/checkpoints/last.ckpt") for run in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["joint", "posthoc"])
def test_training_on_two_processes(mode, corpus_file, workplace):
    start = []
    if mode == "posthoc":
        start = ["--model.init_from", fit(corpus_file, "plain")]
    command = [
        sys.executable,
        "-m",
        "mfm",
        "fit",
        *SMALL,
        "--config",
        "ddp.yaml",
        "--data.path",
        str(corpus_file),
        *FAST,
    ]
    command += ["--run_dir", "two", "--model.surrogate", mode, *start]
    finished = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert any(name.startswith("surrogate.") for name in state("two/checkpoints/best.ckpt"))
