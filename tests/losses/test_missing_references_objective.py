"""The objective of the authors' surrogates against plain loops."""

import pytest
import torch

from mfm.losses import MFMObjective
from mfm.losses.missing_references import authors_surrogate_loss

NAMES = ("audio", "text", "vision")
LENGTHS = {
    "audio": torch.tensor([2, 3, 0, 1]),
    "text": torch.tensor([3, 1, 2, 0]),
    "vision": torch.tensor([1, 2, 3, 2]),
}
SUBSET = ("audio", "vision")
SHOWN = [0, 1, 3]  # the samples that have both


def arguments():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "prediction": draw(4, 1),
        "target": draw(4, 1),
        "target_mask": torch.tensor([[True], [False], [True], [True]]),
        "reconstruction": {name: draw(4, 3, 2) for name in NAMES},
        "features": {name: draw(4, 3, 2) for name in NAMES},
        "lengths": LENGTHS,
        "subset": SUBSET,
        "z_y": draw(4, 5).requires_grad_(),
        "z": {name: draw(4, 4).requires_grad_() for name in NAMES},
        "full_z_y": draw(4, 5).requires_grad_(),
        "full_z": {name: draw(4, 4).requires_grad_() for name in NAMES},
    }


def test_parts_are_those_of_plain_loops():
    given = arguments()
    weights = {"audio": 0.5, "text": 3.0, "vision": 1.0}
    found = authors_surrogate_loss(MFMObjective("regression", prediction=2.0, reconstruction=weights), **given)
    latent = sum(((given["z_y"][r] - given["full_z_y"][r]) ** 2).mean() for r in (0, 1)) / 2  # complete samples
    rows = [r for r in SHOWN if LENGTHS["text"][r]]
    latent += sum(((given["z"]["text"][r] - given["full_z"]["text"][r]) ** 2).mean() for r in rows) / len(rows)
    expected = {
        "latent": latent,
        "prediction": sum(abs(given["prediction"][r, 0] - given["target"][r, 0]) for r in (0, 3)) / 2,
    }
    for name in NAMES:
        errors = [
            (given["reconstruction"][name][r, t] - given["features"][name][r, t]) ** 2
            for r in SHOWN
            for t in range(LENGTHS[name][r])
        ]
        expected[f"reconstruction/{name}"] = torch.stack(errors).mean()
    assert found.parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found.parts[name], value)
    total = latent + 2.0 * expected["prediction"]
    total = total + sum(weights[name] * expected[f"reconstruction/{name}"] for name in NAMES)
    torch.testing.assert_close(found.total, total)


def test_the_full_encoder_is_drawn_towards_the_surrogates_as_in_the_authors_code():
    given = arguments()
    authors_surrogate_loss(MFMObjective("regression"), **given).total.backward()
    assert given["full_z_y"].grad[:2].abs().sum() > 0
    assert not given["full_z_y"].grad[2:].any()
    assert given["full_z"]["audio"].grad is None
    assert given["full_z"]["text"].grad is not None


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_beyond_lengths_does_not_count(name):
    given = arguments()
    before = authors_surrogate_loss(MFMObjective("regression"), **given).total
    beyond = torch.arange(3) >= LENGTHS[name][:, None]
    given["features"][name] = given["features"][name].masked_fill(beyond[..., None], torch.nan)
    assert torch.equal(authors_surrogate_loss(MFMObjective("regression"), **given).total, before)
