"""TFN: the Tensor Fusion Network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from mfm.errors import ConfigurationError
from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.registry import Rate, Size
from mfm.models.subnetworks import Kind, Subnetworks, perceptron

MAX_PRODUCTS = 2**21
"""Most entries of the tensor of one sample: 8 MB, and as many weights for each unit of the layer that reads them."""


def outer_product(vectors: Sequence[Tensor]) -> Tensor:
    """[1; u_1] x ... x [1; u_M], (B, prod_m (U_m + 1)), the last modality's index running fastest; u_m is (B, U_m)."""
    product = vectors[0].new_ones(len(vectors[0]), 1)
    for u in vectors:
        product = (product[:, :, None] * F.pad(u, (1, 0), value=1.0)[:, None]).flatten(1)
    return product


@NETWORKS.register("tfn")
class TensorFusionNetwork(Network):
    """TFN: the outer product of all modalities' vectors (Zadeh et al., EMNLP 2017, arXiv 1707.07250).

        u_m = subnetwork_m(X_m)        Z = [1; u_1] x ... x [1; u_M]        Y^ = A_3 ReLU(A_2 ReLU(A_1 Dropout(Z)))

    The ones keep products of fewer modalities, which is also what is left where one is absent (u_m = 0). The paper's
    subnetworks are an LSTM for text and a perceptron on the mean over steps for the others; here any, per modality. Its
    output is squashed into the range of the labels; here it is not.

    Parameters: those of the subnetworks (see `LateFusionDNN`), and, with P = prod_m (U_m + 1),
    F (P + 1) + F (F + 1) + K (F + 1).

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Not used.
        subnetwork: `lstm` or `mlp`, for all modalities or per modality.
        hidden: Width H_m of the subnetworks' layers, for all modalities or per modality.
        vector: Size U_m of u_m, for all modalities or per modality; H_m by default.
        dropout: Dropout in the subnetworks, for all modalities or per modality.
        fusion: Width F of the layers after fusion.
        dropout_fusion: Dropout of Z.

    Raises:
        ConfigurationError: P is above `MAX_PRODUCTS`.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        aligned: bool,
        *,
        subnetwork: Kind | Mapping[str, Kind] = "mlp",
        hidden: Size | Mapping[str, Size] = 32,
        vector: Size | Mapping[str, Size] | None = None,
        dropout: Rate | Mapping[str, Rate] = 0.0,
        fusion: Size = 64,
        dropout_fusion: Rate = 0.0,
    ) -> None:
        super().__init__()
        self.subnetworks = Subnetworks(feature_dims, subnetwork, hidden, vector, dropout)
        products = math.prod(size + 1 for size in self.subnetworks.sizes.values())
        if products > MAX_PRODUCTS:
            raise ConfigurationError(
                f"the tensor of network 'tfn' would have {products:,} entries a sample, above {MAX_PRODUCTS:,}: lower "
                "its setting 'vector', or use 'lmf', the same in low rank"
            )
        self.head = perceptron(products, fusion, output_dim, dropout_fusion)

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        vectors = self.subnetworks(features, observed_lengths(lengths, present))
        prediction: Tensor = self.head(outer_product(list(vectors.values())))
        return prediction
