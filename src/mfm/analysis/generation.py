"""Generation from independent factors: codes exchanged, walked, interpolated or drawn, and decoded.

A `Recipe` says which codes make which sample; `realise` decodes it; `as_batches` lets the model read what came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfm.analysis.probes import Array
from mfm.corpora import Corpus
from mfm.data.batch import AffectBatch
from mfm.data.collate import Sample, collate
from mfm.data.records import FloatArray
from mfm.errors import ConfigurationError, DataFormatError, nearest
from mfm.models.factor_model import FactorModel
from mfm.models.masking import masked_mean, step_mask
from mfm.models.mfm import Codes
from mfm.models.normalization import Normalizer
from mfm.models.surrogate import Surrogate, infer_codes, observed_modalities

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a model reads in N samples.

    Attributes:
        ids: N names.
        codes: Z, those of missing modalities inferred where there is a surrogate.
        lengths: Modality -> (N,) steps to generate: its own; where its code was inferred by a surrogate, those of the
            sample's longest one, or its median in the split where modalities are not aligned; else 0.
        pooled: (N, P) standardised features, averaged over real steps, all modalities side by side; 0 where missing.
        prediction: (N, K) raw output of the head; (N, 0) without head.
        target: (N, K), or (N,) classes.
        mask: Same shape, False where the label is missing.
    """

    ids: tuple[str, ...]
    codes: Codes
    lengths: dict[str, Tensor]
    pooled: Array
    prediction: Tensor
    target: Tensor
    mask: Tensor

    @property
    def usable(self) -> Tensor:
        """(n,) samples of which anything was observed."""
        return torch.stack(list(self.lengths.values())).amax(dim=0).nonzero().flatten()

    def index(self, name: str, option: str) -> int:
        """Place of a sample.

        Raises:
            ConfigurationError: No sample of that name, or nothing of it was observed.
        """
        if name not in self.ids:
            known = nearest(name, self.ids)
            hint = f"its {len(self.ids)} ids are such as {', '.join(self.ids[:3])}"
            hint = known.partition("? ")[0] + "?" if known.startswith("did you mean") else hint
            raise ConfigurationError(f"{option}: the split has no sample {name!r}: {hint}")
        place = self.ids.index(name)
        if place not in self.usable.tolist():
            raise ConfigurationError(f"{option}: nothing was observed of sample {name!r}; name another one")
        return place


@torch.inference_mode()
def encode(
    model: FactorModel,
    surrogate: Surrogate | None,
    normalizer: Normalizer,
    batches: Iterable[AffectBatch],
    *,
    aligned: bool = True,
) -> Encoded:
    """Run inference over a split.

    Args:
        model: The model, in evaluation mode.
        surrogate: Infers the codes of what is missing; None leaves them at the prior's mean.
        normalizer: The model's.
        batches: The split, in the file's units.
        aligned: Whether step t is the same moment in all modalities, so that they are equally long.

    Raises:
        DataFormatError: No batch.
    """
    parts = [_encode_batch(model, surrogate, normalizer, batch) for batch in batches]
    if not parts:
        raise DataFormatError("there is no sample to generate from; choose a split that has some")
    own = {name: torch.cat([part.lengths[name] for part in parts]) for name in model.modalities}
    return Encoded(
        ids=tuple(name for part in parts for name in part.ids),
        codes=Codes(
            torch.cat([part.codes.z_y for part in parts]),
            {name: torch.cat([part.codes.z[name] for part in parts]) for name in sorted(parts[0].codes.z)},
        ),
        lengths=own if surrogate is None else _with_missing(own, aligned),
        pooled=np.concatenate([part.pooled for part in parts]),
        prediction=torch.cat([part.prediction for part in parts]),
        target=torch.cat([part.target for part in parts]),
        mask=torch.cat([part.mask for part in parts]),
    )


def _encode_batch(
    model: FactorModel, surrogate: Surrogate | None, normalizer: Normalizer, batch: AffectBatch
) -> Encoded:
    features = normalizer(batch.features, batch.lengths)
    codes = infer_codes(model, surrogate, features, batch.lengths, batch.present)
    observed = observed_modalities(model, batch.lengths, batch.present)
    nothing = torch.zeros(len(batch.ids), dtype=torch.int64)
    own = {name: batch.lengths.get(name, nothing) * observed[name] for name in model.modalities}
    pooled = [
        masked_mean(features[name], step_mask(own[name], features[name].shape[1]))
        if name in features
        else torch.zeros(len(batch.ids), dim)
        for name, dim in model.feature_dims.items()
    ]
    return Encoded(
        ids=tuple(batch.ids),
        codes=codes,
        lengths=own,
        pooled=torch.cat(pooled, dim=1).double().numpy(),
        prediction=model.predict_from(model.factorize(codes)),
        target=batch.target,
        mask=batch.target_mask,
    )


def _with_missing(own: dict[str, Tensor], aligned: bool) -> dict[str, Tensor]:
    """Lengths with a guess where a modality was inferred."""
    longest = torch.stack(list(own.values())).amax(dim=0)
    filled = {}
    for name, length in own.items():
        there = length[length > 0]
        guess = longest if aligned or not len(there) else there.median() * (longest > 0)
        filled[name] = torch.where(length > 0, length, guess)
    return filled


