"""Filling in missing modalities, against numpy and scikit-learn."""

import h5py
import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from mfm.analysis.completion import PENALTIES, Accuracy, RidgeFromObserved, complete, write_completed
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.models import MFM, Normalizer
from mfm.models.surrogate import surrogate_for

DIMS = {"audio": 2, "text": 3}


def batch(rows=6, steps=4, seed=0, lengths=None):
    generator = torch.Generator().manual_seed(seed)
    own = lengths or {name: torch.full((rows,), steps) for name in DIMS}
    features = {"audio": torch.randn(rows, steps, 2, generator=generator)}
    noise = 0.3 * torch.randn(rows, steps, 3, generator=generator)
    features["text"] = features["audio"] @ torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]]) + noise + 0.5
    for name, x in features.items():
        features[name] = x * (torch.arange(steps) < own[name][:, None])[..., None]
    present = {name: length > 0 for name, length in own.items()}
    target = torch.zeros(rows, 1)
    return AffectBatch(features, own, present, target, target.bool(), [str(row) for row in range(rows)])


def network():
    torch.manual_seed(0)
    model = MFM(DIMS, 1, z_y=3, z=3, f_y=3, f=3, fusion={"name": "concat_lstm", "hidden": 4}).eval()
    return model, surrogate_for(model, width=3, hidden=4).eval(), Normalizer(DIMS)


def test_what_is_hidden_has_no_influence_and_lengths_are_known_or_the_longest():
    lengths = {"audio": torch.tensor([4, 2, 3]), "text": torch.tensor([2, 4, 0])}
    given = batch(3, lengths=lengths)
    model, surrogate, normalizer = network()
    found = complete(model, surrogate, normalizer, given, ["text"])["text"]
    assert found.lengths.tolist() == [2, 4, 3]
    assert found.known.tolist() == [True, True, False]
    assert not found.values[0, 2:].any()
    assert found.values[2, :3].any()
    torch.testing.assert_close(found.truth[1], given.features["text"][1])
    garbage = {**given.features, "text": torch.full_like(given.features["text"], 1e6)}
    again = complete(model, surrogate, normalizer, given._replace(features=garbage), ["text"])["text"]
    assert torch.equal(again.values, found.values)


@pytest.mark.parametrize("aligned", [True, False])
def test_ridge_is_scikit_learns_with_the_penalty_that_validation_prefers(aligned):
    train, valid, test = ([batch(30, seed=seed)] for seed in (1, 2, 3))
    ridge = RidgeFromObserved(Normalizer(DIMS), ["audio"], "text", aligned=aligned)
    ridge.fit(train, valid)

    def table(part):
        x = part[0].features["audio"]
        columns = [x.mean(1, keepdim=True).expand_as(x), *([x] if aligned else [])]
        return torch.cat(columns, dim=2).flatten(0, 1).numpy(), part[0].features["text"].flatten(0, 1).numpy()

    fitted = {penalty: Ridge(alpha=penalty).fit(*table(train)) for penalty in PENALTIES}
    errors = {p: ((model.predict(table(valid)[0]) - table(valid)[1]) ** 2).sum() for p, model in fitted.items()}
    assert ridge.penalty == min(errors, key=errors.get)
    expected = fitted[ridge.penalty].predict(table(test)[0]).reshape(30, 4, 3)
    np.testing.assert_allclose(ridge.predict(test[0], 4).numpy(), expected, atol=1e-4)


def test_ridge_needs_samples_that_have_the_modality():
    nothing = batch(2, lengths={"audio": torch.tensor([4, 4]), "text": torch.tensor([0, 0])})
    with pytest.raises(ConfigurationError, match="'text'"):
        RidgeFromObserved(Normalizer(DIMS), ["audio"], "text", aligned=True).fit([nothing], [nothing])


def test_accuracy_is_scikit_learns_r2_over_batches():
    generator = torch.Generator().manual_seed(0)
    accuracy = Accuracy(3)
    truths, guesses = [], []
    for rows in (4, 7):
        truth = torch.randn(rows, 5, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.0]) + 2
        guess = truth + torch.randn(rows, 5, 3, generator=generator)
        mask = torch.rand(rows, 5, generator=generator) < 0.6
        accuracy.update(guess, truth, mask)
        truths.append(truth[mask])
        guesses.append(guess[mask])
    truth, guess = torch.cat(truths).numpy(), torch.cat(guesses).numpy()
    found = accuracy.per_feature()
    assert found[:2].tolist() == pytest.approx(r2_score(truth[:, :2], guess[:, :2], multioutput="raw_values").tolist())
    assert found[2].isnan()
    errors, variation = ((guess - truth) ** 2).sum(), ((truth - truth.mean(0)) ** 2).sum()
    assert accuracy.overall() == pytest.approx(1 - errors / variation, rel=1e-5)
    assert accuracy.steps == len(truth)


def test_the_file_holds_padded_sequences(tmp_path):
    sequences = [torch.ones(2, 3), torch.full((4, 3), 2.0)]
    write_completed(tmp_path / "r.h5", ["a", "b"], {"text": sequences}, {"split": "test"})
    with h5py.File(tmp_path / "r.h5") as file:
        assert file.attrs["format"] == "mfm-reconstruction"
        assert file.attrs["split"] == "test"
        assert file["lengths/text"][:].tolist() == [2, 4]
        assert file["features/text"].shape == (2, 4, 3)
        assert not file["features/text"][0, 2:].any()
        assert list(file["ids"].asstr()) == ["a", "b"]
