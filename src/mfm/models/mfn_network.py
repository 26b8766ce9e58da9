"""MFN: the Memory Fusion Network with its own head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mfm.models.fusion import CLOCK_LIMIT
from mfm.models.mfn import MemoryFusionNetwork
from mfm.models.networks import NETWORKS, Network, observed_lengths
from mfm.models.registry import Rate, Size


class MemoryNetwork(Network):
    """A fusion with a memory, and the head of its paper: Y^ = Linear(Dropout(ReLU(Linear([h_T; mem_T]))))."""

    def __init__(self, fusion: MemoryFusionNetwork, output_dim: int, dropout: float) -> None:
        super().__init__()
        self.fusion = fusion  # ends with the head's first linear map
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(fusion.to_code.out_features, output_dim))

    def forward(
        self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """See `Network.forward`."""
        lengths = observed_lengths(lengths, present)
        prediction: Tensor = self.head(self.fusion({name: features[name] for name in lengths}, lengths))
        return prediction


@NETWORKS.register("mfn")
class MFNNetwork(MemoryNetwork):
    """MFN: the Memory Fusion Network (Zadeh et al., AAAI 2018, arXiv 1802.00927), which MFM infers Z_y with.

    The equations are those of `mfm.models.mfn.MemoryFusionNetwork`, and of the paper's head

        Y^ = Linear(Dropout(ReLU(Linear([h_T of every modality; mem_T]))))

    Parameters, with H the sum of the H_m, W = `window` H, and A(i, h, o) = h (i + 1) + o (h + 1):
    sum_m 4 H_m (D_m + H_m + 2) + A(W, attention1, W) + A(W, attention2, memory) + A(W + memory, gate1, memory)
    + A(W + memory, gate2, memory) + A(H + memory, head, K).

    Args:
        feature_dims: Modality -> D_m.
        output_dim: Outputs K.
        aligned: Whether step t is one moment in all modalities; otherwise they are averaged onto one clock.
        hidden: Width H_m of the LSTMs, for all modalities or per modality.
        memory: Width of the memory.
        window: Steps of cell states that the attention sees.
        attention1: Hidden width of MLP_1.
        attention2: Hidden width of MLP_2.
        gate1: Hidden width of the gate that keeps memory.
        gate2: Hidden width of the gate that writes memory.
        head: Width of the head.
        attention1_dropout: Dropout in MLP_1.
        attention2_dropout: Dropout in MLP_2.
        gate1_dropout: Dropout in the gate that keeps.
        gate2_dropout: Dropout in the gate that writes.
        head_dropout: Dropout in the head.
        clock_limit: Most steps of the shared clock of unaligned features.
    """

    def __init__(
        self,
        feature_dims: Mapping[str, int],
        output_dim: int,
        aligned: bool,
        *,
        hidden: Size | Mapping[str, Size] = 64,
        memory: Size = 64,
        window: Size = 2,
        attention1: Size = 64,
        attention2: Size = 64,
        gate1: Size = 64,
        gate2: Size = 64,
        head: Size = 64,
        attention1_dropout: Rate = 0.0,
        attention2_dropout: Rate = 0.0,
        gate1_dropout: Rate = 0.0,
        gate2_dropout: Rate = 0.0,
        head_dropout: Rate = 0.0,
        clock_limit: Size | None = CLOCK_LIMIT,
    ) -> None:
        fusion = MemoryFusionNetwork(
            feature_dims,
            head,
            aligned,
            hidden=hidden,
            memory=memory,
            window=window,
            attention1=attention1,
            attention2=attention2,
            gate1=gate1,
            gate2=gate2,
            attention1_dropout=attention1_dropout,
            attention2_dropout=attention2_dropout,
            gate1_dropout=gate1_dropout,
            gate2_dropout=gate2_dropout,
            clock_limit=clock_limit,
        )
        super().__init__(fusion, output_dim, head_dropout)