# ------------------------------------------------------------------------------------------------------- recipes
class Recipe(NamedTuple):
    """What to generate.

    Attributes:
        ids: P names that say what was combined.
        codes: The P codes.
        lengths: Modality -> (P,) steps.
        content: (P,) samples whose Z_y is used, -1 where it is nobody's.
        style: (P,) samples whose Z_ai are used, -1 where they are nobody's.
    """

    ids: list[str]
    codes: Codes
    lengths: dict[str, Tensor]
    content: Tensor
    style: Tensor


def choose_pairs(
    encoded: Encoded, count: int, *, content: str | None = None, style: str | None = None, seed: int = 0
) -> list[tuple[int, int]]:
    """Pairs of two different samples, each pair once.

    Args:
        encoded: The samples.
        count: Number of pairs, unless both are named.
        content: Name of the first of every pair; drawn by default.
        style: Name of the second of every pair; drawn by default.
        seed: Seed of what is drawn.

    Raises:
        ConfigurationError: An unknown name, twice the same, or fewer pairs than asked for.
    """
    first = None if content is None else encoded.index(content, "--content")
    second = None if style is None else encoded.index(style, "--style")
    if first is not None and second is not None:
        if first == second:
            raise ConfigurationError(f"--content and --style are both {content!r}; name two different samples")
        return [(first, second)]
    places = encoded.usable.tolist()
    generator = np.random.default_rng(seed)
    if first is None and second is None:
        _enough(count, len(places) * (len(places) - 1), "pairs of different samples")
        drawn = generator.choice(len(places) * (len(places) - 1), count, replace=False)
        rows, columns = np.divmod(drawn, len(places) - 1)
        columns += columns >= rows  # nobody is paired with itself
        return [(places[row], places[column]) for row, column in zip(rows, columns, strict=True)]
    fixed = first if first is not None else second
    others = [place for place in places if place != fixed]
    _enough(count, len(others), f"samples besides {content or style!r}")
    chosen = [others[place] for place in generator.choice(len(others), count, replace=False)]
    return [(first, one) if first is not None else (one, second) for one in chosen]  # type: ignore[misc]


def _enough(count: int, there: int, what: str) -> None:
    if count > there:
        raise ConfigurationError(f"--count {count} is more than the {there} {what} that the split has")


def swap(encoded: Encoded, pairs: Sequence[tuple[int, int]]) -> Recipe:
    """Z_y of one sample (content) with the Z_ai, and the lengths, of another (style)."""
    content, style = _columns(pairs)
    return Recipe(
        [f"swap[content={encoded.ids[a]},style={encoded.ids[b]}]" for a, b in pairs],
        Codes(encoded.codes.z_y[content], {name: z[style] for name, z in encoded.codes.z.items()}),
        {name: length[style] for name, length in encoded.lengths.items()},
        content,
        style,
    )


def interpolate(encoded: Encoded, pairs: Sequence[tuple[int, int]], steps: int) -> Recipe:
    """All codes, on the line from one sample to another, both included; lengths likewise, rounded.

    A modality that one of the two lacks is left out.
    """
    content, style = _columns([pair for pair in pairs for _ in range(steps)])
    t = torch.linspace(0.0, 1.0, steps).repeat(len(pairs))

    def between(x: Tensor) -> Tensor:
        return torch.lerp(x[content], x[style], t[:, None])

    lengths = {}
    for name, length in encoded.lengths.items():
        mixed = torch.lerp(length[content].double(), length[style].double(), t.double()).round().long()
        lengths[name] = mixed * ((length[content] > 0) & (length[style] > 0))
    return Recipe(
        [
            f"interpolate[content={encoded.ids[a]},style={encoded.ids[b]},step={step}]"
            for a, b in pairs
            for step in range(steps)
        ],
        Codes(between(encoded.codes.z_y), {name: between(z) for name, z in encoded.codes.z.items()}),
        lengths,
        content,
        style,
    )


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    content, style = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(dim=1)
    return content, style


class Walk(NamedTuple):
    """A direction in Z_y along which the head's output grows.

    Attributes:
        direction: (z_y,) change of Z_y for one unit of the output.
        low: Least output among the samples.
        high: Largest.
    """

    direction: Tensor
    low: float
    high: float


def head_output(corpus: Corpus, prediction: Tensor, along: int) -> Tensor:
    """(N,) the output to walk along: a regression's value, or the logit of a class over the mean of the others'."""
    chosen = prediction[:, along]
    if corpus.task != "multiclass":
        return chosen
    return chosen - (prediction.sum(dim=1) - chosen) / max(prediction.shape[1] - 1, 1)


