"""Corpora whose factors are known, to measure whether a model separates them.

One label factor s is shared by all modalities, each modality has private factors p_i of its own, and everything
comes out of a random network (`mfm.data.factor_networks`), as in the model's generative story (Tsai et al., "Learning
Factorized Multimodal Representations", ICLR 2019, section 2). How hard it is can be chosen: depth of mixing, time,
noise, who carries the label's evidence, correlation, missing modalities. `mfm.data.factor_files` writes corpora
and their true factors; `mfm.analysis.factorization` scores a model against them. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mfm.corpora import Corpus, get_corpus
from mfm.data.arrays import ArraySequences
from mfm.data.factor_networks import Mixing, Values, generator_for
from mfm.data.records import SPLITS, CorpusData, FloatArray, IntArray, SplitData
from mfm.errors import ConfigurationError, nearest

PerModality = float | Mapping[str, float]

_DIMS = MappingProxyType({"text": 20, "audio": 20, "vision": 20})
_CLIPS = 4  # samples cut from one video


@dataclass(frozen=True, eq=False)
class FactorSplit:
    """One split with the truth behind it.

    Attributes:
        name: `train`, `valid` or `test`.
        ids: N names `<video>$_$<clip>`.
        label_factor: (N, 1) s, standard normal.
        views: Modality -> (N,) what it sees of s, standard normal, before its gain `evidence`.
        private: Modality -> (N, k) factors of its own, standard normal.
        labels: (N, 1) in the corpus' units.
        lengths: Modality -> (N,) steps, 0 where it is absent.
        features: Modality -> N arrays (length, D) float32.
    """

    name: str
    ids: tuple[str, ...]
    label_factor: Values
    views: Mapping[str, Values]
    private: Mapping[str, Values]
    labels: Values
    lengths: Mapping[str, IntArray]
    features: Mapping[str, list[FloatArray]]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def present(self) -> dict[str, NDArray[np.bool_]]:
        """Modality -> (N,) whether the sample has it."""
        return {name: lengths > 0 for name, lengths in self.lengths.items()}

    @property
    def factors(self) -> dict[str, Values]:
        """The true factors by block: `y` (N, 1) and modality -> (N, k)."""
        return {"y": self.label_factor, **self.private}


@dataclass(frozen=True, eq=False)
class FactorCorpus:
    """A generated corpus.

    Attributes:
        world: What it was drawn from.
        splits: Split name -> features, labels and truth.
    """

    world: FactorWorld
    splits: Mapping[str, FactorSplit]

    def records(self) -> CorpusData:
        """The corpus in memory, as a reader would hand it over; steps stand at the end of the padded layout."""
        steps, key = self.world.total_steps, self.world.record.label_keys[0]
        splits = {}
        for name, split in self.splits.items():
            sequences = {
                modality: ArraySequences(
                    split.features[modality],
                    dim=self.world.dims[modality],
                    starts=[int(n) for n in np.where(lengths > 0, steps[modality] - lengths, 0)],
                    file_steps=steps[modality],
                )
                for modality, lengths in split.lengths.items()
            }
            splits[name] = SplitData(split.ids, sequences, {key: split.labels})
        return CorpusData("synthetic", "synthetic", splits, self.world.aligned)


@dataclass(frozen=True)
class FactorWorld:
    """A world with known factors; options "per modality" take one value for all or one for each.

    Attributes:
        dims: Modality -> D, any names.
        steps: Longest sequence T, one for all or per modality.
        private: Number k of private factors, one for all or per modality, >= 0.
        depth: Layers of tanh between factors and features; 0 mixes linearly.
        dynamics: How far factors swell and fade in time, >= 0; 0 makes all steps alike but for noise and a clock.
        nuisance: Processes in time, of each modality, that belong to no factor.
        noise: Deviation of the noise on features whose own deviation is 1.
        shortest: Shortest sequence, as a share (0, 1] of T; lengths are uniform from there to T.
        aligned: All modalities of a sample have the same steps.
        evidence: Gain of the label factor, per modality: 1 makes it as strong as one private factor, 0 leaves the
            modality without any evidence.
        disagreement: How far views differ, >= 0: modality i sees v_i = (s + d r_i) / sqrt(1 + d^2), where the r_i add
            up to 0 over the C modalities with evidence. 0: all see s itself (redundancy). sqrt(C - 1): independent
            parts of it. More: one alone says little, all together everything (synergy).
        correlation: Correlation of s with the first private factor, per modality, in (-1, 1).
        label_noise: Deviation of the annotators' noise on s.
        missing: Rate at which a modality is absent, per modality, [0, 1); one always stays.
        corpus: Whose task and label range are imitated; one target.
        seed: Seed of everything.

    Raises:
        ConfigurationError: A value out of its range, an unknown modality, or a corpus of several targets.

    >>> world = FactorWorld(dims={"text": 6, "timing": 2}, steps=5, evidence={"text": 1.0, "timing": 0.0})
    >>> split = world.draw((4, 2, 2)).splits["train"]
    >>> split.features["text"][0].shape, split.label_factor.shape, split.private["timing"].shape
    ((5, 6), (4, 1), (4, 4))
    """

    dims: Mapping[str, int] = field(default_factory=lambda: dict(_DIMS))
    steps: int | Mapping[str, int] = 8
    private: int | Mapping[str, int] = 4
    depth: int = 1
    dynamics: float = 0.5
    nuisance: int = 0
    noise: float = 0.1
    shortest: float = 1.0
    aligned: bool = True
    evidence: PerModality = 1.0
    disagreement: float = 0.0
    correlation: PerModality = 0.0
    label_noise: float = 0.0
    missing: PerModality = 0.0
    corpus: str = "mosi"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.dims or min(self.dims.values()) < 1:
            raise ConfigurationError(f"dims is {dict(self.dims)}; name at least one modality, each with D >= 1")
        if "y" in self.dims:
            raise ConfigurationError(
                "a modality cannot be called 'y', the block of the label factor; choose another name"
            )
        for option in ("depth", "nuisance", "dynamics", "noise", "disagreement", "label_noise"):
            _check(option, float(getattr(self, option)), 0.0, math.inf)
        _check("shortest", self.shortest, 0.0, 1.0, open_low=True, open_high=False)
        for option in ("evidence", "missing", "correlation", "private", "steps"):
            self._spread(option)
        if self.aligned and len(set(self.total_steps.values())) > 1:
            raise ConfigurationError(f"aligned modalities have one number of steps, not {self.total_steps}")
        correlated = self._spread("correlation")
        for name, count in self._spread("private").items():
            if correlated[name] and not count:
                raise ConfigurationError(f"{name!r} has no private factor that could correlate with the label factor")
        if len(self.record.targets) > 1:
            raise ConfigurationError(
                f"corpus {self.corpus!r} has {len(self.record.targets)} targets and the world one label factor; "
                "choose a corpus with one target"
            )

    @cached_property
    def record(self) -> Corpus:
        """The corpus imitated."""
        return get_corpus(self.corpus)

    @cached_property
    def total_steps(self) -> dict[str, int]:
        """Modality -> T."""
        return {name: int(steps) for name, steps in self._spread("steps").items()}

    @cached_property
    def private_sizes(self) -> dict[str, int]:
        """Modality -> number of private factors."""
        return {name: int(count) for name, count in self._spread("private").items()}

    @cached_property
    def mixing(self) -> dict[str, Mixing]:
        """Modality -> its network."""
        evidence = self._spread("evidence")
        return {
            name: Mixing.draw(
                self.seed, name, dim=self.dims[name], private=self.private_sizes[name], nuisance=self.nuisance,
                depth=self.depth, evidence=evidence[name], dynamics=self.dynamics, steps=self.total_steps[name],
            )
            for name in sorted(self.dims)
        }  # fmt: skip

    def known_r2(self) -> dict[str, dict[str, float]]:
        """What the world itself makes of R^2, whatever the model.

        Returns:
            `label_from_label_factor` (key `y`; before the label's clipping or grouping into classes), and by modality
            `label_factor_from_private`, `label_factor_from_view`, 0 for a modality without evidence.
        """
        evidence, correlation = self._spread("evidence"), self._spread("correlation")
        apart = self.disagreement if sum(map(bool, evidence.values())) > 1 else 0.0
        return {
            "label_from_label_factor": {"y": 1.0 / (1.0 + self.label_noise**2)},
            "label_factor_from_private": {name: value**2 for name, value in correlation.items()},
            "label_factor_from_view": {
                name: 1.0 / (1.0 + apart**2) if value else 0.0 for name, value in evidence.items()
            },
        }

    def draw(self, samples: tuple[int, int, int] = (3000, 500, 1500)) -> FactorCorpus:
        """Draw a corpus.

        Args:
            samples: Samples of train, valid and test; a split's samples do not depend on the others' numbers.
        """
        if len(samples) != len(SPLITS) or min(samples) < 0:
            raise ConfigurationError(f"samples is {samples}; give three numbers >= 0: train, valid, test")
        return FactorCorpus(self, {name: self._split(name, n) for name, n in zip(SPLITS, samples, strict=True)})

    def render(self, modality: str, label_factor: Values, private: Values) -> Values:
        """What a modality would look like for these factors, without noise and nuisance: (N, T, D), units of features.

        Args:
            modality: Its name.
            label_factor: (N,) or (N, 1) s; views are taken to agree.
            private: (N, k) private factors.
        """
        if modality not in self.dims:
            raise ConfigurationError(f"the world has no modality {modality!r}: {nearest(modality, self.dims)}")
        return self.mixing[modality](np.reshape(label_factor, -1), private, self.total_steps[modality])

    def _split(self, name: str, count: int) -> FactorSplit:
        shared = generator_for(self.seed, "split", name)
        label_factor = shared.standard_normal(count)
        noisy = label_factor + self.label_noise * shared.standard_normal(count)
        shares = shared.uniform(self.shortest, 1.0, count)
        views = self._views(name, label_factor)
        correlation = self._spread("correlation")
        lengths, private, features = {}, {}, {}
        present = self._present(name, count)
        for modality, mixing in self.mixing.items():
            own = generator_for(self.seed, "modality", name, modality)
            total = self.total_steps[modality]
            share = shares if self.aligned else own.uniform(self.shortest, 1.0, count)
            steps = np.clip(np.ceil(share * total), 1, total).astype(np.int64)
            factors = own.standard_normal((count, self.private_sizes[modality]))
            if correlation[modality]:
                rho = correlation[modality]
                factors[:, 0] = rho * label_factor + math.sqrt(1 - rho**2) * factors[:, 0]
            values = mixing(views[modality], factors, total, mixing.distraction(own, count, total))
            values += self.noise * own.standard_normal(values.shape)
            lengths[modality] = np.where(present[modality], steps, 0)
            private[modality] = factors
            features[modality] = [
                row[:length].astype(np.float32) for row, length in zip(values, lengths[modality], strict=True)
            ]
        ids = tuple(f"{name}{index // _CLIPS:05d}$_${index % _CLIPS}" for index in range(count))
        labels = self._labels(noisy / math.sqrt(1.0 + self.label_noise**2))
        return FactorSplit(name, ids, label_factor[:, None], views, private, labels, lengths, features)

    def _views(self, split: str, label_factor: Values) -> dict[str, Values]:
        evidence = self._spread("evidence")
        carriers = [name for name in sorted(self.dims) if evidence[name]]
        count = len(carriers)
        apart = self.disagreement if count > 1 else 0.0
        parts = generator_for(self.seed, "views", split).standard_normal((count, len(label_factor)))
        parts = (parts - parts.mean(axis=0, keepdims=True)) * math.sqrt(count / max(count - 1, 1)) if count else parts
        views = {
            name: (label_factor + apart * part) / math.sqrt(1.0 + apart**2)
            for name, part in zip(carriers, parts, strict=True)
        }
        return {name: views.get(name, label_factor) for name in sorted(self.dims)}

    def _present(self, split: str, count: int) -> dict[str, NDArray[np.bool_]]:
        names, rates = sorted(self.dims), self._spread("missing")
        draws = generator_for(self.seed, "missing", split).random((count, len(names)))
        there = draws >= np.array([rates[name] for name in names])
        lost = ~there.any(axis=1)
        there[lost, draws[lost].argmax(axis=1)] = True
        return {name: there[:, column] for column, name in enumerate(names)}

    def _labels(self, score: Values) -> Values:
        """Labels (N, 1) from standard normal scores: three deviations are the whole range, classes equally frequent."""
        corpus = self.record
        if corpus.task == "regression":
            low, high = corpus.label_range or (-3.0, 3.0)
            return np.clip((low + high) / 2 + (high - low) / 6 * score, low, high)[:, None]
        classes = len(corpus.classes) if corpus.task == "multiclass" else 2
        edges = np.quantile(generator_for(self.seed, "edges").standard_normal(8192), np.arange(1, classes) / classes)
        return np.digitize(score, edges).astype(np.float64)[:, None]

    def _spread(self, option: str) -> dict[str, float]:
        """An option's value for every modality, within its range."""
        given = getattr(self, option)
        names = sorted(self.dims)
        if isinstance(given, Mapping):
            for name in given:
                if name not in names:
                    raise ConfigurationError(f"{option} names an unknown modality {name!r}: {nearest(name, names)}")
            lacking = [name for name in names if name not in given]
            if lacking:
                raise ConfigurationError(f"{option} lacks {', '.join(lacking)}; give one value for each modality")
        values = {name: float(given[name] if isinstance(given, Mapping) else given) for name in names}
        low, high = {"missing": (0.0, 1.0), "correlation": (-1.0, 1.0), "steps": (1.0, math.inf)}.get(
            option, (0.0, math.inf)
        )
        for value in values.values():
            _check(option, value, low, high, open_low=option == "correlation")
        return values


def _check(
    option: str, value: float, low: float, high: float, *, open_low: bool = False, open_high: bool = True
) -> None:
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below):
        brackets = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ConfigurationError(f"{option} is {value:g}, but must be in {brackets}")
