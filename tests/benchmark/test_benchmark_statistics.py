import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mfm.benchmark.predictions import Predicted, read_predicted, write_predicted
from mfm.benchmark.statistics import bootstrap, holm, interval, ranks, score_of, two_sided
from mfm.corpora import get_corpus
from mfm.errors import DataFormatError


def predicted(values, target):
    ids = np.array([str(index) for index in range(len(target))])
    mask = np.ones((len(target), 1), dtype=bool)
    return Predicted(values.astype(np.float32)[:, None], target.astype(np.float32)[:, None], mask, ids, "t")


def mae(one, samples):
    return float(np.abs(one.prediction[samples] - one.target[samples]).mean())


def runs(seed, seeds, count=80, error=1.0):
    generator = np.random.default_rng(seed)
    target = np.random.default_rng(7).standard_normal(count)
    return [predicted(target + error * generator.standard_normal(count), target) for _ in range(seeds)]


def test_interval_of_one_run_is_scipys_percentile_bootstrap():
    (one,) = several = runs(0, 1)
    drawn = bootstrap(mae, {"a": several}, resamples=4000, seed=0)["a"]
    errors = np.abs(one.prediction - one.target)[:, 0]
    theirs = stats.bootstrap((errors,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert interval(drawn) == pytest.approx(theirs.confidence_interval, abs=0.01)


def test_variance_is_that_of_samples_plus_that_of_seeds():
    several = runs(1, 4)
    for factor, one in enumerate(several, start=1):
        one.prediction[:] = one.target + (one.prediction - one.target) * factor / 2
    drawn = bootstrap(mae, {"a": several}, resamples=4000, seed=0)["a"]
    errors = np.array([np.abs(one.prediction - one.target)[:, 0] for one in several])
    # law of total variance for independent draws of seeds (S) and samples (N), both with replacement
    means = errors.mean(axis=1)
    cross = (errors - means[:, None] - errors.mean(axis=0) + errors.mean()).var() / errors.size
    expected = means.var() / len(several) + errors.mean(axis=0).var() / errors.shape[1] + cross
    assert drawn.var() == pytest.approx(expected, rel=0.1)


def test_samples_are_paired_so_that_equal_runs_never_differ():
    (one,) = runs(0, 1)
    drawn = bootstrap(mae, {"a": [one], "b": [one]}, resamples=50, seed=0)
    np.testing.assert_array_equal(drawn["a"], drawn["b"])


def test_a_models_draws_do_not_depend_on_the_others():
    several = {"a": runs(0, 3), "b": runs(1, 3)}
    alone = bootstrap(mae, {"b": several["b"]}, resamples=50, seed=3)["b"]
    np.testing.assert_array_equal(bootstrap(mae, several, resamples=50, seed=3)["b"], alone)


def test_p_values_are_uniform_when_nothing_differs_and_small_when_it_does():
    p_values = []
    for number in range(60):
        both = {"a": runs(2 * number, 1, 40), "b": runs(2 * number + 1, 1, 40)}
        drawn = bootstrap(mae, both, resamples=200, seed=number)
        p_values.append(two_sided(drawn["a"] - drawn["b"]))
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    drawn = bootstrap(mae, {"a": runs(0, 3), "b": runs(1, 3, error=3.0)}, resamples=200, seed=0)
    assert two_sided(drawn["a"] - drawn["b"]) == pytest.approx(2 / 201)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for step, name in enumerate(sorted(p_values, key=p_values.get)):
            if p_values[name] * (len(p_values) - step) > level:
                break
            rejected.add(name)
        assert {name for name, value in adjusted.items() if value <= level} == rejected


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.booleans())
def test_ranks_are_scipys(values, higher):
    named = {str(place): float(value) for place, value in enumerate(values)}
    theirs = stats.rankdata([-value if higher else value for value in values])
    assert list(ranks(named, higher_is_better=higher).values()) == pytest.approx(list(theirs))


@pytest.mark.parametrize("higher", [False, True])
def test_what_is_undefined_ranks_last(higher):
    values = {"a": float("nan"), "b": 0.1, "c": 0.1, "d": float("nan")}
    assert ranks(values, higher_is_better=higher) == {"a": 3.5, "b": 1.5, "c": 1.5, "d": 3.5}


def test_undefined_draws_are_left_out():
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert two_sided(np.array([np.nan, 1.0, 2.0])) == pytest.approx(2 / 3)


def test_a_metric_is_the_corpus_own():
    (one,) = runs(0, 1)
    samples = np.array([3, 3, 5, 8])
    assert score_of(get_corpus("mosi"), "mae")(one, samples) == pytest.approx(mae(one, samples), rel=1e-6)


def test_predictions_come_back_and_share_their_targets(tmp_path):
    first, second = runs(0, 2)
    paths = [
        write_predicted(tmp_path, "c", f"m_{seed}", one.prediction, one.target, one.mask, list(one.ids))
        for seed, one in enumerate((first, second))
    ]
    back = [read_predicted(tmp_path, path) for path in paths]
    np.testing.assert_array_equal(back[1].prediction, second.prediction)
    np.testing.assert_array_equal(back[0].target, first.target)
    assert back[0].targets == back[1].targets
    assert len(list((tmp_path / "c").iterdir())) == 3
    (tmp_path / paths[0]).write_bytes(b"PK")
    with pytest.raises(DataFormatError, match="cannot be read"):
        read_predicted(tmp_path, paths[0])
