"""The objective of MISA: similar shared representations, private ones that differ from them, vectors rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from mfm.losses.objective import LossParts, _weight
from mfm.losses.precision import at_least_float32, without_autocast
from mfm.losses.prediction import choose_prediction_loss, prediction_loss

MOMENTS = 5
"""Moments that CMD compares (Zellinger et al., ICLR 2017, and MISA)."""


def central_moment_discrepancy(
    x: Tensor, y: Tensor, x_known: Tensor, y_known: Tensor, *, moments: int = MOMENTS
) -> Tensor:
    """Central moment discrepancy of two samples in [0, 1] (Zellinger et al., ICLR 2017, arXiv 1702.08811; MISA, eq. 5).

        CMD = ||E x - E y|| + sum_{k=2}^K ||C_k(x) - C_k(y)||        C_k(x) = E (x - E x)^k, by dimension

    Args:
        x: (B, d).
        y: (B, d).
        x_known: (B,) bool, which rows of x there are; what the others hold has no influence.
        y_known: (B,) bool, likewise.
        moments: K >= 1.

    Returns:
        Scalar >= 0, at least float32; 0, with zero gradients, where either sample is empty.
    """
    with without_autocast(x):
        (mean_x, moments_x), (mean_y, moments_y) = (
            _central_moments(one, known, moments) for one, known in ((x, x_known), (y, y_known))
        )
        gaps = [torch.linalg.vector_norm(mean_x - mean_y)]
        gaps += [torch.linalg.vector_norm(a - b) for a, b in zip(moments_x, moments_y, strict=True)]
        return torch.stack(gaps).sum().masked_fill(~(x_known.any() & y_known.any()), 0.0)


def _central_moments(x: Tensor, known: Tensor, moments: int) -> tuple[Tensor, list[Tensor]]:
    """E x and C_2 .. C_K over the known rows, each (d,)."""
    real = known[:, None]
    x = at_least_float32(x).masked_fill(~real, 0.0)
    count = real.sum().clamp(min=1)
    mean = x.sum(dim=0) / count
    centred = (x - mean).masked_fill(~real, 0.0)
    return mean, [centred.pow(k).sum(dim=0) / count for k in range(2, moments + 1)]


def orthogonality(x: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """How far two representations are from orthogonal (Bousmalis et al., NIPS 2016; MISA, eq. 7).

        ||X^T Y||_F^2 / (d e)      rows of X and Y centred over the batch, then of length 1

    The division is that of the authors' code, to which their weight belongs; rows' lengths take no gradient, as there.

    Args:
        x: (B, d).
        y: (B, e).
        known: (B,) bool, which rows take part; what the others hold has no influence.

    Returns:
        Scalar >= 0, at least float32; 0, with zero gradients, where at most one row takes part.
    """
    with without_autocast(x):
        rows_x, rows_y = (_unit_rows(one, known) for one in (x, y))
        return (rows_x.t() @ rows_y).square().mean()


def _unit_rows(x: Tensor, known: Tensor) -> Tensor:
    """Known rows centred and of length 1, zeros elsewhere."""
    real = known[:, None]
    x = at_least_float32(x).masked_fill(~real, 0.0)
    centred = (x - x.sum(dim=0) / real.sum().clamp(min=1)).masked_fill(~real, 0.0)
    lengths = torch.linalg.vector_norm(centred.detach(), dim=1, keepdim=True)
    rows: Tensor = centred / (lengths + 1e-6)
    return rows


class MISAObjective(nn.Module):
    """The objective of MISA (Hazarika et al., ACM Multimedia 2020, arXiv 2005.03545, eq. 4).

        L = L_task + alpha L_sim + beta L_diff + gamma L_recon

    Padded steps, absent modalities and missing labels are in no part. Parts, all unweighted scalars:

    * `prediction`: L_task.
    * `similarity`: CMD of s_m and s_n, the mean over pairs of modalities; each over the samples that have it.
    * `difference`: orthogonality of p_m and s_m, and of p_m and p_n, summed; over the samples that have both.
    * `reconstruction`: squared error of u^_m, the mean over dimensions, samples that have m, and modalities.

    One modality alone has no `similarity`.

    Args:
        task: `regression`, `binary`, `multiclass` or `multilabel`.
        similarity: Weight alpha.
        difference: Weight beta.
        reconstruction: Weight gamma.
        prediction_loss: Name of a loss of the task.

    Raises:
        ConfigurationError: An unknown name (the nearest is named), or a weight that is negative or not finite.
    """

    def __init__(
        self,
        task: str,
        *,
        similarity: float = 0.7,
        difference: float = 0.3,
        reconstruction: float = 0.7,
        prediction_loss: str | None = None,
    ) -> None:
        super().__init__()
        choose_prediction_loss(task, prediction_loss)
        self.task, self.prediction_loss = task, prediction_loss
        given = {"similarity": similarity, "difference": difference, "reconstruction": reconstruction}
        self.weights = {name: _weight(name, weight) for name, weight in given.items()}

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        target_mask: Tensor,
        vectors: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        private: Mapping[str, Tensor],
        rebuilt: Mapping[str, Tensor],
        known: Mapping[str, Tensor],
    ) -> LossParts:
        """Compute the objective of a batch.

        Args:
            prediction: (B, K).
            target: See `mfm.losses.prediction.prediction_loss`.
            target_mask: Same shape as `target`.
            vectors: Modality -> u_m (B, h); its gradient is taken, as in the authors' code.
            shared: Modality -> s_m (B, h), in [0, 1].
            private: Modality -> p_m (B, h).
            rebuilt: Modality -> u^_m (B, h).
            known: Modality -> (B,) bool.

        Returns:
            The weighted total and the unweighted parts.
        """
        names = sorted(shared)
        pairs = list(combinations(names, 2))
        parts = {
            "prediction": prediction_loss(prediction, target, target_mask, task=self.task, loss=self.prediction_loss)
        }
        if pairs:
            parts["similarity"] = torch.stack(
                [central_moment_discrepancy(shared[m], shared[n], known[m], known[n]) for m, n in pairs]
            ).mean()
        apart = [orthogonality(private[m], shared[m], known[m]) for m in names]
        apart += [orthogonality(private[m], private[n], known[m] & known[n]) for m, n in pairs]
        parts["difference"] = torch.stack(apart).sum()
        errors = [_squared_error(rebuilt[m], vectors[m], known[m]) for m in names]
        parts["reconstruction"] = torch.stack(errors).mean()
        weighted = [self.weights.get(name, 1.0) * part for name, part in parts.items()]
        return LossParts(torch.stack(weighted).sum(), parts)


def _squared_error(x: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """Mean over dimensions and known rows."""
    with without_autocast(x):
        errors = (at_least_float32(x) - at_least_float32(y)).masked_fill(~known[:, None], 0.0)
        return errors.square().mean(dim=1).sum() / known.sum().clamp(min=1)
