"""A small world with known factors, for demonstrations and tests.

As in the model's generative story (Tsai et al., "Learning Factorized Multimodal Representations", ICLR 2019,
section 2): a factor shared by all modalities decides the label, and every modality has private factors
of its own. Features follow both through a random network, with dynamics in time and noise. Nothing
global is random: everything follows from `seed`. Files are written by `mfm.data.synthetic_files`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfm.corpora import Corpus, get_corpus
from mfm.data.arrays import ArraySequences
from mfm.data.records import SPLITS, CorpusData, FloatArray, IntArray, SplitData
from mfm.errors import ConfigurationError, nearest

_BLOCK = 256  # samples generated at once
_HIDDEN = 24
_PRIVATE = 3
_STRENGTH = {"text": 1.0}  # how much of the features follows the factors; language says most, as in real corpora
_WEAK = 0.7
_NOUNS = ("plot", "acting", "music", "ending", "story", "script", "cast", "humour")
_ADVERBS = ("really", "quite", "so", "very", "rather", "just")
_ADJECTIVES = ("awful", "bad", "dull", "clumsy", "predictable", "watchable", "decent", "clever", "great", "brilliant")
_CLAUSE = 6  # words: the plot was really great and
_OTHER_DIMS = {
    "moud": {"text": 300, "audio": 74, "video": 36},
    "ur_funny": {"text": 300, "audio": 81, "vision": 371},
    "mustard": {"text": 300, "audio": 81, "vision": 371},
}


@dataclass(frozen=True)
class SyntheticSplit:
    """One split: everything but the features.

    Attributes:
        name: `train`, `valid` or `test`.
        ids: N names `<video>$_$<clip>`.
        raw_text: N transcripts, a word for each step of `text`, the kinder the larger the first shared factor.
            Features follow the factors, not the words.
        shared: (N, S) factors that decide the labels.
        private: Modality -> (N, 3) factors of its own.
        labels: (N, K) float64 in the corpus' units: ratings, 0/1, or one column of classes.
        lengths: Modality -> (N,) real steps.
        silent: Modality -> (N,) bool, samples in which it is all zero.
    """

    name: str
    ids: tuple[str, ...]
    raw_text: tuple[str, ...]
    shared: NDArray[np.float64]
    private: Mapping[str, NDArray[np.float64]]
    labels: NDArray[np.float64]
    lengths: Mapping[str, IntArray]
    silent: Mapping[str, NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class SyntheticCorpus:
    """A generated corpus; features are made block by block when asked for.

    Attributes:
        corpus: Whose labels are imitated.
        dims: Modality -> D.
        steps: Modality -> T of the padded layout.
        aligned: Whether all modalities of a sample have the same steps.
        defects: Whether features have the faults of published files.
        seed: Seed of everything.
        splits: Split name -> factors, labels and lengths.
    """

    corpus: Corpus
    dims: Mapping[str, int]
    steps: Mapping[str, int]
    aligned: bool
    defects: bool
    seed: int
    splits: Mapping[str, SyntheticSplit]

    def ragged(self, split: str, modality: str) -> Iterator[tuple[slice, FloatArray]]:
        """Yield the real steps of successive blocks of samples: (samples, (sum of lengths, D) float32)."""
        data = self.splits[split]
        network = _Network.draw(self, modality)
        for start in range(0, len(data), _BLOCK):
            samples = slice(start, min(start + _BLOCK, len(data)))
            generator = _generator(self.seed, "values", split, modality, start)
            values = network.emit(data, modality, samples, generator)
            if self.defects:
                _damage(values, data.lengths[modality][samples], modality, generator)
            values[np.repeat(data.silent[modality][samples], data.lengths[modality][samples])] = 0.0
            yield samples, values

    def padded(self, split: str, modality: str, *, pre: bool = True) -> Iterator[FloatArray]:
        """Yield successive blocks (n, T, D), zeros before (`pre`) or after the real steps."""
        total, dim = self.steps[modality], self.dims[modality]
        for samples, values in self.ragged(split, modality):
            lengths = self.splits[split].lengths[modality][samples]
            position = np.arange(total)
            real = position >= total - lengths[:, None] if pre else position < lengths[:, None]
            block = np.zeros((len(lengths), total, dim), dtype=np.float32)
            block[real] = values
            yield block

    def array(self, split: str, modality: str, *, pre: bool = True) -> FloatArray:
        """All features of a split and modality: (N, T, D)."""
        empty = np.zeros((0, self.steps[modality], self.dims[modality]), dtype=np.float32)
        return np.concatenate([empty, *self.padded(split, modality, pre=pre)])

    def records(self) -> CorpusData:
        """The corpus in memory, as a reader would hand it over."""
        splits = {}
        for name, split in self.splits.items():
            sequences = {}
            for modality in sorted(self.dims):
                lengths = np.where(split.silent[modality], 0, split.lengths[modality])
                parts: list[FloatArray] = []
                for samples, values in self.ragged(name, modality):
                    parts += np.split(values, np.cumsum(split.lengths[modality][samples])[:-1])
                sequences[modality] = ArraySequences(
                    [part[:length] for part, length in zip(parts, lengths, strict=True)],
                    dim=self.dims[modality],
                    starts=[int(n) for n in np.where(lengths > 0, self.steps[modality] - lengths, 0)],
                    file_steps=self.steps[modality],
                )
            labels = {self.corpus.label_keys[0]: split.labels}
            splits[name] = SplitData(split.ids, sequences, labels, split.raw_text)
        return CorpusData("synthetic", "synthetic", splits, self.aligned)


def synthetic_corpus(
    corpus: str | Corpus = "mosi",
    samples: tuple[int, int, int] = (200, 50, 50),
    *,
    dims: Mapping[str, int] | None = None,
    steps: int | Mapping[str, int] = 20,
    aligned: bool = True,
    defects: bool = False,
    seed: int = 0,
) -> SyntheticCorpus:
    """Generate a corpus with known factors.

    Args:
        corpus: Whose task, label range and dimensions are imitated.
        samples: Samples of train, valid and test.
        dims: Modality -> D, any names; those of the corpus' first published file by default.
        steps: Steps T of the padded layout, one for all or by modality. Real lengths vary from 1 to T.
        aligned: All modalities of a sample have the same steps. Needs one T.
        defects: Imitate published files: NaN and -inf in audio (in the first modality where there is none), steps that
            are all zero in one modality, and samples that lack a whole modality. Never in `text`.
        seed: Seed.

    Returns:
        Factors, labels and lengths; features on demand.

    Raises:
        ConfigurationError: A size below 1, unknown modalities in `steps`, or aligned modalities of different T.

    >>> world = synthetic_corpus("mosi", (4, 2, 2), dims={"text": 6, "timing": 2}, steps=5)
    >>> world.array("train", "text").shape, world.splits["train"].labels.shape
    ((4, 5, 6), (4, 1))
    """
    record = get_corpus(corpus) if isinstance(corpus, str) else corpus
    sizes = dict(dims) if dims is not None else default_dims(record)
    total = dict.fromkeys(sizes, steps) if isinstance(steps, int) else dict(steps)
    for name in total:
        if name not in sizes:
            raise ConfigurationError(f"steps names an unknown modality {name!r}: {nearest(name, sizes)}")
    if set(total) != set(sizes):
        raise ConfigurationError(f"steps lacks {', '.join(sorted(set(sizes) - set(total)))}")
    if not sizes or min(*sizes.values(), *total.values()) < 1 or min(samples) < 0 or len(samples) != len(SPLITS):
        raise ConfigurationError(f"dims {sizes}, steps {total} and samples {samples} must be positive")
    if aligned and len(set(total.values())) > 1:
        raise ConfigurationError(f"aligned modalities have one number of steps, not {total}")
    splits = {
        name: _draw_split(record, name, count, total, aligned, defects, seed)
        for name, count in zip(SPLITS, samples, strict=True)
    }
    return SyntheticCorpus(record, sizes, total, aligned, defects, seed, splits)


def default_dims(corpus: Corpus) -> dict[str, int]:
    """Feature dimensions of the corpus' first published file."""
    return dict(corpus.files[0].dims) if corpus.files else dict(_OTHER_DIMS.get(corpus.name, _OTHER_DIMS["moud"]))


