"""Statistics against numpy over the concatenated real steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.data.arrays import ArraySequences
from mfm.data.records import SplitData
from mfm.data.statistics import block_statistics, feature_statistics
from mfm.errors import DataFormatError


def split_of(*samples: np.ndarray) -> SplitData:
    return SplitData(tuple(map(str, range(len(samples)))), {"m": ArraySequences(samples)})


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    dim=st.integers(1, 9),
    offset=st.sampled_from([0.0, 5.0, -3e4]),
    scale=st.sampled_from([1e-3, 1.0, 200.0]),
    bad=st.sampled_from([0.0, 0.1]),
)
def test_equals_numpy(seed: int, dim: int, offset: float, scale: float, bad: float) -> None:
    rng = np.random.default_rng(seed)
    samples = [(rng.normal(offset, scale, size=(rng.integers(0, 30), dim))).astype(np.float32) for _ in range(30)]
    for sample in samples:
        holes = rng.random(sample.shape) < bad
        sample[holes] = rng.choice([np.nan, np.inf, -np.inf], size=int(holes.sum()))
    everything = np.concatenate(samples).astype(np.float64)
    masked = np.where(np.isfinite(everything), everything, np.nan)
    found = feature_statistics(split_of(*samples))["m"]
    np.testing.assert_allclose(found.mean, np.nanmean(masked, axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, np.nanstd(masked, axis=0), rtol=1e-9)
    np.testing.assert_array_equal(found.count, np.isfinite(everything).sum(axis=0))
    assert found.nonfinite == int((~np.isfinite(everything)).sum())


def test_block_borders_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1e4, 1.0, size=(5000, 3)).astype(np.float32)
    values[::7, 1] = np.nan
    values[:3000, 2] = np.inf  # whole blocks without a value
    one = block_statistics([values], 3, "m")
    many = block_statistics(np.array_split(values, 97), 3, "m")
    np.testing.assert_allclose(one.mean, many.mean, rtol=1e-13)
    np.testing.assert_allclose(one.std, many.std, rtol=1e-10)
    np.testing.assert_array_equal(one.count, many.count)


def test_large_arrays_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(9000, 100)).astype(np.float32)
    found = block_statistics([values], 100, "m")
    np.testing.assert_allclose(found.std, values.astype(np.float64).std(axis=0), rtol=1e-10)


def test_constant_feature_gets_deviation_one() -> None:
    constant = np.full((50, 2), 0.1, dtype=np.float32)
    constant[:, 1] = np.arange(50)
    found = feature_statistics(split_of(constant[:20], constant[20:]))["m"]
    assert found.std[0] == 1.0
    assert found.mean[0] == pytest.approx(np.float32(0.1))
    assert found.std[1] == pytest.approx(np.arange(50).std())


def test_single_step() -> None:
    found = feature_statistics(split_of(np.array([[3.0, -1.0]])))["m"]
    assert found.mean.tolist() == [3.0, -1.0]
    assert found.std.tolist() == [1.0, 1.0]


def test_feature_without_a_value() -> None:
    values = np.ones((4, 3), dtype=np.float32)
    values[:, 1] = np.nan
    with pytest.raises(DataFormatError, match=r"feature 1 of modality 'm' has no finite value.*--data\.modalities"):
        feature_statistics(split_of(values))
    with pytest.raises(DataFormatError, match="modality 'm' has no finite value"):
        feature_statistics(split_of(np.zeros((0, 3))))


def test_chosen_samples_and_steps_only() -> None:
    samples = [np.full((4, 1), i, dtype=np.float32) for i in range(5)]
    samples[1][2:] = 100
    found = feature_statistics(split_of(*samples), ["m"], indices=[1, 3], max_lengths={"m": 2})["m"]
    assert found.mean.tolist() == [2.0]
    assert found.count.tolist() == [4]
