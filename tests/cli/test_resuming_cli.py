"""Runs that end early: killed, interrupted, or told to go on."""

import csv
import signal
import subprocess
import sys
import time

import pytest
import torch
from training_runs import fit, metrics, run_mfm

from mfm.cli import main


def test_resuming_continues_in_place_and_refuses_another_model(run, capsys):
    last = str(run / "checkpoints/last.ckpt")
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "3"]) == 0
    assert metrics(run / "metrics_fit.json")["epochs"] == 3
    epochs = [row["epoch"] for row in csv.DictReader((run / "metrics.csv").open())]
    assert sorted({int(float(epoch)) for epoch in epochs}) == [0, 1, 2]
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", last, "--model.lr", "0.5"]) == 2
    assert "--model.lr" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(corpus_file, workplace):
    options = (
        "--config",
        "demo.yaml",
        "--data.path",
        corpus_file,
        "--trainer.max_epochs",
        "4",
        "--model.dropout",
        "0.5",
    )
    run_mfm("fit", *options, "--run_dir", "whole", cwd=workplace)
    killed = subprocess.Popen(
        [sys.executable, "-m", "mfm", "fit", *map(str, options), "--run_dir", "cut"],
        cwd=workplace,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = workplace / "cut/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    run_mfm("fit", "--ckpt_path", last, cwd=workplace)
    whole, cut = (metrics(workplace / name / "metrics_fit.json") for name in ("whole", "cut"))
    compared = [key for key in whole if key.startswith(("val/", "train/", "best/", "epochs"))]
    assert len(compared) > 8
    assert {key: whole[key] for key in compared} == {key: cut[key] for key in compared}
    weights = [
        torch.load(workplace / n / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in ("whole", "cut")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_run_killed_before_its_reports_gets_them(run):
    before = metrics(run / "metrics_fit.json")
    (run / "metrics_fit.json").unlink()
    (run / "figures/.training_curves.png.abc.part").touch()
    assert main(["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
    after = metrics(run / "metrics_fit.json")
    compared = [key for key in before if "/" in key or key == "epochs"]
    assert {key: after[key] for key in compared} == {key: before[key] for key in compared}
    assert not list(run.rglob(".*.part"))


def test_the_last_epoch_is_kept_even_if_it_is_not_the_best(corpus_file, workplace):
    run = fit(corpus_file, "--model.lr", "1e-12", "--trainer.max_epochs", "3")  # nothing improves after the first
    epochs = {n: torch.load(run / f"checkpoints/{n}.ckpt", weights_only=True)["epoch"] for n in ("best", "last")}
    assert epochs["best"] < epochs["last"] == 2


def test_ctrl_c_ends_with_130_and_leaves_a_checkpoint(corpus_file, workplace):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mfm", "fit", "--config", "demo.yaml", "--data.path", str(corpus_file)),
            *("--run_dir", "run", "--trainer.max_epochs", "500", "--early_stopping.patience", "null"),
        ],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    last = workplace / "run/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "state_dict" in torch.load(last, weights_only=True)
