"""From known factors to features: the mixing of `mfm.data.factor_world`."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_HIDDEN = 48
_CLOCKS = 2
_CALIBRATION = 512  # samples that fix the scale of the features
_GAIN = 2.0  # of each tanh layer: well into its bend, not yet a switch
_MEMORY = 0.7  # of nuisance, from one step to the next


def generator_for(seed: int, *names: str | int) -> np.random.Generator:
    """An own generator for each purpose: adding a modality or a split changes no other."""
    return np.random.default_rng([seed, *(n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names)])


@dataclass(frozen=True, eq=False)
class Mixing:
    """The random network of one modality, drawn once.

        g_t = [a v m_0(t); p_1 m_1(t) .. p_k m_k(t); n_t; clock(t)]    m_j(t) = 1 + dynamics sin(2 pi (f_j t/T + c_j))
        x_t = W_out tanh(W_L .. tanh(W_1 g_t))                         x_t = W_out g_t at depth 0

    with every feature then brought to mean 0 and deviation 1.

    Attributes:
        evidence: The gain a of the view v.
        dynamics: How far factors swell and fade in time.
        pace: (1 + k,) cycles f_j over the whole length.
        phase: (1 + k,) offsets c_j, in cycles.
        layers: L matrices of the tanh layers, (in, out).
        out: (in, D).
        nuisance: Number of nuisance processes.
        mean: (D,) of the raw features.
        scale: (D,) deviation of the raw features.
    """

    evidence: float
    dynamics: float
    pace: Values
    phase: Values
    layers: tuple[Values, ...]
    out: Values
    nuisance: int
    mean: Values
    scale: Values

    @classmethod
    def draw(
        cls, seed: int, name: str, *, dim: int, private: int, nuisance: int, depth: int, evidence: float,
        dynamics: float, steps: int
    ) -> Mixing:  # fmt: skip
        """Draw the network of one modality and settle the scale of its features."""
        generator = generator_for(seed, "mixing", name)
        pace, phase = generator.uniform(0.5, 1.5, 1 + private), generator.uniform(0.0, 1.0, 1 + private)
        width = 1 + private + nuisance + _CLOCKS
        layers = []
        for _ in range(depth):
            layers.append(_GAIN * generator.standard_normal((width, _HIDDEN)) / np.sqrt(width))
            width = _HIDDEN
        out = generator.standard_normal((width, dim)) / np.sqrt(width)
        unscaled = cls(
            evidence, dynamics, pace, phase, tuple(layers), out, nuisance, np.zeros(dim), np.ones(dim)
        )  # fmt: skip
        own = generator_for(seed, "calibration", name)
        view, factors = own.standard_normal(_CALIBRATION), own.standard_normal((_CALIBRATION, private))
        raw = unscaled(view, factors, steps, unscaled.distraction(own, _CALIBRATION, steps)).reshape(-1, dim)
        return cls(
            evidence, dynamics, pace, phase, tuple(layers), out, nuisance, raw.mean(axis=0), raw.std(axis=0)
        )  # fmt: skip

    def __call__(self, view: Values, private: Values, steps: int, nuisance: Values | None = None) -> Values:
        """Features without noise.

        Args:
            view: (N,) what the modality sees of the label factor.
            private: (N, k) its private factors.
            steps: T; features of a step depend on T, for factors swell and fade over the whole length.
            nuisance: (N, T, n) nuisance; none by default, which is its mean.

        Returns:
            (N, T, D).
        """
        time = (np.arange(steps) + 0.5) / steps
        swell = 1.0 + self.dynamics * np.sin(2 * np.pi * (time[:, None] * self.pace + self.phase))  # (T, 1 + k)
        sources = np.concatenate([self.evidence * view[:, None], private], axis=1)[:, None] * swell
        clock = np.stack([np.cos(np.pi * time), np.sin(2 * np.pi * time)], axis=1)
        samples = len(view)
        distraction = np.zeros((samples, steps, self.nuisance)) if nuisance is None else nuisance
        hidden = np.concatenate([sources, distraction, np.broadcast_to(clock, (samples, steps, _CLOCKS))], axis=2)
        for layer in self.layers:
            hidden = np.tanh(hidden @ layer)
        features: Values = (hidden @ self.out - self.mean) / self.scale
        return features

    def distraction(self, generator: np.random.Generator, samples: int, steps: int) -> Values:
        """Draw nuisance, (N, T, n): stationary processes x_t = .7 x_{t-1} + noise of deviation 1."""
        fresh = generator.standard_normal((steps, samples, self.nuisance))
        values = np.empty_like(fresh)
        for step in range(steps):
            values[step] = fresh[step] if not step else (
                _MEMORY * values[step - 1] + np.sqrt(1 - _MEMORY**2) * fresh[step]
            )  # fmt: skip
        return np.moveaxis(values, 0, 1)
