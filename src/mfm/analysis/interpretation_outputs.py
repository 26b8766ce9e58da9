"""Run a model over a split and keep what interpretation needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mfm.analysis.contribution import Subset, subsets
from mfm.analysis.information import summarize_steps
from mfm.data.batch import AffectBatch, without
from mfm.errors import ConfigurationError, DataFormatError, nearest
from mfm.models.mfm import Factors, MFMOutput

SummaryOption = Literal["auto", "mean", "flatten"]
Forward = Callable[[AffectBatch], MFMOutput]
Decode = Callable[[Factors, Mapping[str, int]], dict[str, Tensor]]

_LARGEST_FLAT = 4096  # longer vectors are means by default: distances among them cost too much


@dataclass(frozen=True)
class Collected:
    """A model's outputs over N samples, on the CPU.

    Attributes:
        ids: Names.
        lengths: Modality -> (N,) real steps, 0 where absent.
        f_y: (N, f_y).
        f: Modality -> (N, f_i).
        rebuilt: Modality -> (n, d) summary of the reconstructions of the samples that have it, in standardised units.
        summary: Modality -> `mean` or `flatten`.
        predictions: Subset of modalities -> (N, output_dim); without the empty one.
        target: As in the batches.
        mask: As in the batches.
    """

    ids: list[str]
    lengths: dict[str, Tensor]
    f_y: Tensor
    f: dict[str, Tensor]
    rebuilt: dict[str, Tensor]
    summary: dict[str, str]
    predictions: dict[Subset, Tensor]
    target: Tensor
    mask: Tensor


@torch.no_grad()
def collect(
    forward: Forward, decode: Decode, batches: Iterable[AffectBatch], summary: SummaryOption, *, every_subset: bool
) -> Collected:
    """Run a model over a split; memory for factors and summaries, not for sequences.

    Raises:
        ConfigurationError: The model has no shared factor or no decoder, or sequences cannot be flattened.
        DataFormatError: No batch.
    """
    if summary not in get_args(SummaryOption):
        raise ConfigurationError(f"unknown summary {summary!r}: {nearest(summary, get_args(SummaryOption))}")
    parts: list[tuple[AffectBatch, Factors]] = []
    vectors: dict[str, _Vectors] = {}
    predictions: dict[Subset, list[Tensor]] = {}
    for batch in batches:
        output = forward(batch)
        names = sorted(batch.features)
        _check_model(output, names)
        rebuilt = decode(output.factors, {name: batch.features[name].shape[1] for name in names})
        real = {name: batch.lengths[name].masked_fill(~batch.present[name], 0) for name in names}
        for name in names:
            vectors.setdefault(name, _Vectors(summary)).add(rebuilt[name], real[name])
        for one in subsets(names)[1:] if every_subset else [frozenset(names)]:
            absent = {name: torch.ones_like(batch.present[name]) for name in names if name not in one}
            seen = forward(without(batch, absent)) if absent else output
            predictions.setdefault(one, []).append(seen.prediction.float().cpu())
        parts.append((batch._replace(features={}, lengths=real), output.factors))
    if not parts:
        raise DataFormatError("the split has no sample to interpret; choose another with --split")
    joined = {name: one.joined() for name, one in vectors.items()}
    return Collected(
        ids=[name for batch, _ in parts for name in batch.ids],
        lengths={name: torch.cat([batch.lengths[name] for batch, _ in parts]).cpu() for name in vectors},
        f_y=torch.cat([factors.f_y for _, factors in parts]).float().cpu(),
        f={name: torch.cat([factors.f[name] for _, factors in parts]).float().cpu() for name in vectors},
        rebuilt={name: one for name, (one, _) in joined.items() if len(one)},
        summary={name: how for name, (one, how) in joined.items() if len(one)},
        predictions={one: torch.cat(found) for one, found in predictions.items()},
        target=torch.cat([batch.target for batch, _ in parts]).cpu(),
        mask=torch.cat([batch.target_mask for batch, _ in parts]).cpu(),
    )


class _Vectors:
    """A modality's reconstructions as vectors: the flat ones are kept only while they may be wanted."""

    def __init__(self, summary: SummaryOption) -> None:
        self.summary = summary
        self.means: list[Tensor] = []
        self.flat: list[Tensor] = []
        self.steps: set[int] = set()

    def add(self, rebuilt: Tensor, lengths: Tensor) -> None:
        there = lengths > 0
        x, lengths = rebuilt[there].float(), lengths[there]
        if not len(x):
            return
        self.steps |= set(lengths.tolist())
        longest = max(self.steps)
        if self.summary == "flatten" and len(self.steps) > 1:
            summarize_steps(
                x[:1].expand(2, -1, -1), torch.tensor([min(self.steps), longest]), "flatten"
            )  # says why not
        if self.summary != "flatten":
            self.means.append(summarize_steps(x, lengths, "mean").cpu())
        small = self.summary == "flatten" or longest * x.shape[2] <= _LARGEST_FLAT
        if self.summary == "mean" or len(self.steps) > 1 or not small:
            self.flat.clear()
            self.summary = "mean"
        else:
            self.flat.append(summarize_steps(x, lengths, "flatten").cpu())

    def joined(self) -> tuple[Tensor, str]:
        parts = self.flat or self.means
        return torch.cat(parts) if parts else torch.zeros(0, 0), "flatten" if self.flat else "mean"


def _check_model(output: MFMOutput, names: Sequence[str]) -> None:
    if not output.factors.f_y.shape[1]:
        raise ConfigurationError(
            "the model has no shared factor F_y, so that there is nothing to compare; train an MFM"
        )
    lacking = [name for name in names if name not in output.factors.f]
    if lacking:
        raise ConfigurationError(
            f"the model has no factor of its own for modality {lacking[0]!r}, so that there is nothing to compare F_y "
            "with; train an MFM"
        )
