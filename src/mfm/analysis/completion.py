"""Missing modalities filled in, and how far what is filled in can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from mfm.analysis.corruption import only
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError
from mfm.files import whole_file
from mfm.models.factor_model import FactorModel
from mfm.models.masking import masked_mean, step_mask
from mfm.models.normalization import Normalizer
from mfm.models.surrogate import Surrogate, infer_codes

PENALTIES = tuple(10.0**power for power in range(7))
"""Ridge penalties, among which the validation split chooses."""


class Completed(NamedTuple):
    """One modality of a batch, filled in from the others.

    Attributes:
        values: (B, T, D) standardised; real in the first `lengths` steps.
        truth: (B, T, D) standardised; anything where the sample does not have the modality.
        lengths: (B,) steps: the modality's own where the sample has it, the longest observed one's otherwise.
        known: (B,) bool, whether the sample has the modality, so that there is something to compare with.
    """

    values: Tensor
    truth: Tensor
    lengths: Tensor
    known: Tensor


@torch.inference_mode()
def complete(
    model: FactorModel, surrogate: Surrogate, normalizer: Normalizer, batch: AffectBatch, hidden: Sequence[str]
) -> dict[str, Completed]:
    """Hide modalities from every sample of a batch and generate them from the rest.

    Args:
        model: The model.
        surrogate: Infers the codes of what is hidden.
        normalizer: The model's.
        batch: In the file's units.
        hidden: Modalities to hide; what they hold has no influence on the values.
    """
    shown = only(batch, [name for name in batch.features if name not in hidden])
    codes = infer_codes(model, surrogate, normalizer(shown.features, shown.lengths), shown.lengths, shown.present)
    truth = normalizer({name: batch.features[name] for name in hidden}, batch.lengths)
    longest = torch.stack(list(shown.lengths.values())).amax(dim=0)
    lengths, known = {}, {}
    for name in hidden:
        known[name] = batch.present[name] & (batch.lengths[name] > 0)
        lengths[name] = torch.where(known[name], batch.lengths[name], longest)
    steps = {name: int(lengths[name].max()) for name in hidden}
    decoded = model.decode(model.factorize(codes), steps)
    result = {}
    for name in hidden:
        real = step_mask(lengths[name], steps[name])[..., None]
        own = torch.zeros_like(decoded[name])
        own[:, : truth[name].shape[1]] = truth[name][:, : steps[name]]
        result[name] = Completed(decoded[name].masked_fill(~real, 0.0), own, lengths[name], known[name])
    return result


class RidgeFromObserved:
    """Linear regression of a modality's steps on the others: the plain way of filling in, to compare with.

    It reads the mean of each observed modality and, where step t is the same moment in all, the observed features of
    the step itself. All is standardised; the penalty is chosen on validation samples.

    Args:
        normalizer: The model's.
        observed: Modalities it reads.
        target: Modality it predicts.
        aligned: Whether step t is the same moment in all modalities.
    """

    def __init__(self, normalizer: Normalizer, observed: Sequence[str], target: str, *, aligned: bool) -> None:
        self.normalizer, self.observed, self.target, self.aligned = normalizer, sorted(observed), target, aligned
        self.weights: Tensor | None = None
        self.penalty = 0.0

    def fit(self, train: Iterable[AffectBatch], valid: Iterable[AffectBatch]) -> None:
        """Fit on training samples that have the modality, for every penalty; keep the best on validation samples.

        Raises:
            ConfigurationError: No sample of one of the two has the modality.
        """
        gram, moment, _, count = self._moments(train)
        valid_gram, valid_moment, valid_power, valid_count = self._moments(valid)
        if not count or not valid_count:
            raise ConfigurationError(f"no training or validation sample has modality {self.target!r} to learn from")
        best = torch.inf
        for penalty in PENALTIES:
            diagonal = torch.full((len(gram),), penalty, dtype=gram.dtype)
            diagonal[-1] = 1e-6  # the intercept is free
            weights = torch.linalg.solve(gram + torch.diag(diagonal), moment)
            error = float(valid_power - 2 * (weights * valid_moment).sum() + (weights * (valid_gram @ weights)).sum())
            if error < best:
                best, self.weights, self.penalty = error, weights, penalty

    def predict(self, batch: AffectBatch, steps: int) -> Tensor:
        """(B, steps, D) standardised."""
        assert self.weights is not None, "fit comes first"
        return (self._inputs(batch, steps) @ self.weights).float()

    def _inputs(self, batch: AffectBatch, steps: int) -> Tensor:
        """(B, steps, P) of float64, the last of them 1."""
        shown = only(batch, self.observed)
        features = self.normalizer({name: shown.features[name] for name in self.observed}, shown.lengths)
        rows = len(batch.ids)
        parts = []
        for name in self.observed:
            x = features[name].double()
            mean = masked_mean(x, step_mask(shown.lengths[name], x.shape[1]))
            parts.append(mean[:, None].expand(-1, steps, -1))
            if self.aligned:
                own = x.new_zeros(rows, steps, x.shape[2])
                own[:, : x.shape[1]] = x[:, :steps]
                parts.append(own)
        parts.append(torch.ones(rows, steps, 1, dtype=torch.float64, device=batch.target.device))
        return torch.cat(parts, dim=2)

    def _moments(self, batches: Iterable[AffectBatch]) -> tuple[Tensor, Tensor, Tensor, int]:
        """Sums over real steps of x x', x y' and |y|^2, and their number."""
        sums: list[Tensor] | None = None
        count = 0
        for batch in batches:
            y = self.normalizer({self.target: batch.features[self.target]}, batch.lengths)[self.target].double()
            real = step_mask(batch.lengths[self.target].masked_fill(~batch.present[self.target], 0), y.shape[1])
            x, y = self._inputs(batch, y.shape[1])[real], y[real]
            found = [x.T @ x, x.T @ y, y.square().sum()]
            sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
            count += int(real.sum())
        if sums is None:
            raise ConfigurationError("there are no samples to learn from")
        return sums[0], sums[1], sums[2], count


@dataclass
class Accuracy:
    """Share of variance explained, R^2 = 1 - sum (x - x^)^2 / sum (x - mean x)^2, over steps that are known.

    On the standardised scale, so that `overall` weighs every feature by its variance in training. It is negative where
    guessing the mean of the scored samples would have been better.

    Args:
        dim: Number of features.
    """

    dim: int

    def __post_init__(self) -> None:
        self._error, self._sum, self._square = (torch.zeros(self.dim, dtype=torch.float64) for _ in range(3))
        self.steps = 0

    def update(self, values: Tensor, truth: Tensor, mask: Tensor) -> None:
        """Count a batch: (B, T, D) values and truth, and which steps count, (B, T)."""
        guess, own = values[mask].double().cpu(), truth[mask].double().cpu()
        self._error += (guess - own).square().sum(0)
        self._sum += own.sum(0)
        self._square += own.square().sum(0)
        self.steps += len(own)

    def per_feature(self) -> Tensor:
        """(D,) R^2; NaN for a feature that does not vary."""
        variation = self._variation()
        ratio = self._error / variation
        return torch.where(variation > 1e-9 * max(self.steps, 1), 1.0 - ratio, torch.nan)

    def overall(self) -> float:
        """R^2 of all features together; NaN where nothing varies."""
        variation = self._variation().sum()
        return float(1.0 - self._error.sum() / variation) if variation > 0 else float("nan")

    def _variation(self) -> Tensor:
        return (self._square - self._sum.square() / max(self.steps, 1)).clamp(min=0.0)


def write_completed(
    path: str | Path,
    ids: Sequence[str],
    values: Mapping[str, Sequence[Tensor]],
    provenance: Mapping[str, str],
) -> None:
    """Write generated modalities, whole or not at all.

    The file holds `ids` (N,), and for each modality `features/<modality>` (N, T, D) float32 in the file's units, with
    zeros in padding, and `lengths/<modality>` (N,); `provenance` becomes attributes of the root.

    Args:
        path: HDF5 file.
        ids: Names of the N samples.
        values: Modality -> N sequences (L, D) in the file's units.
        provenance: Where they come from.
    """
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        for key, value in {"format": "mfm-reconstruction", **provenance}.items():
            file.attrs[key] = value
        file.create_dataset("ids", data=np.asarray(ids, dtype=object), dtype=h5py.string_dtype("utf-8"))
        for name, sequences in values.items():
            padded = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
            file.create_dataset(f"features/{name}", data=padded.to(torch.float32).numpy())
            file.create_dataset(f"lengths/{name}", data=np.asarray([len(one) for one in sequences], dtype=np.int64))
