"""The shipped search spaces name options that their models have, with values that these take."""

import importlib

import pytest
import yaml

from mfm.cli.configs import shipped_configs
from mfm.cli.explain import _parameters
from mfm.errors import ConfigurationError
from mfm.models.networks import NETWORKS
from mfm.models.registry import check_value
from mfm.tuning.space import parse_space

SHIPPED = shipped_configs()
SPACES = {name.removeprefix("spaces/").removesuffix(".yaml"): name for name in SHIPPED if name.startswith("spaces/")}
CORPORA = ("mosi", "mosei", "sims", "iemocap")
COLLECTION = {  # model -> its configurations
    model: [name for corpus in CORPORA if (name := f"collection/{corpus}_{model}.yaml") in SHIPPED] for model in SPACES
}
COLLECTION["mfm"] += [f"{corpus}.yaml" for corpus in (*CORPORA, "pom", "mmmo", "youtube", "moud")]


def whole_config(name):
    """A configuration with every option of its classes, as the command line knows them."""
    config = yaml.safe_load(SHIPPED[name].read_text(encoding="utf-8"))
    for group, package in (("model", "mfm.modules"), ("data", "mfm.datamodules")):
        options = _parameters(getattr(importlib.import_module(package), config[group]["class_path"]))
        config[group]["init_args"] = {**dict.fromkeys(options), **config[group]["init_args"]}
    return config


@pytest.mark.parametrize("model", SPACES)
def test_options_and_values_are_the_models(model):
    space = parse_space(yaml.safe_load(SHIPPED[SPACES[model]].read_text(encoding="utf-8")), model)
    for name in COLLECTION[model]:
        config = whole_config(name)
        space.check(config, ["audio", "text", "vision"])
        _, outside = space.with_own_values(config).own_parameters(config)
        assert not outside, f"{name}: the first trial would not be the configuration as it stands"
        network = config["model"]["init_args"].get("network")
        for dimension in space.dimensions:
            if dimension.option.startswith("model.network."):
                setting = dimension.option.removeprefix("model.network.")
                for value in dimension.values:
                    check_value(dimension.option, value, NETWORKS.settings(network["name"])[setting].hint)


def test_every_model_of_the_suites_has_a_space():
    suite = yaml.safe_load(SHIPPED["suites/mosi-context.yaml"].read_text(encoding="utf-8"))
    assert set(SPACES) == set(suite["models"])
    there = {name.partition("_")[2].removesuffix(".yaml") for name in SHIPPED if name.startswith("collection/")}
    assert there <= set(SPACES)
    assert all(COLLECTION[model] for model in SPACES), "a space is checked with the configurations of its model"


def test_an_option_of_another_model_is_noticed():
    space = parse_space({"model.network.heads": {"choice": [1]}}, "x")
    with pytest.raises(ConfigurationError, match="unknown option"):
        space.check(whole_config("mosi.yaml"), [])
