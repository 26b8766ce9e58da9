"""Standardisation that survives broken features."""

import pytest
import torch

from mfm.errors import ConfigurationError
from mfm.models import Normalizer


def fitted():
    normalizer = Normalizer({"type": 2, "a.b": 1})
    normalizer.set_statistics(
        {"type": torch.tensor([1.0, -2.0]), "a.b": torch.tensor([3.0])},
        {"type": torch.tensor([2.0, 0.0]), "a.b": torch.tensor([0.5])},
    )
    return normalizer


def test_is_the_identity_until_statistics_are_set():
    x = {"a": torch.randn(2, 3, 4)}
    normalizer = Normalizer({"a": 4})
    assert torch.equal(normalizer(x, {"a": torch.tensor([3, 3])})["a"], x["a"])
    assert torch.equal(normalizer.inverse(x)["a"], x["a"])


def test_standardises_and_puts_the_mean_where_there_is_no_value():
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[[3.0, -2.0], [nan, inf], [-inf, 5.0]], [[5.0, nan], [7.0, 7.0], [nan, nan]]])
    out = fitted()({"type": x}, {"type": torch.tensor([3, 1])})["type"]
    expected = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 7.0]], [[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(out, expected)


def test_inverse_gives_file_units_back():
    normalizer = fitted()
    x = {"type": torch.randn(2, 3, 2), "a.b": torch.randn(2, 5, 1)}
    lengths = {"type": torch.tensor([3, 3]), "a.b": torch.tensor([5, 5])}
    back = normalizer.inverse(normalizer(x, lengths))
    for name, value in x.items():
        torch.testing.assert_close(back[name], value)


def test_stays_float32_under_autocast_and_travels_in_the_state_dict():
    normalizer = fitted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = normalizer({"a.b": torch.full((1, 1, 1), 1000.01)}, {"a.b": torch.tensor([1])})["a.b"]
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, torch.full((1, 1, 1), 1994.02))
    other = Normalizer({"type": 2, "a.b": 1})
    other.load_state_dict(normalizer.state_dict())
    assert torch.equal(other.inverse({"type": torch.ones(1, 1, 2)})["type"], torch.tensor([[[3.0, -1.0]]]))
    assert not list(normalizer.parameters())


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ({"typ": torch.zeros(2)}, {}, "did you mean 'type'"),
        ({"type": torch.zeros(2)}, {}, "no mean was given for modality 'a.b'"),
        ({"type": torch.zeros(3), "a.b": torch.zeros(1)}, {}, "has shape"),
        ({"type": torch.zeros(2), "a.b": torch.tensor([float("nan")])}, {}, "not finite"),
        ({"type": torch.zeros(2), "a.b": torch.zeros(1)}, {"type": -torch.ones(2), "a.b": torch.ones(1)}, "negative"),
    ],
)
def test_wrong_statistics_are_refused(mean, std, message):
    with pytest.raises(ConfigurationError, match=message):
        Normalizer({"type": 2, "a.b": 1}).set_statistics(mean, std)


def test_wrong_features_are_refused():
    with pytest.raises(ConfigurationError, match="3 features a step, but the model was built for 2"):
        fitted()({"type": torch.zeros(1, 1, 3)}, {"type": torch.tensor([1])})
    with pytest.raises(ConfigurationError, match="no statistics of modality 'x'"):
        fitted().inverse({"x": torch.zeros(1, 1, 3)})
