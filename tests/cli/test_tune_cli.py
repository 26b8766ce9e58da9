"""`mfm tune` as a user runs it: what it writes, what it never reads, going on, several processes, refusals."""

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from mfm.cli import main
from mfm.cli.tune_trials import TrialCLI
from mfm.data.synthetic import write_corpus
from mfm.data.unpickle import read_pickle
from mfm.errors import DataFormatError
from mfm.tuning.curve import ValidationCurve
from mfm.tuning.objective import Objective
from mfm.tuning.space import parse_space, with_values
from mfm.tuning.study import RECORD, WORKER

CONFIG = """
seed_everything: 1
model:
  class_path: NetworkModule
  init_args: {network: {name: ef_lstm, hidden: 4}}
data:
  class_path: MOSIDataModule
  init_args: {path: mosi.pkl, batch_size: 12}
trainer: {max_epochs: 2, accelerator: cpu}
early_stopping: {patience: 3}
"""
SPACE = """
model.lr: {log_uniform: [1e-3, 1e-1]}
model.network.hidden: {choice: [2, 8]}
model.optimizer: {choice: [adam, nonsense]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    write_corpus("mosi", folder / "mosi.pkl", samples=(24, 12, 6), seed=3)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "space.yaml").write_text(SPACE)
    return folder


def tune(*options, output="tuned"):
    return main(["tune", "--config", "config.yaml", "--space", "space.yaml", "--output", output, *map(str, options)])


def trials(folder):
    with (Path(folder) / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def comparable(folder):
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in trials(folder)]


@pytest.fixture(scope="module")
def tuned(place):
    """A study of four trials."""
    before = Path.cwd()
    os.chdir(place)
    try:
        assert tune("--trials", 4) == 0
    finally:
        os.chdir(before)
    return place / "tuned"


def test_what_a_study_leaves(tuned, place):
    names = {path.name.partition("-")[0] for path in tuned.iterdir()}
    assert names - {"study.db"} == {"best.yaml", "trials.csv", "report.md", "report.json", "study.png"}
    assert {path.name for path in place.iterdir()} == {"tuned", "mosi.pkl", "config.yaml", "space.yaml"}  # no runs
    rows = trials(tuned)
    assert [row["number"] for row in rows] == list("0123")
    assert rows[0]["own"] == "True"
    assert rows[0]["model.network.hidden"] == "4"
    failed = [row for row in rows if row["state"] == "failed"]
    assert failed
    assert all("nonsense" in row["error"] and not row["value"] for row in failed)
    report = json.loads((tuned / "report.json").read_text())
    assert report["val/mae"] == min(float(row["value"]) for row in rows if row["state"] == "complete")
    assert "## Failed trials" in (tuned / "report.md").read_text()
    text = (tuned / "best.yaml").read_text()
    assert all(f"# {key}: " in text for key in ("command", "date", "val/mae", "data_fingerprint", "seed_of_draws"))


def test_best_configuration_gives_its_value_again(tuned, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(tuned / "best.yaml"), "--run_dir", "run"]) == 0
    again = json.loads((tmp_path / "run" / "metrics_fit.json").read_text())
    assert again["best/val/mae"] == json.loads((tuned / "report.json").read_text())["val/mae"]


def test_finished_study_says_so_and_the_last_line_is_the_next_command(tuned, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    before = comparable(tuned)
    assert tune("--trials", 4) == 0
    printed = capsys.readouterr()
    assert "has its 4 trials already" in printed.err
    assert printed.out.splitlines()[-1] == "mfm fit --config tuned/best.yaml"
    assert comparable(tuned) == before


def test_the_test_split_is_never_opened(tuned, place, tmp_path, monkeypatch):
    """A file without one gives the same trials, and no training has one to look at."""
    content = read_pickle(place / "mosi.pkl")
    del content["test"]
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps(content))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "space.yaml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    assert tune("--trials", 2) == 0
    assert comparable(tmp_path / "tuned") == comparable(tuned)[:2]

    monkeypatch.chdir(place)
    cli = TrialCLI(["--config", "config.yaml"])
    for folds, fold in ((0, None), (2, 1)):
        objective = Objective(cli.build, cli.base, parse_space(yaml.safe_load(SPACE), ""), folds=folds, seed=1)
        data = objective.prepared(cli.base, ValidationCurve(), fold).data
        data.setup("fit")
        assert set(data.corpus_data.splits) == {"train", "valid"}
        with pytest.raises(DataFormatError, match="no split 'test'"):
            data.setup("test")


def test_folds_are_averaged_and_pruned_epochs_are_not_trained(place, monkeypatch):
    monkeypatch.chdir(place)
    cli = TrialCLI(["--config", "config.yaml", "--trainer.max_epochs", "3"])
    space = parse_space({"model.lr": {"uniform": [0.01, 0.02]}}, "")
    folded = Objective(cli.build, cli.base, space, folds=2, seed=1)
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    study.enqueue_trial({"model.lr": 0.015})
    study.optimize(folded, n_trials=1)
    config = with_values(cli.base, {"model.lr": 0.015})
    each = [folded.train(config, fold, {}).best[1] for fold in (0, 1)]
    assert each[0] != each[1]
    assert study.best_value == pytest.approx(sum(each) / 2)

    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.0))  # no error is good enough
    study.optimize(Objective(cli.build, cli.base, space, folds=0, seed=1), n_trials=1)
    assert study.trials[0].state is optuna.trial.TrialState.PRUNED
    assert study.trials[0].user_attrs[RECORD]["epochs"] == [1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--model.lrr", "1"), "did you mean 'model.lr'"),
        (("--model.network", "nonsense"), "unknown network 'nonsense'"),
        (("--data.path", "none.pkl"), "none.pkl"),
        (("--trials", "0"), "--trials is 0"),
        (("--folds", "1"), "--folds is 1"),
        (("--folds", "99"), "99 folds cannot be made"),
        (("--pruner", "mean"), "did you mean 'median'"),
        (("--space", "mfn_"), "no file 'mfn_'"),
        (("--run_dir", "x"), "drop --run_dir"),
        (("--trainer.max_epochs", "9", "--output", "tuned"), "max_epochs: 2 then, 9 now"),
    ],
)
def test_mistakes_in_one_sentence(place, tuned, monkeypatch, capsys, options, sentence):
    monkeypatch.chdir(place)
    assert tune(*options, output="other") == 2
    printed = capsys.readouterr().err.strip()
    assert sentence in printed
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("mfm tune: ")
    assert not (place / "other").exists()


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    options = ["--config", "config.yaml", "--space", "space.yaml", "--trials", "12", "--max_epochs", "12"]
    assert main(["tune", *options, "--output", str(tmp_path / "whole")]) == 0
    command = [sys.executable, "-m", "mfm", "tune", *options, "--output", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("trial 4"):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["tune", *options, "--output", str(tmp_path / "killed")]) == 0
    changing = ("number", "seconds")
    ours, theirs = (
        [{key: cell for key, cell in row.items() if key not in changing} for row in trials(tmp_path / name)]
        for name in ("killed", "whole")
    )
    assert ours == theirs


@pytest.mark.slow
def test_workers_share_a_study_and_one_that_dies_costs_its_trial_only(place, tmp_path):
    options = ["--config", "config.yaml", "--space", "space.yaml", "--trials", "12", "--max_epochs", "40"]
    options += ["--early_stopping.patience", "null", "--pruner", "none"]  # trials that last
    command = [sys.executable, "-m", "mfm", "tune", *options, "--jobs", "2", "--output", str(tmp_path / "jobs")]
    process = subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("trial"):
            break
    study = optuna.load_study(study_name="mfm", storage=f"sqlite:///{tmp_path / 'jobs' / 'study.db'}")
    begun: list[str] = []
    while not begun:
        time.sleep(0.05)
        running = [trial for trial in study.trials if trial.state is optuna.trial.TrialState.RUNNING]
        begun = [trial.user_attrs[WORKER] for trial in running if len(trial.params) == 3]
    os.kill(int(begun[0].rpartition(":")[2]), signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode == 0
    rows = trials(tmp_path / "jobs")
    assert len(rows) == 12
    assert sum("its process was ended (exit code -9)" in row["error"] for row in rows) == 1
    assert len({trial.user_attrs[WORKER] for trial in study.trials}) == 3
    assert sum(row["own"] == "True" for row in rows) == 1
    assert len({row["model.lr"] for row in rows}) == 12  # no trial was drawn twice
