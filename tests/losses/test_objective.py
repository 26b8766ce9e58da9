"""The objective: which parts, which weights, which rows."""

import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.losses import MFMObjective, mmd, prediction_loss, reconstruction_loss

DIMS = {"text": 3, "audio": 2}
ROWS = 6


def arguments(seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).requires_grad_(requires_grad)

    lengths = {"text": torch.tensor([4, 4, 2, 0, 1, 3]), "audio": torch.tensor([4, 0, 2, 3, 1, 3])}
    return {
        "prediction": draw(ROWS, 1),
        "target": torch.randn(ROWS, 1, generator=generator),
        "target_mask": torch.tensor([1, 1, 0, 1, 1, 1], dtype=torch.bool)[:, None],
        "reconstruction": {n: draw(ROWS, 4, d) for n, d in DIMS.items()},
        "features": {n: torch.randn(ROWS, 4, d, generator=generator) for n, d in DIMS.items()},
        "lengths": lengths,
        "present": {n: v > 0 for n, v in lengths.items()},
        "z_y": draw(ROWS, 5),
        "z": {n: draw(ROWS, 4) for n in DIMS},
    }


def test_total_is_the_weighted_sum_of_the_named_parts():
    objective = MFMObjective("regression", prediction=2.0, reconstruction={"text": 3.0, "default": 0.5}, mmd=7.0)
    total, parts = objective(**arguments())
    assert list(parts) == ["prediction", "reconstruction/audio", "reconstruction/text", "mmd"]
    expected = (
        2.0 * parts["prediction"]
        + 3.0 * parts["reconstruction/text"]
        + 0.5 * parts["reconstruction/audio"]
        + 7.0 * parts["mmd"]
    )
    torch.testing.assert_close(total, expected)
    given = arguments()
    torch.testing.assert_close(
        parts["prediction"],
        prediction_loss(given["prediction"], given["target"], given["target_mask"], task="regression"),
    )
    torch.testing.assert_close(
        parts["reconstruction/text"],
        reconstruction_loss(given["reconstruction"]["text"], given["features"]["text"], given["lengths"]["text"]),
    )


def test_joint_mmd_fills_absent_blocks_with_draws_from_the_prior():
    given = arguments(requires_grad=True)
    torch.manual_seed(9)
    total, parts = MFMObjective("regression", kernel="imq", prediction=0, reconstruction=0)(**given)
    torch.manual_seed(9)
    prior, fill = torch.randn(ROWS, 13), torch.randn(ROWS, 13)
    joint = torch.cat([given["z_y"], given["z"]["audio"], given["z"]["text"]], dim=1).detach().clone()
    joint[1, 5:9] = fill[1, 5:9]  # audio of sample 1
    joint[3, 9:] = fill[3, 9:]  # text of sample 3
    torch.testing.assert_close(parts["mmd"], mmd(joint, prior, kernel="imq"))
    total.backward()
    assert given["z"]["audio"].grad[1].eq(0).all()
    assert given["z"]["text"].grad[3].eq(0).all()
    assert given["z"]["audio"].grad[[0, 2, 3, 4, 5]].ne(0).all()


def test_absent_blocks_neither_pull_nor_are_pulled():
    """If Q equals P where it exists, the joint estimate stays centred at 0 however much is absent."""
    values = []
    for seed in range(150):
        torch.manual_seed(seed)
        z_y, z = torch.randn(20, 3), {n: torch.randn(20, 3) for n in DIMS}
        given = arguments()
        present = {n: torch.rand(20) > 0.5 for n in DIMS}
        for n in DIMS:
            z[n] = z[n] * present[n][:, None]  # zeros, as the model gives
        empty = {n: torch.zeros(20, 0, d) for n, d in DIMS.items()}
        given.update(prediction=torch.zeros(20, 0), reconstruction=empty, features=empty, present=present, z_y=z_y, z=z)
        given["lengths"] = {n: present[n].long() for n in DIMS}
        values.append(MFMObjective("regression", unbiased=True)(**given).parts["mmd"])
    values = torch.stack(values)
    assert values.mean().abs() < 4 * values.std() / len(values) ** 0.5