def walk_of(encoded: Encoded, output: Tensor) -> Walk:
    """How Z_y goes with what the head reads in it: cov(Z_y, output) / var(output), over the samples.

    The pattern that goes with the output rather than the head's gradient (Haufe et al., NeuroImage 2014): the gradient
    also points where no sample's code is, and decoders have never seen what is there.

    Args:
        encoded: The samples.
        output: (N,) of `head_output`.

    Raises:
        ConfigurationError: The head says the same of every sample.
    """
    rows = encoded.usable
    z, value = encoded.codes.z_y[rows].double(), output[rows].double()
    variation = (value - value.mean()).square().sum()
    if not len(rows) or variation <= 1e-12 * (1.0 + value.square().sum()):
        raise ConfigurationError("the head says the same of every sample, so there is no direction to walk; train more")
    direction = ((value - value.mean()) @ (z - z.mean(dim=0)) / variation).float()
    return Walk(direction, float(value.min()), float(value.max()))


def traverse(encoded: Encoded, output: Tensor, walk: Walk, samples: Sequence[int], steps: int) -> Recipe:
    """Z_y of each sample along a walk, from the lowest to the highest output of the split, its Z_ai held.

    Args:
        encoded: The samples.
        output: (N,) of `head_output`.
        walk: The direction.
        samples: Whose Z_ai.
        steps: Positions on each walk.
    """
    style = torch.tensor([one for one in samples for _ in range(steps)], dtype=torch.int64)
    asked = torch.linspace(walk.low, walk.high, steps).repeat(len(samples))
    z_y = encoded.codes.z_y[style] + (asked - output[style])[:, None] * walk.direction
    return Recipe(
        [f"traverse[style={encoded.ids[one]},step={step}]" for one in samples for step in range(steps)],
        Codes(z_y, {name: z[style] for name, z in encoded.codes.z.items()}),
        {name: length[style] for name, length in encoded.lengths.items()},
        torch.full_like(style, -1),
        style,
    )


def choose_samples(encoded: Encoded, count: int, seed: int = 0) -> list[int]:
    """Different samples.

    Raises:
        ConfigurationError: Fewer than asked for.
    """
    places = encoded.usable.tolist()
    _enough(count, len(places), "samples")
    return [places[one] for one in np.random.default_rng(seed).choice(len(places), count, replace=False)]


def draw_prior(encoded: Encoded, count: int, seed: int = 0) -> Recipe:
    """Z from N(0, I); the lengths of samples drawn from the split, of complete ones where it has any.

    Raises:
        ConfigurationError: Nothing was observed of any sample, so that there is no length to take.
    """
    places = torch.stack(list(encoded.lengths.values())).amin(dim=0).nonzero().flatten()
    places = places if len(places) else encoded.usable
    if not len(places):
        raise ConfigurationError("nothing was observed of any sample of the split; choose another split")
    generator = torch.Generator().manual_seed(seed)
    drawn = places[torch.randint(len(places), (count,), generator=generator)]

    def normal(like: Tensor) -> Tensor:
        return torch.randn(count, like.shape[1], generator=generator)

    nobody = torch.full((count,), -1)
    return Recipe(
        [f"prior[{place}]" for place in range(count)],
        Codes(normal(encoded.codes.z_y), {name: normal(z) for name, z in encoded.codes.z.items()}),
        {name: length[drawn] for name, length in encoded.lengths.items()},
        nobody,
        nobody,
    )


# ----------------------------------------------------------------------------------------------------- sequences
@torch.inference_mode()
def realise(model: FactorModel, normalizer: Normalizer, recipe: Recipe) -> dict[str, list[FloatArray]]:
    """Decode.

    Returns:
        Modality -> P sequences (L, D) in the file's units; L = 0 where the recipe has no steps.
    """
    result: dict[str, list[FloatArray]] = {name: [] for name in model.modalities}
    for start in range(0, len(recipe.ids), _BATCH):
        rows = slice(start, start + _BATCH)
        codes = Codes(recipe.codes.z_y[rows], {name: z[rows] for name, z in recipe.codes.z.items()})
        lengths = {name: length[rows] for name, length in recipe.lengths.items()}
        steps = {name: max(1, int(length.max())) for name, length in lengths.items()}
        decoded = normalizer.inverse(model.decode(model.factorize(codes), steps))
        for name, x in decoded.items():
            result[name] += [one[: int(size)].numpy() for one, size in zip(x, lengths[name], strict=True)]
    return result


@torch.inference_mode()
def head_on(model: FactorModel, codes: Codes) -> Tensor:
    """(P, K) raw output of the head on codes, without any sequence between."""
    return model.predict_from(model.factorize(codes))


def as_batches(ids: Sequence[str], sequences: Mapping[str, Sequence[FloatArray]]) -> Iterator[AffectBatch]:
    """Generated sequences as any other input, unlabelled."""
    nothing = np.zeros(1, dtype=np.float32)
    for start in range(0, len(ids), _BATCH):
        yield collate(
            [
                Sample(
                    features={name: x[place] for name, x in sequences.items()},
                    present={name: len(x[place]) > 0 for name, x in sequences.items()},
                    target=nothing,
                    target_mask=np.zeros(1, dtype=np.bool_),
                    id=ids[place],
                )
                for place in range(start, min(start + _BATCH, len(ids)))
            ]
        )
