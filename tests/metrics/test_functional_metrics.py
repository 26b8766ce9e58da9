"""Definitions against scikit-learn, scipy and re-derivations in numpy."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from mfm.metrics import UndefinedMetricWarning, functional

# values in float32 with many ties, zeros, halves and boundaries beside arbitrary ones
AWKWARD = [0.0, -0.0, 0.1, -0.1, 0.5, -0.5, 0.7, -0.7, 1.0, -1.0, 1.5, -1.5, 2.5, -2.5, 3.0, -3.0, 3.5, 4.5, 7.0, 1e-30]
values = st.one_of(st.sampled_from(AWKWARD), st.floats(-8, 8, width=32)).map(np.float32)


@st.composite
def pairs(draw, elements=values, minimum=1):
    size = draw(st.integers(minimum, 30))
    arrays = [np.array(draw(st.lists(elements, min_size=size, max_size=size)), dtype=np.float32) for _ in range(2)]
    return arrays[0], arrays[1]


def weighted(truth, guess):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes without a prediction
        return f1_score(truth, guess, average="weighted", zero_division=0)


def rounded(low, high):
    def reference(guess, truth):
        both = [[int(np.round(min(max(float(value), low), high))) for value in array] for array in (guess, truth)]
        return accuracy_score(both[1], both[0])

    return reference


def mosei_class(value):
    """The published if-cascade."""
    if value < -2:
        return -3
    if -2 <= value < -1:
        return -2
    if -1 <= value < 0:
        return -1
    if value == 0:
        return 0
    if value <= 1:
        return 1
    return 2 if value <= 2 else 3


def sims_classes(array, edges):
    """The published loop over intervals open on the left."""
    array, classes = np.clip(array, -1, 1), np.full(len(array), -1)
    for index in range(len(edges) - 1):
        low, high = np.float32(edges[index]), np.float32(edges[index + 1])
        classes[(array > low) & (array <= high)] = index
    assert (classes >= 0).all()
    return classes


def sims(edges):
    return lambda guess, truth: accuracy_score(sims_classes(truth, edges), sims_classes(guess, edges))


def sims_weighted(guess, truth):
    return weighted(sims_classes(truth, (-1.01, 0, 1.01)), sims_classes(guess, (-1.01, 0, 1.01)))


REFERENCES = {
    "mae": (functional.mae, lambda guess, truth: np.abs(guess.astype(float) - truth.astype(float)).mean()),
    "acc2_has0": (functional.accuracy2_has0, lambda guess, truth: accuracy_score(truth >= 0, guess >= 0)),
    "f1_has0": (functional.f1_has0, lambda guess, truth: weighted(truth >= 0, guess >= 0)),
    "acc7": (functional.accuracy7, rounded(-3, 3)),
    "acc5": (functional.accuracy5, rounded(-2, 2)),
    "acc3": (functional.accuracy3, rounded(-1, 1)),
    "acc7_away": (
        functional.accuracy7_away,
        lambda guess, truth: accuracy_score([mosei_class(v) for v in truth], [mosei_class(v) for v in guess]),
    ),
    "sims_acc2": (functional.sims_accuracy2, sims((-1.01, 0.0, 1.01))),
    "sims_acc3": (functional.sims_accuracy3, sims((-1.01, -0.1, 0.1, 1.01))),
    "sims_acc5": (functional.sims_accuracy5, sims((-1.01, -0.7, -0.1, 0.1, 0.7, 1.01))),
    "sims_f1": (functional.sims_f1, sims_weighted),
    "sims_mae": (
        functional.sims_mae,
        lambda guess, truth: np.abs(np.clip(guess.astype(float), -1, 1) - np.clip(truth.astype(float), -1, 1)).mean(),
    ),
    "threshold_acc": (
        partial(functional.threshold_accuracy, threshold=3.5),
        lambda guess, truth: accuracy_score(truth > 3.5, guess > 3.5),
    ),
    "threshold_f1": (
        partial(functional.threshold_f1, threshold=3.5),
        lambda guess, truth: weighted(truth > 3.5, guess > 3.5),
    ),
    "trait_acc7": (functional.trait_accuracy7, rounded(1, 7)),
}


@pytest.mark.parametrize("name", REFERENCES)
@given(pair=pairs())
def test_equals_reference(name, pair):
    function, reference = REFERENCES[name]
    guess, truth = pair
    assert function(torch.from_numpy(guess), torch.from_numpy(truth)).item() == pytest.approx(
        reference(guess, truth), abs=1e-12
    )


@given(pair=pairs())
def test_non0_drops_zeros_of_the_label_only(pair):
    guess, truth = pair
    kept = truth != 0
    if not kept.any():
        with pytest.warns(UndefinedMetricWarning, match="every label is zero"):
            assert functional.accuracy2_non0(torch.from_numpy(guess), torch.from_numpy(truth)).isnan()
        return
    tensors = torch.from_numpy(guess), torch.from_numpy(truth)
    expected = accuracy_score(truth[kept] > 0, guess[kept] > 0)
    assert functional.accuracy2_non0(*tensors).item() == pytest.approx(expected, abs=1e-12)
    assert functional.f1_non0(*tensors).item() == pytest.approx(weighted(truth[kept] > 0, guess[kept] > 0), abs=1e-12)


def test_prediction_of_zero_is_non_negative_under_has0_and_negative_under_non0():
    preds, target = torch.tensor([0.0]), torch.tensor([1.0])
    assert functional.accuracy2_has0(preds, target) == 1
    assert functional.accuracy2_non0(preds, target) == 0


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e12, 1e300])
@pytest.mark.parametrize("shift", [0.0, 3.0, -1e4])
def test_pearson_equals_scipy_at_any_scale(scale, shift):
    draws = np.random.default_rng(3)
    guess = draws.normal(size=50)
    truth = guess + draws.normal(size=50)
    expected = stats.pearsonr(guess, truth).statistic
    result = functional.pearson(torch.from_numpy((guess + shift) * scale), torch.from_numpy(truth - shift))
    assert result.item() == pytest.approx(expected, abs=1e-9)


@given(pair=pairs(minimum=2))
def test_pearson_equals_scipy(pair):
    guess, truth = (array.astype(float) for array in pair)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = functional.pearson(torch.from_numpy(guess), torch.from_numpy(truth)).item()
        if len(set(guess)) == 1 or len(set(truth)) == 1:
            assert np.isnan(result)
            return
        expected = stats.pearsonr(guess, truth).statistic
    # near-constant inputs are ill-conditioned for scipy's sums and ours alike
    if min(np.ptp(guess), np.ptp(truth)) > 1e-6:
        assert result == pytest.approx(expected, abs=1e-9)
    assert -1 <= result <= 1


@pytest.mark.parametrize(
    ("preds", "target", "reason"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "predictions are constant"),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "labels are constant"),
        ([1.0], [2.0], "constant"),
        ([1.0, float("inf")], [2.0, 3.0], "infinite"),
    ],
)
def test_pearson_is_nan_with_a_warning_where_undefined(preds, target, reason):
    with pytest.warns(UndefinedMetricWarning, match=reason):
        assert functional.pearson(torch.tensor(preds), torch.tensor(target)).isnan()


def test_halves_round_to_even():
    preds = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    assert functional.accuracy7(preds, torch.tensor([0.0, 2.0, 2.0, 0.0, -2.0, -2.0])) == 1
    assert functional.trait_accuracy7(preds + 2, torch.tensor([2.0, 4.0, 4.0, 2.0, 1.0, 1.0])) == 1


def test_just_beside_a_half_is_seen_in_float64():
    preds = torch.tensor([0.5 - 1e-12, 0.5 + 1e-12], dtype=torch.float64)
    assert functional.accuracy7(preds, torch.tensor([0.0, 1.0], dtype=torch.float64)) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_label_on_a_sims_boundary_keeps_its_class_in_any_precision(dtype):
    boundaries = torch.tensor([-0.7, -0.1, 0.1, 0.7], dtype=dtype)
    below = torch.tensor([-0.8, -0.2, 0.0, 0.2], dtype=dtype)
    assert functional.sims_accuracy5(boundaries, below) == 1


# ----------------------------------------------------------------------------------------------- classes
@given(
    logits=st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=width, max_size=width), min_size=1, max_size=20
        )
    ),
    data=st.data(),
)
def test_class_metrics_equal_sklearn(logits, data):
    count, width = len(logits), len(logits[0])
    truth = np.array(data.draw(st.lists(st.integers(0, width - 1), min_size=count, max_size=count)))
    guess = np.array(logits).argmax(axis=1)
    tensors = torch.tensor(logits), torch.from_numpy(truth)
    assert functional.class_accuracy(*tensors).item() == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    assert functional.class_f1(*tensors).item() == pytest.approx(weighted(truth, guess), abs=1e-12)


@given(pair=pairs(elements=st.sampled_from([-1.0, 0.0, 1.0])))
def test_binary_metrics_equal_sklearn(pair):
    logits, truth = pair[0], (pair[1] > 0).astype(np.float32)
    tensors = torch.from_numpy(logits), torch.from_numpy(truth)
    assert functional.binary_accuracy(*tensors).item() == pytest.approx(accuracy_score(truth, logits > 0), abs=1e-12)
    assert functional.binary_f1(*tensors).item() == pytest.approx(weighted(truth, logits > 0), abs=1e-12)


# ------------------------------------------------------------------------------------ rules of every function
PLAIN = [function for function, _ in REFERENCES.values()] + [
    functional.accuracy2_non0,
    functional.f1_non0,
    functional.pearson,
    functional.sims_pearson,
    functional.binary_accuracy,
    functional.binary_f1,
]


@pytest.mark.parametrize("function", PLAIN)
class TestEveryDefinition:
    def test_masked_samples_do_not_exist(self, function):
        draws = torch.Generator().manual_seed(1)
        preds, target = torch.randn(40, generator=draws), torch.randn(40, generator=draws)
        mask = torch.rand(40, generator=draws) < 0.5
        spoiled = target.masked_fill(~mask, float("nan")), preds.masked_fill(~mask, float("nan"))
        expected = function(preds[mask], target[mask])
        assert torch.equal(function(spoiled[1], spoiled[0], mask), expected)
        assert torch.equal(function(spoiled[1][:, None], spoiled[0][:, None], mask[:, None]), expected)

    def test_order_does_not_matter(self, function):
        draws = torch.Generator().manual_seed(2)
        preds, target = torch.randn(200, generator=draws), torch.randn(200, generator=draws)
        order = torch.randperm(200, generator=draws)
        assert function(preds[order], target[order]).item() == pytest.approx(function(preds, target).item(), abs=1e-12)

    @pytest.mark.parametrize("which", [0, 1])
    def test_nan_gives_nan_with_a_warning(self, function, which):
        pair = [torch.tensor([1.0, -0.5, 2.0]), torch.tensor([0.5, -1.0, 1.0])]
        pair[which][1] = float("nan")
        with pytest.warns(UndefinedMetricWarning, match="1 of 3 (predictions|labels) are NaN"):
            assert function(*pair).isnan()

    def test_no_sample_gives_nan_with_a_warning(self, function):
        with pytest.warns(UndefinedMetricWarning, match="no labelled sample"):
            assert function(torch.zeros(0), torch.zeros(0)).isnan()
        with pytest.warns(UndefinedMetricWarning, match="no labelled sample"):
            assert function(torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool)).isnan()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_computed_in_float64(self, function, dtype):
        draws = torch.Generator().manual_seed(4)
        preds, target = torch.randn(60, generator=draws).to(dtype), torch.randn(60, generator=draws)
        result = function(preds, target)
        assert result.dtype == torch.float64
        assert torch.equal(result, function(preds.double(), target))

    def test_shapes_that_would_broadcast_are_refused(self, function):
        for preds, target in [((3,), (4,)), ((3, 2), (3, 2)), ((1,), (3,)), ((), ())]:
            with pytest.raises(ValueError, match=r"elements|must be"):
                function(torch.zeros(preds), torch.zeros(target))


def test_nan_logits_of_classes_give_nan():
    logits = torch.tensor([[0.0, float("nan")], [1.0, 0.0]])
    for function in (functional.class_accuracy, functional.class_f1):
        with pytest.warns(UndefinedMetricWarning, match="1 of 2 predictions are NaN"):
            assert function(logits, torch.tensor([1, 0])).isnan()
        with pytest.warns(UndefinedMetricWarning, match="no labelled sample"):
            assert function(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).isnan()
        with pytest.raises(ValueError, match="logits must be"):
            function(torch.zeros(3), torch.zeros(3, dtype=torch.int64))
        assert function(logits, torch.tensor([-100, 0]), torch.tensor([False, True])) == 1


@pytest.mark.parametrize("guess", [0.0, 1.0])
def test_one_class_of_labels_gives_what_the_definition_gives(guess):
    preds, target = torch.tensor([guess - 0.5, 0.5]), torch.ones(2)
    expected = weighted(np.ones(2), preds.numpy() > 0)
    assert functional.binary_f1(preds, target).item() == pytest.approx(expected)
    assert functional.f1_has0(preds, target).item() == pytest.approx(expected)
