"""Search spaces: what a YAML file may say, what it means for a configuration, and one sentence for every mistake."""

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mfm.errors import ConfigurationError
from mfm.tuning.space import current_value, parse_space, with_values

CONFIG = {
    "seed_everything": 1,
    "model": {
        "class_path": "MFMModule",
        "init_args": {
            "lr": 1e-3,
            "z": 80,
            "dropout": {"text": 0.5, "default": 0.1},
            "encoder": "lstm",
            "fusion": {"name": "mfn", "hidden": {"audio": 32, "default": 128}, "memory": 64},
            "optimizer": "adam",
            "surrogate": None,
        },
    },
    "data": {"class_path": "MOSIDataModule", "init_args": {"path": "x.pkl", "batch_size": 64}},
    "trainer": {"max_epochs": 40},
    "early_stopping": {"patience": 8},
}
MODALITIES = ("audio", "text")


def space_of(text):
    return parse_space(yaml.safe_load(text), "x.yaml")


def test_ranges_reach_optuna_as_they_are_written():
    space = space_of(
        """
        model.lr: {log_uniform: [1e-4, 3e-3]}
        model.init_args.dropout: {uniform: [0.0, 0.5]}
        model.fusion.memory: {log_int: [8, 128]}
        early_stopping.patience: {int: [3, 9]}
        model.optimizer: {choice: [adam, {name: sgd, momentum: 0.9}, null]}
        """
    )
    study = optuna.create_study()
    values = [space.suggest(study.ask()) for _ in range(30)]
    assert study.trials[0].distributions == {
        "model.lr": FloatDistribution(1e-4, 3e-3, log=True),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "model.fusion.memory": IntDistribution(8, 128, log=True),
        "early_stopping.patience": IntDistribution(3, 9),
        "model.optimizer": CategoricalDistribution(("adam", '{"momentum": 0.9, "name": "sgd"}', None)),
    }
    drawn = [value["model.optimizer"] for value in values]
    assert all(choice in drawn for choice in ("adam", {"name": "sgd", "momentum": 0.9}, None))
    assert [space.decode(trial.params) for trial in study.trials] == values


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "is a mapping"),
        ("model.lr: 3", "must be one range"),
        ("model.lr: {loguniform: [1, 2]}", "did you mean 'log_uniform'"),
        ("model.lr: {uniform: 3}", "takes a list"),
        ("model.lr: {uniform: [1, 2, 3]}", "two numbers"),
        ("model.lr: {uniform: [2, 1]}", "the lower one first"),
        ("model.lr: {uniform: [.nan, 1]}", "two numbers"),
        ("model.lr: {log_uniform: [0, 1]}", "above 0"),
        ("model.z: {int: [1.5, 3]}", "two integers"),
        ("model.z: {choice: []}", "takes a list"),
        ("model.z: {choice: [{a: 1}, {a: 1}]}", "given twice"),
    ],
)
def test_mistakes_in_a_space(text, sentence):
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        space_of(text)
    assert str(caught.value).startswith("x.yaml: ")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("model.lrr", "did you mean 'model.lr'"),
        ("modle.lr", "did you mean 'model.lr'"),
        ("model", "unknown option 'model'"),
        ("trainer.max_epoch", "did you mean 'trainer.max_epochs'"),
        ("model.encoder.hiden", "'hiden' is no setting of encoder 'lstm'"),
        ("model.fusion.memry", "did you mean 'memory'"),
        ("model.z.txt", "did you mean 'text'"),
        ("data.path", "says what is scored"),
        ("seed_everything", "says what is scored"),
        ("trainer.limit_val_batches", "says what is scored"),
    ],
)
def test_options_that_the_configuration_does_not_have(option, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        space_of(f"{option}: {{choice: [1, 2]}}").check(CONFIG, MODALITIES)


def test_options_that_it_has():
    options = "model.lr model.z model.z.text model.dropout.default model.fusion.hidden model.optimizer.betas"
    space_of("\n".join(f"{option}: {{choice: [1, 2]}}" for option in options.split())).check(CONFIG, MODALITIES)


def test_current_values_include_the_defaults_of_parts():
    assert current_value(CONFIG, "model.lr") == 1e-3
    assert current_value(CONFIG, "model.z.text") == 80
    assert current_value(CONFIG, "model.dropout.audio") == 0.1
    assert current_value(CONFIG, "model.fusion.attention1_dropout") == 0.0  # MFN's own default
    assert current_value(CONFIG, "model.surrogate") is None


def test_values_are_put_where_they_belong():
    values = {"model.z.text": 16, "model.encoder.layers": 2, "model.fusion.hidden": 64, "data.batch_size": 8}
    changed = with_values(CONFIG, values)
    model = changed["model"]["init_args"]
    assert model["z"] == {"default": 80, "text": 16}
    assert model["encoder"] == {"name": "lstm", "layers": 2}
    assert model["fusion"] == {"name": "mfn", "hidden": 64, "memory": 64}
    assert changed["data"]["init_args"] == {"path": "x.pkl", "batch_size": 8}
    assert CONFIG["model"]["init_args"]["z"] == 80
    assert all(current_value(changed, option) == value for option, value in values.items())


def test_the_configuration_as_it_stands_is_in_the_space():
    space = space_of(
        """
        model.lr: {log_uniform: [1e-4, 3e-3]}
        model.fusion.hidden: {choice: [32, 64]}
        early_stopping.patience: {int: [9, 12]}
        """
    ).with_own_values(CONFIG)
    inside, outside = space.own_parameters(CONFIG)
    assert space.decode(inside) == {"model.lr": 1e-3, "model.fusion.hidden": {"audio": 32, "default": 128}}
    assert outside == ["early_stopping.patience"]