def _generator(seed: int, *names: str | int) -> np.random.Generator:
    """An own generator for each purpose: adding a modality changes no other."""
    return np.random.default_rng([seed, *(n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names)])


def _draw_split(
    corpus: Corpus, name: str, count: int, steps: Mapping[str, int], aligned: bool, defects: bool, seed: int
) -> SyntheticSplit:
    generator = _generator(seed, "split", name)
    shared = generator.standard_normal((count, 1 if len(corpus.targets) == 1 else 4))
    # skewed like real clips: most are short, a few fill all steps
    fractions = np.clip(generator.gamma(2.5, 0.15, size=count), 0.0, 1.0)
    lengths, silent, private = {}, {}, {}
    for modality in sorted(steps):
        own = _generator(seed, "modality", name, modality)
        jitter = np.ones(count) if aligned else own.uniform(0.9, 1.1, size=count)
        lengths[modality] = np.clip(np.ceil(fractions * jitter * steps[modality]), 1, steps[modality]).astype(np.int64)
        private[modality] = own.standard_normal((count, _PRIVATE))
        lost = defects and modality != "text" and len(steps) > 1 and modality != min(steps)
        silent[modality] = own.random(count) < (0.06 if lost else 0.0)
    videos = [f"{name}{generator.integers(16**6):06x}v{index // 4}" for index in range(count)]
    spoken = lengths.get("text", lengths[min(lengths)])
    vocabulary = _generator(seed, "words", name)
    return SyntheticSplit(
        name=name,
        ids=tuple(f"{videos[index - index % 4]}$_${index % 4}" for index in range(count)),
        raw_text=tuple(
            _sentence(int(number), float(value), vocabulary) for number, value in zip(spoken, shared[:, 0], strict=True)
        ),
        shared=shared,
        private=private,
        labels=_labels(corpus, shared, seed, generator),
        lengths=lengths,
        silent=silent,
    )


