"""`mfm benchmark tune`: one search for each model of a suite, and overlays that a suite runs with."""

from pathlib import Path

import pytest
import yaml

from mfm.cli import main
from mfm.cli.configs import find_config
from mfm.data.synthetic import write_corpus
from mfm.errors import ConfigurationError

MODEL = {
    "model": {"class_path": "NetworkModule", "init_args": {"network": {"name": "ef_lstm", "hidden": 8}}},
    "data": {"class_path": "MOSIDataModule", "init_args": {"path": "none", "batch_size": 16}},
}
SUITE = {
    "name": "tiny",
    "corpora": {"mosi": {"path": "${MFM_DATA}/corpus.pkl", "options": {"early_stopping.patience": 2}}},
    "models": {
        "lstm": {"config": "lstm.yaml", "options": {"model.lr": 0.01}, "tuned": "tuned/{label}/{model}.yaml"},
        "other": {"config": "lstm.yaml"},
    },
    "seeds": [3, 4],
    "budget": {"max_epochs": 1},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_corpus("mosi", Path("corpus.pkl"), (24, 12, 16), 0, dims={"text": 4, "audio": 3}, steps=3)
    Path("lstm.yaml").write_text(yaml.safe_dump(MODEL))
    Path("suite.yaml").write_text(yaml.safe_dump(SUITE))
    for model in SUITE["models"]:
        Path(f"{model}_space.yaml").write_text(
            "data.batch_size: {choice: [8, 12]}\nmodel.network.hidden: {int: [2, 4]}\n"
        )
    return tmp_path


def benchmark(*words):
    return main(["benchmark", *words, "--data", "."])


def searched(monkeypatch, fails=()):
    """What `mfm tune` would have been called with, model -> arguments."""
    calls = {}

    def tune(arguments):
        study = Path(arguments[arguments.index("--output") + 1])
        calls[study.name] = arguments
        if study.name in fails:
            raise ConfigurationError("no such space")
        study.mkdir(parents=True)
        best = yaml.safe_load(Path("lstm.yaml").read_text())
        best["model"]["init_args"]["network"]["hidden"] = 3
        (study / "best.yaml").write_text(yaml.safe_dump(best | {"trainer": {"max_epochs": 1}}))
        trials = '[{"state": "complete"}, {"state": "pruned"}]'
        space = '{"data.batch_size": {"choice": [8, 16]}, "model.network.hidden": {"int": [2, 4]}}'
        (study / "report.json").write_text(f'{{"command": "x", "data": "/here", "space": {space}, "trials": {trials}}}')

    monkeypatch.setattr("mfm.cli.tune.main", tune)
    return calls


def test_every_model_has_the_suites_options_its_budget_and_as_many_trials(place, monkeypatch, capsys):
    calls = searched(monkeypatch)
    assert benchmark("tune", "suite.yaml", "--output", "out", "--trials", "7", "--space", "{model}_space.yaml") == 0
    assert calls.keys() == {"lstm", "other"}
    for model, arguments in calls.items():
        told = " ".join(arguments)
        for said in (
            "--config", "--early_stopping.patience=2", "--trainer.max_epochs=1", "--seed_everything=3", "--trials 7",
            f"--space {model}_space.yaml", f"--output out/mosi/{model}", "--folds 0", "--jobs 1", "--seed 1",
        ):  # fmt: skip
            assert said in told
        assert "tuned/" not in told  # a search begins with the model as it is, whatever was found before
    assert "--model.lr=0.01" in calls["lstm"]
    assert "--model.lr=0.01" not in calls["other"]
    assert "benchmark run suite.yaml --tuned 'out/{label}/{model}.yaml'" in capsys.readouterr().out


def test_a_search_that_fails_is_named_and_the_others_go_on(place, monkeypatch, capsys):
    calls = searched(monkeypatch, fails=("lstm",))
    assert benchmark("tune", "suite.yaml", "--output", "out") == 1
    assert calls.keys() == {"lstm", "other"}
    assert "mosi/lstm: no such space" in capsys.readouterr().err
    assert Path("out/mosi/other.yaml").is_file()
    assert not Path("out/mosi/lstm.yaml").exists()


def test_an_overlay_has_the_model_and_what_was_varied(place, monkeypatch):
    searched(monkeypatch)
    benchmark("tune", "suite.yaml", "--output", "out", "--only", "other")
    overlay = Path("out/mosi/other.yaml").read_text()
    assert yaml.safe_load(overlay) == {
        "model": {"class_path": "NetworkModule", "init_args": {"network": {"name": "ef_lstm", "hidden": 3}}},
        "data": {"init_args": {"batch_size": 16}},
    }
    assert "complete: 1" in overlay
    assert "/here" not in overlay


def test_a_space_of_an_unknown_name_is_refused(place, capsys):
    assert benchmark("tune", "suite.yaml", "--output", "out", "--space", "{modle}") == 1
    assert "only {model} and {label} are known" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_found_is_what_the_suite_runs(place):
    assert benchmark("tune", "suite.yaml", "--output", "tuned", "--trials", "2", "--space", "{model}_space.yaml") == 0
    for model in ("lstm", "other"):
        best = yaml.safe_load(Path(f"tuned/mosi/{model}/best.yaml").read_text())
        assert (
            benchmark("run", "suite.yaml", "--output", "out", "--only", model, "--tuned", "tuned/{label}/{model}.yaml")
            == 0
        )
        ran = yaml.safe_load(Path(f"out/runs/mosi/{model}/seed_3/config.yaml").read_text())
        assert ran["model"] == best["model"]
        assert ran["data"]["init_args"]["batch_size"] == best["data"]["init_args"]["batch_size"]


@pytest.mark.parametrize("path", sorted(Path(find_config("mosi.yaml")).parent.glob("tuned/*/*.yaml")), ids=str)
def test_shipped_overlays_say_where_they_come_from(path):
    assert "# best_trial:" in path.read_text()
    assert yaml.safe_load(path.read_text())["model"]["class_path"]
