"""One vector u_m for each modality: what models that fuse once per utterance fuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from mfm.models.encoders import Encoder, LSTMEncoder
from mfm.models.masking import masked_mean, step_mask
from mfm.models.per_modality import PerModality, spread
from mfm.models.registry import Rate, Size
from mfm.models.together import encode_together

Kind = Literal["lstm", "mlp"]


class MeanPerceptron(nn.Module):
    """u = ReLU(A_3 ReLU(A_2 ReLU(A_1 Dropout(mean_t x_t)))), the mean over real steps."""

    def __init__(self, input_dim: int, width: int, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            *(nn.Linear(input_dim, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            *(nn.Linear(width, output_dim), nn.ReLU()),
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, output_dim) from (B, T, D), left-aligned, and (B,) real steps; zeros where there are none."""
        code: Tensor = self.layers(masked_mean(x, step_mask(lengths, x.shape[1])))
        return code.masked_fill((lengths == 0)[:, None], 0.0)


class Subnetworks(nn.Module):
    """A network for each modality, from its steps to one vector.

        lstm   u = Dropout(Linear(h_T)), h the states of an LSTM
        mlp    `MeanPerceptron`: a perceptron on the mean over steps, which has no order

    An absent modality's vector is 0.

    Parameters of an `lstm`: 4 H (D + H + 2) + U (H + 1); of an `mlp`: H (D + 1) + H (H + 1) + U (H + 1).

    Args:
        feature_dims: Modality -> D_m.
        kinds: `lstm` or `mlp`, for all modalities or per modality.
        hidden: Width H of the LSTM or of the perceptron's layers, for all modalities or per modality.
        sizes: Size U of u_m, for all modalities or per modality; that of `hidden` by default.
        dropouts: Dropout, for all modalities or per modality.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        kinds: Kind | Mapping[str, Kind],
        hidden: Size | Mapping[str, Size],
        sizes: Size | Mapping[str, Size] | None,
        dropouts: Rate | Mapping[str, Rate],
    ) -> None:
        super().__init__()
        names = sorted(feature_dims)
        kind, width = spread("subnetwork", kinds, names), spread("hidden", hidden, names)
        dropout = spread("dropout", dropouts, names)
        self.sizes = width if sizes is None else spread("vector", sizes, names)
        recurrent = [m for m in names if kind[m] == "lstm"]
        self.recurrent: PerModality[Encoder] = PerModality(
            {m: LSTMEncoder(feature_dims[m], self.sizes[m], hidden=width[m]) for m in recurrent}
        )
        self.dropouts = PerModality({m: nn.Dropout(dropout[m]) for m in recurrent})
        self.means = PerModality(
            {
                m: MeanPerceptron(feature_dims[m], width[m], self.sizes[m], dropout[m])
                for m in names
                if m not in recurrent
            }
        )

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Encode each modality.

        Args:
            features: Modality -> (B, T_m, D_m), left-aligned; padding may hold anything.
            lengths: Modality -> (B,) real steps, 0 where absent.

        Returns:
            Modality -> u_m (B, U_m), sorted.
        """
        _, found = encode_together(self.recurrent, [], features, lengths)
        found = {name: self.dropouts[name](u) for name, u in found.items()}
        found |= {name: network(features[name], lengths[name]) for name, network in self.means.items()}
        return {name: found[name] for name in self.sizes}


def perceptron(input_dim: int, width: int, output_dim: int, dropout: float) -> nn.Sequential:
    """Dropout - Linear - ReLU - Linear - ReLU - Linear.

    Parameters: H (I + 1) + H (H + 1) + K (H + 1), for I inputs, width H and K outputs.
    """
    return nn.Sequential(
        nn.Dropout(dropout),
        *(nn.Linear(input_dim, width), nn.ReLU()),
        *(nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, output_dim),
    )
