"""LF-DNN: late fusion of one vector a modality by a perceptron."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.registry import Rate, Size
from mfm.models.subnetworks import Kind, Subnetworks, perceptron


@NETWORKS.register("lf_dnn")
class LateFusionDNN(Network):
    """LF-DNN: a perceptron on the concatenated vectors of all modalities (Cambria et al., arXiv 1707.09538; MMSA).

        u_m = subnetwork_m(X_m)        Y^ = A_3 ReLU(A_2 ReLU(A_1 Dropout([u_1; ...; u_M])))

    MMSA's subnetworks are an LSTM for text and a perceptron on the mean over steps for the others
    (`mfm.models.subnetworks`, without their batch normalisation: features are standardised); here any, per modality.

    Parameters: those of the subnetworks, 4 H_m (D_m + H_m + 2) + U_m (H_m + 1) for an LSTM and
    H_m (D_m + 1) + (H_m + U_m) (H_m + 1) for a perceptron, and F (sum_m U_m + 1) + F (F + 1) + K (F + 1).

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Not used.
        subnetwork: `lstm` or `mlp`, for all modalities or per modality.
        hidden: Width H_m of the subnetworks' layers, for all modalities or per modality.
        vector: Size U_m of u_m, for all modalities or per modality; H_m by default.
        dropout: Dropout in the subnetworks, for all modalities or per modality.
        fusion: Width F of the layers after fusion.
        dropout_fusion: Dropout of the concatenated vectors.
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
        fusion: Size = 64,
        dropout_fusion: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(feature_dims, subnetwork, hidden, vector, dropout)
        self.head = perceptron(sum(self.subnetworks.sizes.values()), fusion, output_dim, dropout_fusion)

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        vectors = self.subnetworks(features, observed_lengths(lengths, present))
        prediction: Tensor = self.head(torch.cat(list(vectors.values()), dim=1))
        return prediction
