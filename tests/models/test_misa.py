"""MISA: padding, absence, any modalities, and the model of factors that it is."""

import math

import pytest
import torch
from batches import make_batch, trimmed
from torch.nn import functional as F

from mfm.errors import ConfigurationError
from mfm.models.factor_model import FactorModel
from mfm.models.misa import MISA

DIMS = {"a": 3, "b": 2, "c": 4, "type": 1}
LENGTHS = {"a": [5, 0, 1, 2], "b": [2, 4, 0, 3], "c": [3, 1, 0, 7], "type": [1, 2, 3, 0]}
SETS = [["a"], ["a", "b"], ["a", "b", "type"], list(DIMS)]


def build(names, **settings):
    torch.manual_seed(0)
    dims = {name: DIMS[name] for name in names}
    model = MISA(dims, 2, **{"hidden": 4, **settings}).eval()
    return model, make_batch(dims, {name: LENGTHS[name] for name in names})


def flat(output):
    return {
        "prediction": output.prediction,
        **{
            f"{field}/{m}": x
            for field, part in zip(output._fields[1:-1], output[1:-1], strict=True)
            for m, x in part.items()
        },
    }


@pytest.mark.parametrize("names", SETS, ids=len)
def test_parameters_are_as_many_as_documented(names):
    model, batch = build(names, layers=2)
    m, h = len(names), 4
    encoders = sum(parameter.numel() for parameter in model.encoders.parameters())
    own = (2 * m + 1) * (h * h + h) + 2 * m * h + 2 * (12 * h * h + 13 * h) + 2 * h
    own += m * h * (2 * m * h + 1) + 2 * (m * h + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == encoders + own
    assert model(*batch).prediction.shape == (4, 2)


@pytest.mark.parametrize("names", SETS, ids=len)
def test_padding_and_absence_are_never_a_value(names):
    model, (features, lengths, present) = build(names)
    present["a"] = present["a"].clone()
    present["a"][0] = False
    expected = flat(model(features, lengths, present))
    for name, x in features.items():
        padded = torch.arange(x.shape[1]) >= lengths[name].masked_fill(~present[name], 0)[:, None]
        features[name] = torch.cat([x.masked_fill(padded[..., None], math.nan), torch.full_like(x[:, :2], 1e9)], dim=1)
    torch.testing.assert_close(flat(model(features, lengths, present)), expected)
    sum(value.square().sum() for value in expected.values()).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_a_batch_equals_its_samples_one_by_one():
    model, batch = build(list(DIMS))
    together = flat(model(*batch))
    for row in range(4):
        torch.testing.assert_close(flat(model(*trimmed(batch, row))), {k: x[[row]] for k, x in together.items()})


def test_the_equations_of_a_sample_with_everything():
    model, batch = build(["a", "b"])
    features, lengths, present = trimmed(batch, 0)
    output = model(features, lengths, present)
    for name in ("a", "b"):
        u = model.norms[name](F.relu(model.encoders[name](features[name], lengths[name])))
        s, p = torch.sigmoid(model.shared(u)), torch.sigmoid(model.private[name](u))
        torch.testing.assert_close(output.vectors[name], u)
        torch.testing.assert_close(output.shared[name], s)
        torch.testing.assert_close(output.private[name], p)
        torch.testing.assert_close(output.rebuilt[name], model.rebuild[name](s + p))
    tokens = [output.private["a"], output.private["b"], output.shared["a"], output.shared["b"]]
    attended = model.attention(torch.stack(tokens, dim=1), torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(output.prediction, model.head(attended.reshape(1, -1)))


def test_it_is_a_model_of_factors_that_generates_nothing():
    model, batch = build(["a", "b", "type"])
    seen: FactorModel = model
    codes = seen.encode(*batch)
    assert codes.z_y.shape == (4, 12)
    assert {name: code.shape for name, code in codes.z.items()} == dict.fromkeys(("a", "b", "type"), (4, 4))
    torch.testing.assert_close(seen.predict_from(seen.factorize(codes)), model(*batch).prediction)
    assert seen.decode(seen.factorize(codes), {"a": 3}) == {}
    assert not seen.layout.generates


def test_learns_a_tiny_set_by_heart():
    model, batch = build(["a", "b"], hidden=8, dropout=0.0, dropout_head=0.0)
    target = torch.randn(4, 2)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.02)
    for _ in range(30):
        loss = (model(*batch).prediction - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.25


def test_impossible_settings_are_one_sentence():
    with pytest.raises(ConfigurationError, match="hidden is 0, but must be an integer >= 1"):
        build(["a"], hidden=0)
    with pytest.raises(ConfigurationError, match="did you mean 'lstm'"):
        build(["a"], encoder="lstmm")
