"""The collection's configurations: each builds its model for the real dimensions, and each network runs from a file."""

import json

import pytest
import torch
import yaml

from mfm import datamodules, modules
from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.corpora import get_corpus
from mfm.data.synthetic import write_corpus

COLLECTION = {name: path for name, path in shipped_configs().items() if name.startswith("collection/")}
CORPORA = ("iemocap", "mosei", "mosi", "sims")
NETWORKS = ("ef_lstm", "graph_mfn", "lf_dnn", "lf_lstm", "lmf", "mfn", "tfn")
QUICK = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.max_lengths", "3")


def read(name):
    return yaml.safe_load(COLLECTION[name].read_text(encoding="utf-8"))


def test_every_network_has_a_configuration_for_every_corpus():
    expected = {f"collection/{corpus}_{network}.yaml" for corpus in CORPORA for network in NETWORKS}
    assert expected <= COLLECTION.keys()
    for name in expected:
        network = read(name)["model"]["init_args"]["network"]
        assert name.endswith(f"_{network['name']}.yaml")
        assert f"mfm fit --config {name} " in COLLECTION[name].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COLLECTION)
def test_it_builds_its_model_for_the_published_file(name):
    config = read(name)
    corpus = get_corpus(name.removeprefix("collection/").partition("_")[0])
    published = corpus.files[0]
    assert config["data"]["init_args"]["path"] in {file.name for file in corpus.files}
    assert config["data"]["class_path"].removesuffix("DataModule").lower() == corpus.name
    assert hasattr(datamodules, config["data"]["class_path"])
    module = getattr(modules, config["model"]["class_path"])
    with torch.device("meta"):  # shapes alone: some have tens of millions of weights
        built = module(feature_dims=published.dims, corpus=corpus.name, **config["model"]["init_args"])
    assert sum(parameter.numel() for parameter in built.parameters()) > 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small file with the structure of MMSA's MOSI."""
    place = tmp_path_factory.mktemp("collection") / "mosi.pkl"
    write_corpus("mosi", place, samples=(8, 5, 5), seed=4)
    return str(place)


# of those that are built alike, one is quick enough for every day
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("ef_lstm", "lf_dnn", "mfn", "tfn")]


@pytest.mark.parametrize("network", ["graph_mfn", "lf_lstm", "lmf", *SLOW])
def test_from_file_to_scores(network, path, tmp_path):
    config, run = f"collection/mosi_{network}.yaml", tmp_path / "run"
    assert main(["fit", "--config", config, "--data.path", path, "--run_dir", str(run), *QUICK]) == 0
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert torch.load(checkpoint, weights_only=True)["hyper_parameters"]["network"]["name"] == network
    assert main(["test", "--ckpt_path", str(checkpoint)]) == 0
    assert json.loads((run / "metrics_test.json").read_text())["samples"] == 5
