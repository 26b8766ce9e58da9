"""The benchmark of objectives on known factors: a cell is complete, kept, and shown."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("factorization_benchmark", ROOT / "benchmarks" / "factorization.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def cell(benchmark, tmp_path_factory):
    sizes = benchmark.Sizes((80, 1, 60), 1, 40, 1e-3)
    output = tmp_path_factory.mktemp("cells")
    return benchmark.run_cell("ours", "missing", 1, sizes, output), sizes, output


def test_a_cell_is_complete(benchmark, cell):
    found, _, _ = cell
    assert set(benchmark.GOALS) <= set(found["factors/mlp"])
    assert set(found["factors/ridge"]["r2"]) == {"y", "text", "audio", "vision"}
    assert all(0.0 <= rate <= 1.0 for rate in found["swaps"].values())
    assert found["label_mae"] > 0
    assert found["reconstruction"] > 0
    assert found["known_r2"]["label_factor_from_private"] == {"text": 0.0, "audio": 0.0, "vision": 0.0}


def test_a_finished_cell_is_read_and_one_of_another_size_is_not(benchmark, cell, monkeypatch):
    found, sizes, output = cell

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(benchmark, "train", refuse)
    assert benchmark.run_cell("ours", "missing", 1, sizes, output)["swaps"] == found["swaps"]
    with pytest.raises(AssertionError, match="trained again"):
        benchmark.run_cell("ours", "missing", 1, benchmark.Sizes((80, 1, 60), 2, 40, 1e-3), output)


def test_the_table_names_seeds_and_both_probes(benchmark, cell):
    found, _, _ = cell
    head = {"command": "c", "date": "d", "sizes": "s", "versions": "v", "machine": "m"}
    text = benchmark.markdown([found, {**found, "seed": 2}], head)
    rows = [line for line in text.splitlines() if line.startswith("| missing")]
    assert len(rows) == 4
    assert all("| 1, 2 |" in row and "± 0.000" in row for row in rows)


def test_the_same_seed_trains_the_same_model(benchmark, cell):
    _, sizes, _ = cell
    corpus = benchmark.FactorWorld(seed=3).draw((40, 0, 0))
    one, again = (benchmark.train(corpus, benchmark.OBJECTIVES["ours"], sizes, 5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))


def test_the_shipped_configuration_is_ours(benchmark):
    options = yaml.safe_load((ROOT / "configs" / "factors.yaml").read_text())["model"]["init_args"]
    wanted = {**benchmark.BASE, **benchmark.OBJECTIVES["ours"]}
    assert {name: options[name] for name in wanted} == wanted
