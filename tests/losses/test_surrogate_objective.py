"""The surrogate's objective against plain loops."""

import pytest
import torch

from mfm.losses import MFMObjective
from mfm.losses.surrogate import SurrogateObjective, latent_loss

NAMES = ("audio", "text")
PRESENT = {"audio": torch.tensor([True, True, True, False]), "text": torch.tensor([True, True, False, True])}
OBSERVED = {"audio": torch.tensor([True, False, True, False]), "text": torch.tensor([False, True, False, True])}
LENGTHS = {"audio": torch.tensor([2, 3, 1, 2]), "text": torch.tensor([3, 1, 2, 2])}


def arguments(rows=4, steps=3):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "prediction": draw(rows, 1),
        "target": draw(rows, 1),
        "target_mask": torch.tensor([[True], [False], [True], [True]]),
        "reconstruction": {name: draw(rows, steps, 2) for name in NAMES},
        "features": {name: draw(rows, steps, 2) for name in NAMES},
        "lengths": LENGTHS,
        "present": PRESENT,
        "observed": OBSERVED,
        "z_y": draw(rows, 5).requires_grad_(),
        "z": {name: draw(rows, 4).requires_grad_() for name in NAMES},
        "full_z_y": draw(rows, 5).requires_grad_(),
        "full_z": {name: draw(rows, 4).requires_grad_() for name in NAMES},
    }


def test_parts_are_those_of_plain_loops():
    given = arguments()
    found = SurrogateObjective(MFMObjective("regression", prediction=2.0, reconstruction={"audio": 0.5, "text": 3.0}))(
        **given
    )
    latent = 0.0
    rows = [row for row in range(4) if PRESENT["audio"][row] and PRESENT["text"][row]]  # Z_y has a target
    latent += sum(((given["z_y"][r] - given["full_z_y"][r]) ** 2).mean() for r in rows) / len(rows)
    for name in NAMES:
        rows = [row for row in range(4) if PRESENT[name][row] and not OBSERVED[name][row]]
        latent += sum(((given["z"][name][r] - given["full_z"][name][r]) ** 2).mean() for r in rows) / len(rows)
    prediction = sum(abs(given["prediction"][r, 0] - given["target"][r, 0]) for r in (0, 2, 3)) / 3
    reconstruction = {}
    for name in NAMES:
        errors = [
            (given["reconstruction"][name][r, t] - given["features"][name][r, t]) ** 2
            for r in range(4)
            if PRESENT[name][r]
            for t in range(LENGTHS[name][r])
        ]
        reconstruction[name] = torch.stack(errors).mean()
    expected = {
        "surrogate/latent": latent,
        "surrogate/prediction": prediction,
        **{f"surrogate/reconstruction/{name}": value for name, value in reconstruction.items()},
    }
    assert found.parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found.parts[name], value)
    total = latent + 2.0 * prediction + 0.5 * reconstruction["audio"] + 3.0 * reconstruction["text"]
    torch.testing.assert_close(found.total, total)


def test_targets_get_no_gradient_and_everything_inferred_gets_one():
    given = arguments()
    SurrogateObjective(MFMObjective("regression"))(**given).total.backward()
    assert given["full_z_y"].grad is None
    assert all(code.grad is None for code in given["full_z"].values())
    assert given["z_y"].grad is not None
    for name in NAMES:
        counted = given["z"][name].grad.abs().sum(1) > 0
        assert torch.equal(counted, PRESENT[name] & ~OBSERVED[name])


def test_nothing_hidden_is_zero_with_zero_gradients():
    given = arguments() | {"observed": PRESENT}
    parts = SurrogateObjective(MFMObjective("regression"))(**given)
    parts.total.backward()
    assert all(code.grad is not None and not code.grad.any() for code in given["z"].values())


def test_a_model_without_head_has_no_prediction_loss():
    given = arguments() | {"prediction": torch.zeros(4, 0)}
    assert "surrogate/prediction" not in SurrogateObjective(MFMObjective("regression"))(**given).parts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_codes_that_do_not_count_have_no_influence(value):
    inferred = torch.randn(3, 2, requires_grad=True)
    target = torch.randn(3, 2)
    mask = torch.tensor([True, False, True])
    clean = latent_loss(inferred, target, mask)
    target[1] = value
    loss = latent_loss(inferred, target, mask)
    loss.backward()
    assert torch.equal(loss, clean)
    assert torch.isfinite(inferred.grad).all()
