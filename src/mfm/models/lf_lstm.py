"""LF-LSTM: late fusion, an LSTM a modality."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.registry import Rate, Size
from mfm.models.subnetworks import Subnetworks


@NETWORKS.register("lf_lstm")
class LateFusionLSTM(Network):
    """LF-LSTM: an LSTM for each modality, concatenated (late fusion; baseline of Tsai et al., arXiv 1906.00295).

        u_m = Dropout(Linear(LSTM_m(X_m)_T))      Y^ = Linear(Dropout(ReLU(Linear([u_1; ...; u_M]))))

    T is each modality's own last step, so that modalities need not be aligned; an absent one's u_m is 0.

    Parameters: sum_m [4 H_m (D_m + H_m + 2) + H_m (H_m + 1)] + F (sum_m H_m + 1) + K (F + 1).

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Not used.
        hidden: Width H_m of the LSTM and of u_m, for all modalities or per modality.
        head: Width F of the head.
        dropout: Dropout of u_m and in the head.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        aligned: bool,
        *,
        hidden: Size | Mapping[str, Size] = 64,
        head: Size = 64,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(feature_dims, "lstm", hidden, None, dropout)
        self.head = nn.Sequential(
            nn.Linear(sum(self.subnetworks.sizes.values()), head),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(head, output_dim),
        )

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        vectors = self.subnetworks(features, observed_lengths(lengths, present))
        prediction: Tensor = self.head(torch.cat(list(vectors.values()), dim=1))
        return prediction
