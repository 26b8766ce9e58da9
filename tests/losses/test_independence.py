"""The independence term of the objective: which rows, which weight, and nothing where it is off."""

import numpy as np
import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.losses import MFMObjective
from mfm.losses.independence import dependences
from mfm.losses.nocco import nocco

DIMS = {"text": 3, "audio": 2}
MEASURES = pytest.mark.parametrize("measure", ["nocco", "hsic"])


def arguments(rows=24, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    lengths = {
        "text": torch.randint(1, 5, (rows,), generator=generator),
        "audio": torch.randint(0, 3, (rows,), generator=generator),
    }
    z_y = torch.randn(rows, 5, generator=generator)
    z = {name: torch.randn(rows, 4, generator=generator) for name in DIMS}
    z["text"] = z["text"] + z_y[:, :4]
    if requires_grad:
        z_y, z = z_y.requires_grad_(), {name: code.requires_grad_() for name, code in z.items()}
    return {
        "prediction": torch.randn(rows, 1, generator=generator),
        "target": torch.randn(rows, 1, generator=generator),
        "target_mask": torch.ones(rows, 1, dtype=torch.bool),
        "reconstruction": {n: torch.randn(rows, 4, d, generator=generator) for n, d in DIMS.items()},
        "features": {n: torch.randn(rows, 4, d, generator=generator) for n, d in DIMS.items()},
        "lengths": lengths,
        "present": {n: v > 0 for n, v in lengths.items()},
        "z_y": z_y,
        "z": z,
    }


def alone(measure):
    """An objective of nothing but the independence term."""
    return MFMObjective(
        "regression", prediction=0, reconstruction=0, mmd=0, independence=1.0, independence_measure=measure
    )


def plain_normalized_hsic(x, y):
    """By the definition, with n x n matrices in numpy."""
    n = len(x)
    centre = np.eye(n) - 1.0 / n

    def kernel(a):
        squared = ((a[:, None] - a[None]) ** 2).sum(-1)
        median = np.median(np.sqrt(squared[~np.eye(n, dtype=bool)]))
        return centre @ np.exp(-squared / (2 * median**2)) @ centre

    k, m = kernel(x), kernel(y)
    return np.trace(k @ m) / np.sqrt((k**2).sum() * (m**2).sum())


def test_off_changes_nothing_and_draws_nothing_more():
    def run(**options):
        torch.manual_seed(3)
        value = MFMObjective("regression", **options)(**arguments())
        return value, torch.get_rng_state()

    (plain, after), (off, after_off), (on, after_on) = run(), run(independence=0.0), run(independence=2.0)
    assert off.total == plain.total
    assert list(off.parts) == list(plain.parts)
    assert torch.equal(after, after_off)
    assert torch.equal(after, after_on)
    extra = on.parts["independence/audio"] + on.parts["independence/text"]
    torch.testing.assert_close(on.total, plain.total + 2.0 * extra)


def levelled(gram, regularization=0.01):
    """G (G + n e I)^-1."""
    n = len(gram)
    return gram @ np.linalg.inv(gram + n * regularization * np.eye(n))


def operator(a):
    """R of samples, with their RBF kernel."""
    n = len(a)
    centre = np.eye(n) - 1.0 / n
    squared = ((a[:, None] - a[None]) ** 2).sum(-1)
    median = np.sort(np.sqrt(squared[~np.eye(n, dtype=bool)]))[(n * (n - 1) - 1) // 2]
    return levelled(centre @ np.exp(-squared / (2 * median**2)) @ centre)


def plain_nocco(x, y):
    """By the definition, with inverses in numpy."""
    r, q = operator(x), operator(y)
    return np.trace(r @ q) / (np.linalg.norm(r) * np.linalg.norm(q))


def test_nocco_of_present_rows_for_codes_and_for_the_prediction():
    given = arguments()
    _, parts = MFMObjective("regression", independence=1.0)(**given)
    for name in DIMS:
        rows = given["present"][name]
        code = given["z"][name][rows].double().numpy()
        expected = sum(plain_nocco(given[other][rows].double().numpy(), code) for other in ("z_y", "prediction"))
        assert float(parts[f"independence/{name}"]) == pytest.approx(expected, rel=1e-4)


def test_nocco_of_classes_knows_their_probabilities_alone():
    """With the linear kernel of the probabilities; what logits have in common says nothing."""
    given = arguments() | {"prediction": 3.0 * torch.randn(24, 4, generator=torch.Generator().manual_seed(8))}
    given |= {"target": torch.zeros(24, dtype=torch.int64), "target_mask": torch.ones(24, dtype=torch.bool)}
    objective = MFMObjective("multiclass", independence=1.0)
    _, parts = objective(**given)
    _, shifted = objective(**given | {"prediction": given["prediction"] + torch.arange(24.0)[:, None]})
    for name in DIMS:
        rows = given["present"][name]
        z_y, code = (part[rows].double().numpy() for part in (given["z_y"], given["z"][name]))
        probabilities = given["prediction"][rows].double().softmax(dim=1).numpy()
        centred = probabilities - probabilities.mean(axis=0)
        r, q = levelled(centred @ centred.T), operator(code)
        expected = plain_nocco(z_y, code) + np.trace(r @ q) / (np.linalg.norm(r) * np.linalg.norm(q))
        assert float(parts[f"independence/{name}"]) == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(shifted[f"independence/{name}"], parts[f"independence/{name}"])


def test_with_nocco_each_block_gives_up_only_what_is_not_its_own():
    """Z_y moves against the generative code alone, the code against the prediction alone, the prediction not at all."""
    given = arguments(requires_grad=True)
    prediction = given["prediction"].requires_grad_()
    known = {"text": (given["z"]["text"], given["present"]["text"])}
    dependences(given["z_y"], known, prediction)["independence/text"].backward()
    assert prediction.grad is None
    fixed = {key: given[key].detach() for key in ("z_y", "prediction")} | {"code": given["z"]["text"].detach()}
    for key, other, moved in (("z_y", "code", given["z_y"]), ("code", "prediction", given["z"]["text"])):
        alone = fixed[key].clone().requires_grad_()
        nocco(alone, fixed[other], weights=given["present"]["text"]).backward()
        torch.testing.assert_close(moved.grad, alone.grad)


def test_a_model_without_head_has_the_code_for_the_label():
    given = arguments()
    known = {name: (code, given["present"][name]) for name, code in given["z"].items()}
    without = dependences(given["z_y"], known, given["prediction"][:, :0])
    with_code = dependences(given["z_y"], known, given["z_y"])
    assert without == with_code


def test_it_is_the_hsic_of_present_rows():
    given = arguments()
    _, parts = MFMObjective("regression", independence=1.0, independence_measure="hsic")(**given)
    for name in DIMS:
        rows = given["present"][name]
        expected = plain_normalized_hsic(given["z_y"][rows].double().numpy(), given["z"][name][rows].double().numpy())
        # an even number of pairs has two medians; torch takes the lower, numpy their mean
        assert float(parts[f"independence/{name}"]) == pytest.approx(expected, abs=2e-3)
    assert parts["independence/text"] > parts["independence/audio"]


@MEASURES
def test_absent_rows_have_no_influence_and_get_no_gradient(measure):
    def run(garbage):
        given = arguments(requires_grad=True)
        with torch.no_grad():
            given["z"]["audio"][~given["present"]["audio"]] = garbage
        total, _ = MFMObjective(
            "regression", prediction=0, reconstruction=0, mmd=0, independence=1.0, independence_measure=measure
        )(**given)
        total.backward()
        return total.detach(), given

    total, given = run(0.0)
    assert run(float("nan"))[0] == total == run(1e30)[0]
    gradient = given["z"]["audio"].grad
    assert gradient[~given["present"]["audio"]].eq(0).all()
    assert gradient[given["present"]["audio"]].ne(0).any()
    assert given["z_y"].grad.ne(0).any()


@MEASURES
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_few_samples_say_nothing(rows, measure):
    given = arguments(rows, requires_grad=True)
    total, parts = MFMObjective(
        "regression", prediction=0, reconstruction=0, mmd=0, independence=1.0, independence_measure=measure
    )(**given)
    total.backward()
    assert parts["independence/text"] == 0
    assert given["z_y"].grad.eq(0).all()


@MEASURES
def test_minimising_it_makes_codes_independent(measure):
    generator = torch.Generator().manual_seed(0)
    z_y = torch.randn(128, 1, generator=generator)
    own = torch.randn(128, 2, generator=generator)
    share = torch.tensor(1.0, requires_grad=True)
    optimizer = torch.optim.Adam([share], lr=0.05)
    objective = MFMObjective(
        "regression", prediction=0, reconstruction=0, mmd=0, independence=1.0, independence_measure=measure
    )
    given = arguments(128)
    given["present"] = {name: torch.ones(128, dtype=torch.bool) for name in DIMS}
    given["lengths"] = {name: torch.ones(128, dtype=torch.int64) for name in DIMS}
    for _ in range(80):
        given |= {"z_y": z_y, "prediction": z_y, "z": dict.fromkeys(DIMS, own + share * z_y**2)}  # not linear
        optimizer.zero_grad()
        objective(**given).total.backward()
        optimizer.step()
    assert share.abs() < 0.1


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), True, "1"])
def test_an_impossible_weight_is_refused(weight):
    with pytest.raises(ConfigurationError, match="the weight of independence is"):
        MFMObjective("regression", independence=weight)


