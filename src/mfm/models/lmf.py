"""LMF: low-rank multimodal fusion."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.per_modality import PerModality
from mfm.models.registry import Rate, Size
from mfm.models.subnetworks import Kind, Subnetworks


@NETWORKS.register("lmf")
class LowRankFusion(Network):
    """LMF: a linear map of TFN's outer product, in low rank (Liu et al., ACL 2018, arXiv 1806.00064).

        u_m = subnetwork_m(X_m)        Y^ = sum_r w_r prod_m (W_m^r [1; u_m]) + b

    The weight tensor of a linear map from [1; u_1] x ... x [1; u_M] (see `mfm.models.tfn`) is sum_r w_r W_1^r x ... x
    W_M^r, a CP decomposition of rank R, so that the product itself is never made: the cost is linear in M. The paper's
    subnetworks are an LSTM for text and a perceptron on the mean over steps for the others; here any, per modality.

    Parameters: those of the subnetworks (see `LateFusionDNN`), and R K sum_m (U_m + 1) + R + K.

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Not used.
        subnetwork: `lstm` or `mlp`, for all modalities or per modality.
        hidden: Width H_m of the subnetworks' layers, for all modalities or per modality.
        vector: Size U_m of u_m, for all modalities or per modality; H_m by default.
        dropout: Dropout in the subnetworks, for all modalities or per modality.
        rank: Rank R.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        aligned: bool,
        *,
        subnetwork: Kind | Mapping[str, Kind] = "mlp",
        hidden: Size | Mapping[str, Size] = 64,
        vector: Size | Mapping[str, Size] | None = None,
        dropout: Rate | Mapping[str, Rate] = 0.0,
        rank: Size = 4,
    ) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(feature_dims, subnetwork, hidden, vector, dropout)
        self.rank, self.output_dim = rank, output_dim
        sizes = self.subnetworks.sizes
        self.factors = PerModality({m: nn.Linear(size, rank * output_dim) for m, size in sizes.items()})
        self.weights = nn.Parameter(torch.empty(rank))
        self.bias = nn.Parameter(torch.zeros(output_dim))
        for _, factor in self.factors.items():
            nn.init.xavier_normal_(factor.weight)
            nn.init.ones_(factor.bias)  # of the 1 in [1; u_m]; a product of small numbers would start, and stay, at 0
        nn.init.normal_(self.weights, std=rank**-0.5)

    @property
    def output_bias(self) -> nn.Parameter:
        """See `Network.output_bias`."""
        return self.bias

    def fuse(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Y^ (B, K) from the u_m (B, U_m)."""
        product = reduce(torch.mul, [self.factors[m](u) for m, u in vectors.items()])
        per_rank = product.view(len(product), self.rank, self.output_dim)
        return F.linear(per_rank.transpose(1, 2), self.weights) + self.bias

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        return self.fuse(self.subnetworks(features, observed_lengths(lengths, present)))