def _sentence(words: int, sentiment: float, generator: np.random.Generator) -> str:
    """As many words as asked for, the last one an adjective that follows the sentiment, a standard normal score."""
    clauses = -(-(words + 1) // _CLAUSE)
    felt = 0.5 + (sentiment + 0.5 * generator.standard_normal(clauses)) / 4  # -2 is the worst word, 2 the best
    chosen = np.clip(felt * len(_ADJECTIVES), 0, len(_ADJECTIVES) - 1).astype(np.int64)
    nouns, adverbs = (generator.integers(len(of), size=clauses) for of in (_NOUNS, _ADVERBS))
    spoken = []
    for noun, adverb, adjective in zip(nouns, adverbs, chosen, strict=True):
        spoken += ["the", _NOUNS[noun], "was", _ADVERBS[adverb], _ADJECTIVES[adjective], "and"]
    return " ".join(spoken[:-1][-words:])


def _labels(
    corpus: Corpus, shared: NDArray[np.float64], seed: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Noisy labels from the shared factors, in the corpus' units: (N, K)."""
    targets = len(corpus.targets)
    mixing = np.ones((1, 1)) if targets == 1 else _generator(seed, "labels").standard_normal((4, targets))
    mixing /= np.linalg.norm(mixing, axis=0)
    score = 0.95 * shared @ mixing + 0.3 * generator.standard_normal((len(shared), targets))
    if corpus.task == "regression":
        low, high = corpus.label_range or (-3.0, 3.0)
        rating = (low + high) / 2 + (high - low) / 4 * score
        # annotators' means are multiples of a fifth; exact zeros matter to the metrics
        return np.clip(np.round(rating * 5) / 5, low, high) + 0.0
    if corpus.task == "multiclass":
        classes = len(corpus.classes)
        edges = np.quantile(_generator(seed, "edges").standard_normal(4096), np.arange(1, classes) / classes)
        return np.digitize(score[:, :1], edges).astype(np.float64)
    return (score > (0.5 if corpus.task == "multilabel" else 0.0)).astype(np.float64)


@dataclass(frozen=True)
class _Network:
    """The random network of one modality: factors and time -> features."""

    shared: NDArray[np.float64]
    private: NDArray[np.float64]
    rhythm: NDArray[np.float64]
    phase: NDArray[np.float64]
    out: FloatArray
    offset: FloatArray
    noise: float

    @classmethod
    def draw(cls, world: SyntheticCorpus, modality: str) -> _Network:
        generator = _generator(world.seed, "network", modality)
        dim = world.dims[modality]
        factors = next(iter(world.splits.values())).shared.shape[1]
        strength = _STRENGTH.get(modality, _WEAK)
        # audio descriptors have units of their own: hertz, decibels
        scale = np.exp(generator.uniform(-1.0, 3.0 if modality == "audio" else 0.5, size=dim))
        normal = generator.standard_normal
        return cls(
            shared=strength * normal((factors, _HIDDEN)) / np.sqrt(factors),
            private=0.7 * normal((_PRIVATE, _HIDDEN)),
            rhythm=normal((_PRIVATE, _HIDDEN)),
            phase=generator.uniform(0, 2 * np.pi, _HIDDEN),
            out=(normal((_HIDDEN, dim)) / np.sqrt(_HIDDEN) * scale).astype(np.float32),
            offset=(normal(dim) * scale).astype(np.float32),
            noise=0.4,
        )

    def emit(self, data: SyntheticSplit, modality: str, samples: slice, generator: np.random.Generator) -> FloatArray:
        """Features of all real steps of some samples: (sum of lengths, D)."""
        lengths = data.lengths[modality][samples]
        time = np.concatenate([np.arange(n) / max(n, 2) for n in lengths]) if len(lengths) else np.zeros(0)
        steady = data.shared[samples] @ self.shared
        own = data.private[modality][samples]
        pace = 1.0 + np.abs(own @ self.rhythm)
        moving = np.sin(2 * np.pi * np.repeat(pace, lengths, axis=0) * time[:, None] + self.phase)
        hidden = np.tanh(np.repeat(steady + own @ self.private, lengths, axis=0) + 0.5 * moving).astype(np.float32)
        noise = generator.standard_normal((len(hidden), self.out.shape[1]), dtype=np.float32)
        noise *= self.noise * np.abs(self.out).mean(axis=0) * np.float32(np.sqrt(_HIDDEN))
        emitted: FloatArray = hidden @ self.out + noise + self.offset
        return emitted


def _damage(values: FloatArray, lengths: IntArray, modality: str, generator: np.random.Generator) -> None:
    """Put the faults of published files into real steps, in place."""
    if modality == "text" or not len(values):
        return
    zero = np.less(generator.random(len(values)), 0.03)
    ends = np.cumsum(lengths)
    zero[np.concatenate([ends - lengths, ends - 1])] = False  # the first and last steps delimit the sample
    values[zero] = 0.0
    if modality == "audio":  # COVAREP: logarithms of silence, divisions by zero
        spots = np.less(generator.random(len(values)), 0.02)
        values[spots, 0] = -np.inf
        values[np.less(generator.random(len(values)), 0.01), -1] = np.nan
