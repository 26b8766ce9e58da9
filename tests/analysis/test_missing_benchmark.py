"""The benchmark of missing modalities: its overlays, its tables, and what it does not do twice."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAE = {  # of two seeds
    "audio": {"absent": (1.2, 1.4), "discriminative": (1.3, 1.3), "joint": (1.1, 1.2)},
    "text": {"absent": (0.9, 0.9), "discriminative": (0.8, 0.9), "joint": (0.8, 0.8)},
    "audio+text": {"absent": (0.7, 0.9), "discriminative": (0.8, 0.8), "joint": (0.75, 0.85)},
    "": {"constant": (1.25, 1.25)},
}


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("missing_benchmark", ROOT / "benchmarks" / "missing.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in (spec.name, "runs"):
        del sys.modules[name]


@pytest.fixture
def seeds():
    return [
        {subset: {m: {"mae": values[seed]} for m, values in found.items()} for subset, found in MAE.items()}
        for seed in (0, 1)
    ]


@pytest.mark.parametrize("name", ["mosi_surrogate.yaml", "mosi_surrogate_posthoc.yaml"])
def test_an_overlay_makes_the_shipped_surrogate_of_mosi(benchmark, name, tmp_path):
    path = benchmark.surrogate_overlay(name, tmp_path)
    overlay = yaml.safe_load(path.read_text())
    mosi, wanted = (yaml.safe_load((ROOT / "configs" / one).read_text()) for one in ("mosi.yaml", name))

    def merged(base, over):
        if not (isinstance(base, dict) and isinstance(over, dict)):
            return over
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}

    wanted["model"]["init_args"].pop("init_from", None)
    assert merged(merged(mosi, overlay), wanted) == merged(mosi, overlay)  # all that is wanted is there
    assert merged(mosi, overlay) != mosi
    assert benchmark.surrogate_overlay(name, tmp_path) == path
    path.write_text("model: {}\n")
    with pytest.raises(SystemExit, match="has changed"):
        benchmark.surrogate_overlay(name, tmp_path)


def test_an_option_set_to_null_is_something_added(benchmark):
    assert benchmark.added({"a": {"b": 1, "c": 2}}, {"a": {"b": None, "c": 2}, "d": {}}) == {"a": {"b": None}, "d": {}}


def test_tables_hold_means_deviations_costs_and_the_best_comparison(benchmark, seeds):
    about = {
        "command": "c",
        "date": "d",
        "seeds": "1 to 2",
        "versions": "v",
        "data_fingerprint": "f" * 64,
        "machine": "m",
    }
    text = benchmark.markdown("two", seeds, about, {"mae": "mean absolute error"})
    assert "| observed | absent | discriminative | joint |" in text
    assert "| audio | 1.300 ± 0.141 | 1.300 ± 0.000 | 1.150 ± 0.071 |" in text
    assert "| nothing: the training median | 1.250 | | |" in text
    # .75 and .85 against .7 and .9: the difference is +.05 and -.05, its deviation .0707, its standard error .05
    assert "| 0.8000 | 0.0500 | +0.0000 | 0.0500 |" in text
    # without text: 1.1 - .75 and 1.2 - .85
    assert "| text | joint | 1.150 ± 0.071 | 0.350 ± 0.000 | absent | 1.300 ± 0.141 | 1.250 |" in text
    assert "| audio | joint | 0.800 ± 0.000 | 0.000 ± 0.071 | discriminative | 0.850 ± 0.071 | 1.250 |" in text


def test_what_is_finished_is_kept_and_what_was_stopped_goes_on(benchmark, tmp_path, monkeypatch):
    runs = sys.modules["runs"]
    commands = []
    monkeypatch.setattr(runs, "run", lambda *arguments: commands.append(arguments))
    best = benchmark.fit(tmp_path, "--config", "x")
    assert best == str(tmp_path / "checkpoints" / "best.ckpt")
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    last.touch()
    benchmark.fit(tmp_path, "--config", "x")
    (tmp_path / "metrics_fit.json").write_text(json.dumps({}))
    benchmark.fit(tmp_path, "--config", "x")
    assert commands == [
        ("fit", "--config", "x", "--run_dir", str(tmp_path)),
        ("fit", "--ckpt_path", str(last)),
    ]
