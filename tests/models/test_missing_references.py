"""The references for missing modalities: what they may look at, and what they leave alone."""

import pytest
import torch
from batches import SIZES, full_batch, make_batch

from mfm.errors import ConfigurationError
from mfm.models.mfm import MFM
from mfm.models.missing_references import BestOfSubsets, SubsetGenerators, SubsetPredictors, SubsetSurrogates
from mfm.models.subsets import all_subsets

DIMS = {"a": 3, "b+c": 2, "type": 4}
# one sample for each non-empty subset, in the order of `all_subsets`, and one with nothing
PATTERNS = [*all_subsets(DIMS), ()]
LENGTHS = {name: [4 - (index + len(name)) % 3 if name in s else 0 for index, s in enumerate(PATTERNS)] for name in DIMS}


def networks(kind, aligned=True):
    torch.manual_seed(0)
    if kind == "predictors":
        return SubsetPredictors(DIMS, 2, hidden=6, width=5, aligned=aligned)
    if kind == "generators":
        return SubsetGenerators(DIMS, hidden=6, code=5, aligned=aligned)
    model = MFM(DIMS, 1, **SIZES, fusion={"name": "concat_lstm", "hidden": 6})
    surrogates = SubsetSurrogates(DIMS, SIZES["z_y"], dict.fromkeys(DIMS, SIZES["z"]), hidden=6, aligned=aligned)
    return model, surrogates


def garbage(batch):
    """The same batch with NaN wherever nothing was observed."""
    features, lengths, present = batch
    spoiled = {
        name: x.masked_fill((torch.arange(x.shape[1]) >= lengths[name][:, None])[..., None], torch.nan)
        for name, x in features.items()
    }
    return spoiled, lengths, present


def results(kind, batch, aligned=True):
    built = networks(kind, aligned)
    if kind == "surrogates":
        model, surrogates = built
        codes = surrogates(model.encode(*batch), *batch)
        return {"z_y": codes.z_y, **codes.z}
    found = built(*batch)
    return (
        {"y": found} if kind == "predictors" else {**found.features, **{f"T {n}": v for n, v in found.lengths.items()}}
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("kind", ["predictors", "generators", "surrogates"])
def test_what_is_missing_changes_nothing_and_samples_do_not_touch_each_other(kind, aligned):
    batch = make_batch(DIMS, LENGTHS, steps=dict.fromkeys(DIMS, 4))
    together = results(kind, batch, aligned)
    spoiled = results(kind, garbage(batch), aligned)
    for name, value in together.items():
        assert torch.equal(spoiled[name], value), name
    for row in range(len(PATTERNS)):
        alone = results(kind, tuple({n: v[[row]] for n, v in part.items()} for part in batch), aligned)
        for name, value in together.items():
            torch.testing.assert_close(alone[name][0], value[row], msg=f"{name} of sample {row}")


def test_each_sample_is_predicted_by_its_subsets_own_network():
    predictors = networks("predictors")
    batch = make_batch(DIMS, LENGTHS, steps=dict.fromkeys(DIMS, 4))
    before = predictors(*batch)
    assert torch.equal(before[-1], torch.zeros(2))
    for index, subset in enumerate(predictors.subsets):
        with torch.no_grad():
            predictors.heads[index][-1].bias += 1.0
        after = predictors(*batch)
        changed = (after - before).abs().sum(dim=1) > 0
        assert changed.nonzero().flatten().tolist() == [PATTERNS.index(subset)]
        before = after


def test_generation_completes_what_is_missing_and_keeps_what_is_there():
    generators = networks("generators")
    features, lengths, present = batch = make_batch(DIMS, LENGTHS, steps=dict.fromkeys(DIMS, 4))
    full, full_lengths = generators(*batch)
    for row, subset in enumerate(PATTERNS):
        reach = max(int(lengths[name][row]) for name in DIMS)
        for name in DIMS:
            assert int(full_lengths[name][row]) == (int(lengths[name][row]) if name in subset else reach)
            if name in subset:
                assert torch.equal(full[name][row], features[name][row])
            elif subset:
                assert full[name][row, :reach].abs().sum() > 0
            assert not full[name][row, int(full_lengths[name][row]) :].any()
    assert present["a"].sum() == 4  # the batch itself is left as it was


def test_surrogates_replace_the_codes_of_what_is_missing_alone():
    model, surrogates = networks("surrogates")
    batch = make_batch(DIMS, LENGTHS, steps=dict.fromkeys(DIMS, 4))
    own = model.encode(*batch)
    inferred = surrogates(own, *batch)
    for row, subset in enumerate(PATTERNS):
        untouched = set(DIMS) if len(subset) in (0, len(DIMS)) else set(subset)
        for name in DIMS:
            assert torch.equal(inferred.z[name][row], own.z[name][row]) == (name in untouched)
        assert torch.equal(inferred.z_y[row], own.z_y[row]) == (len(subset) in (0, len(DIMS)))


def test_a_modality_that_the_batch_lacks_is_as_one_without_samples():
    batch = full_batch(DIMS, 3, 4)
    without = tuple({name: part[name] for name in DIMS if name != "a"} for part in batch)
    present = {**batch[2], "a": torch.zeros(3, dtype=torch.bool)}
    for kind in ("predictors", "generators", "surrogates"):
        given, left_out = results(kind, (*batch[:2], present)), results(kind, without)
        for name in given:
            assert torch.equal(given[name], left_out[name]), (kind, name)


def test_every_subset_keeps_its_own_best_epoch():
    predictors = networks("predictors")
    best = BestOfSubsets(predictors)
    batch = make_batch(DIMS, LENGTHS, steps=dict.fromkeys(DIMS, 4))
    assert not best.known()
    losses = torch.tensor([[3.0] * 7, [2.0, 4.0, 2.0, 4.0, 2.0, 4.0, 2.0], [1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 2.0]])
    epochs = []
    for row in losses:
        with torch.no_grad():
            for parameter in predictors.parameters():
                parameter += 0.1
        best.update(predictors, row)
        epochs.append(predictors(*batch).detach())
    assert best.known()
    assert torch.equal(best.loss, losses.amin(dim=0))
    chosen = best.networks(*batch)
    for index, epoch in enumerate([2, 2, 1, 0, 1, 0, 2]):  # of equals the last
        assert torch.equal(chosen[index], epochs[epoch][index])
    assert not any(parameter.requires_grad for parameter in best.parameters())


def test_one_modality_leaves_nothing_to_infer():
    assert SubsetPredictors({"a": 3}, 1).subsets == [("a",)]
    for build in (lambda: SubsetGenerators({"a": 3}), lambda: SubsetSurrogates({"a": 3}, 2, {"a": 2})):
        with pytest.raises(ConfigurationError, match="only modality"):
            build()