def test_marginals_take_only_the_samples_that_have_the_modality():
    given = arguments(requires_grad=True)
    torch.manual_seed(9)
    _, parts = MFMObjective("regression", mmd_on="marginals", unbiased=True)(**given)
    assert [name for name in parts if name.startswith("mmd")] == ["mmd/z_y", "mmd/audio", "mmd/text"]
    torch.manual_seed(9)
    prior = {"z_y": torch.randn(ROWS, 5), "audio": torch.randn(ROWS, 4), "text": torch.randn(ROWS, 4)}
    torch.testing.assert_close(parts["mmd/z_y"], mmd(given["z_y"], prior["z_y"], unbiased=True))
    for n in DIMS:
        own = given["z"][n][given["present"][n]]
        torch.testing.assert_close(parts[f"mmd/{n}"], mmd(own, prior[n], unbiased=True))


@pytest.mark.parametrize("mmd_on", ["joint", "marginals"])
def test_values_of_absent_modalities_and_missing_labels_have_no_influence(mmd_on):
    def run(garbage):
        given = arguments()
        for n in DIMS:
            gone = ~given["present"][n]
            given["features"][n][gone] = garbage
            given["z"][n][gone] = garbage
        given["target"][2] = garbage
        torch.manual_seed(1)
        return MFMObjective("regression", mmd_on=mmd_on)(**given).total

    assert run(0.0).isfinite()
    assert run(float("nan")) == run(0.0) == run(1e30)


def test_present_decides_over_length_and_a_missing_modality_is_absent():
    given = arguments()
    given["present"]["audio"] = torch.zeros(ROWS, dtype=torch.bool)
    torch.manual_seed(0)
    flagged = MFMObjective("regression")(**given)
    assert flagged.parts["reconstruction/audio"] == 0
    for part in ("reconstruction", "features", "lengths", "present"):
        given[part] = {"text": given[part]["text"]}
    torch.manual_seed(0)
    lacking = MFMObjective("regression")(**given)
    assert lacking.parts["mmd"] == flagged.parts["mmd"]
    assert "reconstruction/audio" not in lacking.parts


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_classification_tasks(task):
    given = arguments()
    if task == "multiclass":
        given.update(prediction=torch.randn(ROWS, 3), target=torch.tensor([0, 1, 2, 0, 1, 2]))
        given["target_mask"] = given["target_mask"][:, 0]
    elif task == "multilabel":
        given.update(prediction=torch.randn(ROWS, 4), target=torch.ones(ROWS, 4))
        given["target_mask"] = given["target_mask"].expand(-1, 4)
    else:
        given["target"] = (given["target"] > 0).float()
    assert MFMObjective(task)(**given).total.isfinite()


def test_one_seed_one_value():
    def run():
        torch.manual_seed(3)
        return MFMObjective("regression")(**arguments()).total

    assert run() == run()


def test_a_batch_of_one_sample():
    given = arguments()
    one = {
        key: {n: v[:1] for n, v in value.items()} if isinstance(value, dict) else value[:1]
        for key, value in given.items()
    }
    for mmd_on in ("joint", "marginals"):
        for unbiased in (False, True):
            assert MFMObjective("regression", mmd_on=mmd_on, unbiased=unbiased)(**one).total.isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "regresion"}, "unknown task 'regresion'"),
        ({"kernel": "orginal"}, "did you mean 'original'"),
        ({"mmd_on": "join"}, "unknown mmd_on 'join': did you mean 'joint'"),
        ({"prediction_loss": "bce"}, "unknown prediction loss 'bce' for task 'regression'"),
        ({"reconstruction_loss": "l2"}, "unknown reconstruction loss 'l2'"),
        ({"mmd": -1.0}, "the weight of mmd is -1.0"),
        ({"prediction": float("nan")}, "the weight of prediction is nan"),
        ({"reconstruction": {"text": -2}}, "the weight of reconstruction of 'text' is -2"),
        ({"reconstruction": {"txt": 1, "default": 1}}, "unknown modality 'txt': did you mean 'text'"),
        ({"reconstruction": {"text": 1}}, "none for modality 'audio'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigurationError) as caught:
        MFMObjective(**{"task": "regression", "modalities": ["audio", "text"], **options})
    assert message in str(caught.value)


def test_a_wrong_modality_is_found_with_the_first_batch_at_the_latest():
    with pytest.raises(ConfigurationError, match="did you mean 'text'"):
        MFMObjective("regression", reconstruction={"txt": 1.0, "default": 1.0})(**arguments())
