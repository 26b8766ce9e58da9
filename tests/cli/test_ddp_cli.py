"""The training commands on several processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import FAST, metrics, run_mfm

from mfm.cli import main


@pytest.mark.slow
def test_two_processes_score_like_one(run, workplace):
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best, "--output", "one.json"]) == 0
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")
    run_mfm("test", "--ckpt_path", best, "--output", "two.json", *two, cwd=workplace)
    one, both = metrics("one.json"), metrics("two.json")
    # MMD is a property of a batch, and two processes cut the batches differently
    scores = [key for key in one if key.startswith("test/") and key not in ("test/loss", "test/mmd")]
    assert len(scores) == 13
    assert both["samples"] == 13
    for key in scores:
        assert both[key] == pytest.approx(one[key], abs=1e-6), key


@pytest.mark.slow
def test_training_on_two_processes(corpus_file, workplace):
    run_mfm(
        *(
            "fit",
            "--config",
            "demo.yaml",
            "--config",
            "ddp.yaml",
            "--data.path",
            corpus_file,
            "--run_dir",
            "run",
            *FAST,
        ),
        cwd=workplace,
    )
    assert (workplace / "run/checkpoints/best.ckpt").is_file()
    run_mfm("test", "--ckpt_path", "run/checkpoints/best.ckpt", "--trainer.devices", "1", cwd=workplace)


@pytest.mark.slow
def test_training_under_torchrun(corpus_file, workplace):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "mfm",
        "fit",
    ]
    command += [
        "--config",
        "demo.yaml",
        "--config",
        "ddp.yaml",
        "--data.path",
        str(corpus_file),
        *FAST,
    ]
    finished = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    (run,) = Path(workplace, "runs/mosi").iterdir()  # one, not one a process
    assert (run / "checkpoints/best.ckpt").is_file()
