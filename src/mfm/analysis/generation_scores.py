"""Whether what was generated says what it should, and whether codes are where the prior draws them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfm.analysis.factorization import FEWEST
from mfm.analysis.generation import Encoded
from mfm.analysis.probes import Array, ridge
from mfm.corpora import Corpus
from mfm.losses.mmd import KERNELS, check_kernel, mmd
from mfm.models.mfm import Codes

JOINT = "joint"
"""Name of all codes of a sample side by side."""


# --------------------------------------------------------------------------------------------------- what it says
def label_said(corpus: Corpus, prediction: Tensor) -> Tensor:
    """The label that raw outputs say: (N,) classes, or (N, K) values or 0/1."""
    if corpus.task == "regression":
        return prediction
    if corpus.task == "multiclass":
        return prediction.argmax(dim=1)
    return (prediction > 0).to(prediction.dtype)


def read_independently(corpus: Corpus, train: Encoded, pooled: Array) -> Tensor | None:
    """Read labels with a ridge regression that never saw the model: real training features to their labels.

    Classes are one output each, -1 or 1, so that what comes out is read as logits are.

    Args:
        corpus: Task and classes.
        train: Real training samples; their mean-pooled features and labels are used, nothing of the model's.
        pooled: (M, P) features to read.

    Returns:
        (M, K); None where a target has too few training labels.
    """
    if corpus.task == "multiclass":
        known = train.mask.numpy()[:, None].repeat(corpus.output_dim, axis=1)
        values = 2.0 * np.eye(corpus.output_dim)[np.where(train.mask, train.target, 0)] - 1.0
    else:
        known, values = train.mask.numpy(), train.target.double().numpy()
        values = values if corpus.task == "regression" else 2.0 * values - 1.0
    if known.shape[1] != corpus.output_dim or (known.sum(axis=0) < FEWEST).any():
        return None
    read = [ridge(train.pooled[known[:, k]], values[known[:, k], k : k + 1], pooled) for k in range(corpus.output_dim)]
    return torch.from_numpy(np.concatenate(read, axis=1)).float()


def agreement(corpus: Corpus, read: Tensor, label: Tensor, known: Tensor) -> dict[str, float]:
    """How far a reading agrees with labels, mean over targets.

    Args:
        corpus: Task.
        read: (N, K) raw outputs of a reader.
        label: (N, K), or (N,) classes.
        known: Same shape, False where there is no label.

    Returns:
        `mae` and Pearson's `corr` (NaN where either is constant) for regression, `acc` for classes.
    """
    if corpus.task == "multiclass":
        return {"acc": _mean([float((read.argmax(dim=1) == label)[known].double().mean()) if known.any() else np.nan])}
    said = label_said(corpus, read).double().numpy()
    truth, there = label.double().numpy(), known.numpy()
    columns = [(said[there[:, k], k], truth[there[:, k], k]) for k in range(truth.shape[1]) if there[:, k].any()]
    if corpus.task == "regression":
        return {
            "mae": _mean([float(np.abs(a - b).mean()) for a, b in columns]),
            "corr": _mean([_correlation(a, b) for a, b in columns]),
        }
    return {"acc": _mean([float((a == b).mean()) for a, b in columns])}


def constant_agreement(corpus: Corpus, label: Tensor, known: Tensor) -> dict[str, float]:
    """What the best constant reaches on these labels: `mae` of their median, or `acc` of the most frequent class."""
    if corpus.task == "multiclass":
        classes = label[known]
        return {"acc": float(torch.bincount(classes).max() / len(classes)) if len(classes) else float("nan")}
    columns = [label[known[:, k], k].double().numpy() for k in range(label.shape[1]) if known[:, k].any()]
    if corpus.task == "regression":
        return {"mae": _mean([float(np.abs(one - np.median(one)).mean()) for one in columns])}
    return {"acc": _mean([float(max(one.mean(), 1.0 - one.mean())) for one in columns])}


def _correlation(a: Array, b: Array) -> float:
    if len(a) < 2 or np.ptp(a) <= 1e-9 or np.ptp(b) <= 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


# ------------------------------------------------------------------------------------------------------ the prior
class PriorCheck(NamedTuple):
    """Codes of a split against the prior.

    Attributes:
        block: `joint`, `y`, or a block of `z`, a modality's or `shared`.
        samples: Codes compared, with as many draws.
        mmd: Unbiased squared MMD; about 0 where both agree.
        p: Permutation p-value; small: the prior does not draw what the encoders make.
        mean: Root mean square, over dimensions, of the codes' means; 0 under the prior.
        deviation: The same of their deviations; 1 under the prior.
    """

    block: str
    samples: int
    mmd: float
    p: float
    mean: float
    deviation: float


def prior_checks(
    encoded: Encoded, *, most: int = 500, permutations: int = 499, kernel: str = "rbf", seed: int = 0
) -> list[PriorCheck]:
    """Does the aggregate posterior, the codes of all samples, match N(0, I), jointly and block by block?

    A block counts on the samples that have it. Fewer than 20 of them get no p-value.

    Args:
        encoded: The samples.
        most: Codes compared, drawn where there are more: the kernel matrix is (2 most)^2.
        permutations: Permutations behind a p-value.
        kernel: Name in `mfm.losses.mmd.KERNELS`.
        seed: Seed of draws and permutations.

    Raises:
        ConfigurationError: Unknown kernel.
    """
    check_kernel(kernel)
    there = {name: length > 0 for name, length in encoded.lengths.items()}
    everything = torch.stack(list(there.values())).all(dim=0)
    some = torch.stack(list(there.values())).any(dim=0)
    blocks = {
        JOINT: _joint(encoded.codes)[everything],
        **({"y": encoded.codes.z_y[some]} if encoded.codes.z_y.shape[1] else {}),
        # a block that is no modality's is inferred from whatever is there
        **{name: encoded.codes.z[name][there.get(name, some)] for name in sorted(encoded.codes.z)},
    }
    generator = torch.Generator().manual_seed(seed)
    return [_checked(name, z, most, permutations, kernel, generator) for name, z in blocks.items()]


def _joint(codes: Codes) -> Tensor:
    return torch.cat([codes.z_y, *(codes.z[name] for name in sorted(codes.z))], dim=1)


def _checked(name: str, z: Tensor, most: int, permutations: int, kernel: str, generator: torch.Generator) -> PriorCheck:
    z = z[torch.randperm(len(z), generator=generator)[:most]].double()
    if len(z) < FEWEST:
        return PriorCheck(name, len(z), np.nan, np.nan, np.nan, np.nan)
    prior = torch.randn(z.shape, generator=generator, dtype=z.dtype)
    return PriorCheck(
        name,
        len(z),
        float(mmd(z, prior, kernel=kernel, unbiased=True)),
        mmd_permutation_p(z, prior, kernel=kernel, permutations=permutations, generator=generator),
        float(z.mean(dim=0).square().mean().sqrt()),
        float(z.var(dim=0).mean().sqrt()),
    )


def mmd_permutation_p(
    a: Tensor, b: Tensor, *, kernel: str = "rbf", permutations: int = 499, generator: torch.Generator | None = None
) -> float:
    """p-value of the MMD of two samples of one size under exchange of their members (Gretton et al., JMLR 2012).

    With signs s = 1/n in one and -1/n in the other, the biased MMD^2 is s' K s; of two samples equally large, the
    unbiased one orders permutations alike.

    Args:
        a: (N, d).
        b: (N, d).
        kernel: Name in `mfm.losses.mmd.KERNELS`.
        permutations: How many.
        generator: Source of the permutations.

    Returns:
        (1 + how many are at least as large) / (1 + permutations).

    Raises:
        ValueError: Samples of different shape.
    """
    if a.shape != b.shape:
        raise ValueError(f"samples of shapes {tuple(a.shape)} and {tuple(b.shape)}; equally many are needed")
    pooled = torch.cat([a, b]).double()
    similarity = KERNELS[kernel](torch.cdist(pooled, pooled).square(), a.shape[1])
    signs = torch.cat([torch.ones(len(a)), -torch.ones(len(b))]).double() / len(a)
    drawn = [signs[torch.randperm(len(signs), generator=generator)] for _ in range(permutations)]
    rows = torch.stack([signs, *drawn])
    statistic = (rows @ similarity * rows).sum(dim=1)
    # exchanging both samples gives the same value but for rounding
    reached = int((statistic[1:] >= statistic[0] - 1e-12).sum())
    return (1 + reached) / (1 + permutations)