def test_an_unknown_measure_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"unknown independence 'noco'.*nocco"):
        MFMObjective("regression", independence_measure="noco")


def test_a_discriminator_in_the_objective():
    """Its parts are the measure's own, weighed as any other, and its networks are the objective's parameters."""
    given = arguments()
    torch.manual_seed(0)
    objective = MFMObjective(
        "regression", independence=2.0, independence_measure="discriminator", code_dims=(5, {"text": 4, "audio": 4})
    )
    assert objective.discriminator is not None
    for network in objective.discriminator.networks:
        torch.nn.init.normal_(network[-1].weight)
    plain = MFMObjective("regression")
    torch.manual_seed(1)
    with_term = objective(**given)
    torch.manual_seed(1)
    without = plain(**given)
    added = {name: part for name, part in with_term.parts.items() if name not in without.parts}
    assert set(added) == {"independence/text", "independence/audio"}
    torch.testing.assert_close(with_term.total, without.total + 2.0 * sum(added.values()))
    with_term.total.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_a_discriminator_is_made_where_it_is_wanted():
    assert not list(MFMObjective("regression", independence_measure="discriminator").parameters())
    with pytest.raises(ConfigurationError, match="code_dims"):
        MFMObjective("regression", independence=1.0, independence_measure="discriminator")
