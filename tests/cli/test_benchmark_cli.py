"""`mfm benchmark run` on a tiny corpus."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from mfm.benchmark.isolation import Task
from mfm.benchmark.predictions import read_predicted
from mfm.benchmark.records import read_records
from mfm.cli import main
from mfm.cli.benchmark import _Told
from mfm.cli.benchmark_cell import train_and_test
from mfm.data.synthetic import write_corpus

MODEL = {
    "model": {"class_path": "NetworkModule", "init_args": {"network": {"name": "ef_lstm", "hidden": 8}}},
    "data": {"class_path": "MOSIDataModule", "init_args": {"path": "none", "batch_size": 16}},
}
SUITE = {
    "name": "tiny",
    "corpora": {"mosi": "${MFM_DATA}/corpus.pkl"},
    "models": {"lstm": "lstm.yaml", "narrow": {"config": "lstm.yaml", "options": {"model.lr": 0.01}}},
    "seeds": [1, 2],
    "budget": {"max_epochs": 1, "max_seconds": 300},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MFM_DATA", raising=False)
    write_corpus("mosi", Path("corpus.pkl"), (24, 12, 16), 0, dims={"text": 4, "audio": 3}, steps=3)
    Path("lstm.yaml").write_text(yaml.safe_dump(MODEL))
    Path("suite.yaml").write_text(yaml.safe_dump(SUITE))
    return tmp_path


def test_a_cell_is_trained_selected_and_tested(place):
    arguments = (
        "--config",
        "lstm.yaml",
        "--data.path",
        "corpus.pkl",
        "--trainer.max_epochs",
        "2",
        "--seed_everything=1",
    )
    about = {"corpus": "mosi", "model": "lstm", "seed": 1}
    record = train_and_test(Task("", "run", "lock", arguments, about, "predictions"))
    test = json.loads(Path("run/metrics_test.json").read_text())
    fit = json.loads(Path("run/metrics_fit.json").read_text())
    assert record["metrics"]["test"]["mae"] == test["test/mae"]
    assert record["losses"]["test"].keys() == {"loss", "prediction"}
    assert record["metrics"]["val"]["mae"] == pytest.approx(fit["best/val/mae"])
    assert {name: record[name] for name in ("epochs", "monitor", "mode", "stopped_by")} == {
        "epochs": 2, "monitor": "val/mae", "mode": "min", "stopped_by": "configuration",
    }  # fmt: skip
    assert record["parameters"] == test["parameters"]
    assert record["data_fingerprint"] == test["data_fingerprint"]
    assert record["peak_memory_mb"]["host"] > 50
    assert record["seconds"] == pytest.approx(record["seconds_fit"] + record["seconds_test"], abs=0.01)
    kept = read_predicted(Path("predictions"), record["predictions"])
    assert np.abs(kept.prediction - kept.target).mean() == pytest.approx(test["test/mae"], rel=1e-5)
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["best.ckpt"]


def test_what_would_be_run(place, capsys):
    command = ["benchmark", "run", "suite.yaml", "--output", "out", "--data", str(place), "--dry-run"]
    assert main([*command, "--only", "narrow", "--seeds", "7"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        f"mfm fit --config lstm.yaml --model.lr=0.01 --trainer.max_epochs=1 '--trainer.max_time={{\"seconds\": 300}}' "
        f"--data.path={place}/corpus.pkl --seed_everything=7 --run_dir {place}/out/runs/mosi/narrow/seed_7"
    )
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "${MFM_DATA} in '${MFM_DATA}/corpus.pkl' is not set; give --data DIR"),
        (["--data", "nowhere"], "nowhere/corpus.pkl does not exist"),
        (["--data", "nowhere", "--skip-missing"], "none of the suite's corpora is there"),
        (["--data", ".", "--only", "narow"], "did you mean 'narrow'"),
        (["--data", ".", "--jobs", "0"], "--jobs is 0"),
        (["--data", ".", "--scheduler", "tcp://x"], "--scheduler is for --executor dask"),
        (["--data", ".", "--tuned", "{model}_best.yaml"], "no file 'lstm_best.yaml' here"),
    ],
)
def test_mistakes_are_told_before_anything_runs(place, capsys, options, says):
    assert main(["benchmark", "run", "suite.yaml", "--output", "out", *options]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_a_broken_configuration_is_told_before_anything_runs(place, capsys):
    Path("lstm.yaml").write_text("model: [")
    assert main(["benchmark", "run", "suite.yaml", "--output", "out", "--data", "."]) == 2
    assert "config 'lstm.yaml': lstm.yaml is not readable YAML" in capsys.readouterr().err


def test_a_lost_worker_is_told(capsys):
    with _Told(1) as tell:
        tell(1, 1, {"corpus": "mosi", "model": "mfm", "seed": 1, "status": "failed", "error": "its worker was lost: x"})
    assert capsys.readouterr().out == "1/1 mosi/mfm/seed_1: FAILED: its worker was lost: x\n"


def test_an_unknown_suite_names_the_nearest(place, capsys):
    assert main(["benchmark", "run", "mosi-contxt", "--output", "out"]) == 2
    assert "did you mean 'mosi-context'" in capsys.readouterr().err


def results_of(folder):
    return {
        (record["model"], record["seed"]): (
            record["metrics"],
            read_predicted(folder / "predictions", record["predictions"]).prediction.tolist(),
        )
        for record in read_records(folder)
        if record["status"] == "ok"
    }


@pytest.mark.slow
def test_killed_resumed_with_a_failing_model_and_reported(place, capfd):
    Path("bad.yaml").write_text(yaml.safe_dump({**MODEL, "trainer": {"max_epochs": 1, "precision": "none"}}))
    Path("suite.yaml").write_text(yaml.safe_dump({**SUITE, "models": {**SUITE["models"], "bad": "bad.yaml"}}))
    command = [sys.executable, "-m", "mfm", "benchmark", "run", "suite.yaml", "--data", ".", "--jobs", "2"]
    killed = Path("killed/results.jsonl")
    process = subprocess.Popen([*command, "--output", "killed"], start_new_session=True)
    while not (killed.is_file() and killed.stat().st_size):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for folder in ("killed", "whole"):
        assert subprocess.run([*command, "--output", folder], check=False).returncode == 1
    assert "2 of 6 runs failed" in capfd.readouterr().err
    assert results_of(Path("killed")) == results_of(Path("whole"))
    assert len(results_of(Path("whole"))) == 4
    assert len(read_records("killed")) == len(read_records("whole")) == 6
    assert main(["benchmark", "report", "whole", "--resamples", "20"]) == 0
    assert "mosi/bad/seed_1" in Path("whole/report/report.md").read_text()


@pytest.mark.slow
def test_generated_corpora_have_a_bound(place):
    generate = {"samples": [30, 12, 20], "dims": {"text": 4, "audio": 3}, "steps": 3, "label_noise": 0.5}
    suite = {**SUITE, "corpora": {"world": {"corpus": "mosi", "generate": generate}}, "models": {"lstm": "lstm.yaml"}}
    Path("suite.yaml").write_text(yaml.safe_dump({**suite, "seeds": [1]}))
    assert (
        subprocess.run(
            [sys.executable, "-m", "mfm", "benchmark", "run", "suite.yaml", "--output", "out"], check=False
        ).returncode
        == 0
    )
    assert main(["benchmark", "report", "out", "--resamples", "20"]) == 0
    assert "regret" in Path("out/report/report.md").read_text()
