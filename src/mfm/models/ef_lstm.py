"""EF-LSTM: early fusion, one LSTM over the concatenated modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfm.models.alignment import on_one_clock
from mfm.models.fusion import CLOCK_LIMIT, longest
from mfm.models.masking import last_state
from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.recurrence import run_recurrence
from mfm.models.registry import Rate, Size


@NETWORKS.register("ef_lstm")
class EarlyFusionLSTM(Network):
    """EF-LSTM: one LSTM over the concatenated modalities (early fusion; baseline of Zadeh et al., arXiv 1802.00927).

        x_t = [x_1t; ...; x_Mt]       h_t = LSTM(x_t, h_{t-1})
        Y^  = Linear(Dropout(ReLU(Linear(h_T))))

    T is the sample's longest observed modality; what was not observed is 0, the training mean. Modalities that are not
    aligned are averaged onto one clock (`mfm.models.alignment.on_one_clock`).

    Parameters: 4 H (D + H + 2) of the LSTM's first layer, D the sum of the D_m, and H (H + 1) + K (H + 1).

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Whether step t is one moment in all modalities.
        hidden: Width H of the LSTM and of the head.
        layers: Stacked LSTM layers.
        dropout: Dropout between layers and in the head.
        clock_limit: Most steps of the shared clock of unaligned features.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        aligned: bool,
        *,
        hidden: Size = 64,
        layers: Size = 1,
        dropout: Rate = 0.0,
        clock_limit: Size | None = CLOCK_LIMIT,
    ) -> None:
        super().__init__()
        self.aligned, self.clock_limit = aligned, clock_limit
        total = sum(feature_dims.values())
        between = dropout if layers > 1 else 0.0
        self.recurrence = nn.LSTM(total, hidden, layers, batch_first=True, dropout=between)
        self.head = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, output_dim)
        )

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        lengths = observed_lengths(lengths, present)
        features, lengths = on_one_clock(features, lengths, aligned=self.aligned, limit=self.clock_limit)
        joined = torch.cat([features[name] for name in lengths], dim=2)
        states = run_recurrence(self.recurrence, joined)
        prediction: Tensor = self.head(last_state(states, longest(lengths)))
        return prediction
