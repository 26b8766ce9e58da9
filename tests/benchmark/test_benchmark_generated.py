import numpy as np
import pytest

from mfm.benchmark.generated import conditional_median, generate
from mfm.benchmark.predictions import read_predicted
from mfm.benchmark.suite import CorpusEntry
from mfm.data.factor_files import read_true_factors
from mfm.data.factor_world import FactorWorld
from mfm.data.readers import fingerprint
from mfm.errors import ConfigurationError

OPTIONS = {"samples": [6, 4, 40], "dims": {"text": 3, "audio": 2}, "steps": 2, "label_noise": 0.5}


def entry(**changes):
    return CorpusEntry("world", "A world", "mosi", "mosi", generate={**OPTIONS, **changes})


def test_no_function_of_the_label_factor_has_a_smaller_error():
    world = FactorWorld(dims={"text": 2}, steps=1, label_noise=0.5)
    test = world.draw((0, 0, 20000)).splits["test"]
    error = np.abs(conditional_median(world, test) - test.labels).mean()
    # the mean absolute deviation of a normal variable, before the few labels at the ends of the range are clipped
    assert error == pytest.approx(0.5 / np.sqrt(1.25) * np.sqrt(2 / np.pi), rel=0.02)
    for degree in (1, 3, 5):
        fitted = np.polynomial.Polynomial.fit(test.label_factor[:, 0], test.labels[:, 0], degree)
        assert np.abs(fitted(test.label_factor[:, 0]) - test.labels[:, 0]).mean() > error * 0.998


def test_a_corpus_is_made_once_and_always_the_same(tmp_path):
    first = generate(entry(), tmp_path / "a")
    assert generate(entry(), tmp_path / "a") == first
    assert fingerprint(generate(entry(), tmp_path / "b")) == fingerprint(first)
    assert generate(entry(label_noise=0.1), tmp_path / "a") != first
    bound = read_predicted(tmp_path / "b" / "predictions", "world/bound.npz")
    truth = read_true_factors(first)["test"]
    assert tuple(bound.ids) == truth.ids
    assert np.corrcoef(bound.prediction[:, 0], truth.factors["y"][:, 0])[0, 1] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label_nois": 1}, "unknown key 'label_nois': did you mean 'label_noise'"),
        ({"samples": [1, 2]}, "samples is .1, 2."),
        ({"dims": 3}, "corpora.world.generate"),
        ({"corpus": "youtube"}, "has classes"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, changes, says):
    with pytest.raises(ConfigurationError, match=says):
        generate(entry(**changes), tmp_path)
