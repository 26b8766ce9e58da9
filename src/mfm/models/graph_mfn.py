"""Graph-MFN: the Memory Fusion Network with a dynamic fusion graph in place of its attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfm.errors import ConfigurationError
from mfm.models.fusion import CLOCK_LIMIT
from mfm.models.mfn import MemoryFusionNetwork, Perceptron
from mfm.models.mfn_network import MemoryNetwork
from mfm.models.networks import NETWORKS
from mfm.models.per_modality import PerModality
from mfm.models.registry import Rate, Size
from mfm.models.subsets import Subset, all_subsets

MAX_MODALITIES = 5
"""Above it the graph would have hundreds of edges."""


class DynamicFusionGraph(nn.Module):
    """Vertices for every non-empty subset of modalities, with an edge from every proper subset.

        v_{m}   = the modality itself                                              singleton vertices
        alpha   = sigmoid(MLP([v_1; ...; v_M]))                                    an efficacy for each edge
        v_S     = MLP_S([alpha_{R,S} v_R for every non-empty R that S properly contains])   |S| > 1
        T       = MLP_T([alpha_{R,T} v_R for every non-empty R])

    Args:
        widths: Modality -> width of its singleton vertex.
        node: Width of the other vertices, of T, and of all hidden layers.
        dropout: Dropout in all MLPs.
    """

    def __init__(self, widths: Mapping[str, int], node: int, dropout: float) -> None:
        super().__init__()
        self.subsets = all_subsets(widths)
        sizes = {s: widths[s[0]] if len(s) == 1 else node for s in self.subsets}
        self.larger = [s for s in self.subsets if len(s) > 1]
        self.below: dict[Subset, list[Subset]] = {s: [r for r in self.subsets if set(r) < set(s)] for s in self.larger}
        edges = sum(len(below) for below in self.below.values()) + len(self.subsets)
        self.efficacies = Perceptron(sum(widths.values()), node, edges, dropout)
        self.vertices = nn.ModuleList(
            Perceptron(sum(sizes[r] for r in self.below[s]), node, node, dropout) for s in self.larger
        )
        self.summary = Perceptron(sum(sizes.values()), node, node, dropout)

    def forward(self, singletons: Mapping[str, Tensor]) -> Tensor:
        """T (..., node) from the singleton vertices, modality -> (..., width)."""
        vertices: dict[Subset, Tensor] = {s: singletons[s[0]] for s in self.subsets if len(s) == 1}
        alpha = self.efficacies(torch.cat(list(vertices.values()), dim=-1)).sigmoid().unsqueeze(-1).unbind(dim=-2)
        edge = iter(alpha)
        for subset, network in zip(self.larger, self.vertices, strict=True):
            vertices[subset] = network(torch.cat([next(edge) * vertices[r] for r in self.below[subset]], dim=-1))
        summary: Tensor = self.summary(torch.cat([next(edge) * vertices[r] for r in self.subsets], dim=-1))
        return summary


class GraphMemoryFusion(MemoryFusionNetwork):
    """`MemoryFusionNetwork` whose attention 1 is a `DynamicFusionGraph`.

        v_m = Linear_m(the cells of modality m in the last `window` steps), 0 where m is absent

    T takes the place of what the attention attends to. It does not depend on the memory, and so is computed for all
    steps at once. Width and dropout of the graph are given as `attention1` and `attention1_dropout`.
    """

    def _build_attention(self, widths: Mapping[str, int], hidden: int, dropout: float) -> int:
        self.widths = dict(widths)
        self.singletons = PerModality({m: nn.Linear(self.window * width, width) for m, width in widths.items()})
        self.graph = DynamicFusionGraph(widths, hidden, dropout)
        return hidden

    def _attended(self, windows: Tensor, absent: Tensor | None) -> Tensor:
        """T for windows (..., window * H) and absent (..., H), with at most ones for dimensions."""
        parts = [step.split_with_sizes(list(self.widths.values()), dim=-1) for step in windows.chunk(self.window, -1)]
        singletons, first = {}, 0
        for place, (name, width) in enumerate(self.widths.items()):
            vertex = self.singletons[name](torch.cat([step[place] for step in parts], dim=-1))
            if absent is not None:
                vertex = vertex.masked_fill(absent[..., first : first + 1], 0.0)
            singletons[name], first = vertex, first + width
        attended: Tensor = self.graph(singletons)
        return attended


@NETWORKS.register("graph_mfn")
class GraphMFN(MemoryNetwork):
    """Graph-MFN: MFN with a dynamic fusion graph for its attention (Zadeh et al., ACL 2018, P18-1208).

    LSTMs, memory and head are those of `mfn`; `GraphMemoryFusion` and `DynamicFusionGraph` have the rest.

    Parameters, with H the sum of the H_m, N = `node`, A(i, h, o) = h (i + 1) + o (h + 1), w_R = H_m for R = {m} and
    otherwise N, and the E = 3^M - 2^M edges:
    sum_m [4 H_m (D_m + H_m + 2) + H_m (`window` H_m + 1)] + A(H, N, E) + sum_{|S|>1} A(sum_{R<S} w_R, N, N)
    + A(sum_R w_R, N, N) + A(N, attention2, memory) + A(N + memory, gate1, memory) + A(N + memory, gate2, memory)
    + A(H + memory, head, K).

    Args:
        feature_dims: Modality -> D_m; at most five, as the graph has a vertex for every subset.
        output_dim: Outputs K.
        aligned: Whether step t is one moment in all modalities; otherwise they are averaged onto one clock.
        hidden: Width H_m of the LSTMs and of the singleton vertices, for all modalities or per modality.
        memory: Width of the memory.
        window: Steps of cell states that the graph sees.
        node: Width of the vertices of several modalities.
        attention2: Hidden width of the MLP that proposes what to write.
        gate1: Hidden width of the gate that keeps memory.
        gate2: Hidden width of the gate that writes memory.
        head: Width of the head.
        node_dropout: Dropout in the graph.
        attention2_dropout: Dropout in the MLP that proposes.
        gate1_dropout: Dropout in the gate that keeps.
        gate2_dropout: Dropout in the gate that writes.
        head_dropout: Dropout in the head.
        clock_limit: Most steps of the shared clock of unaligned features.

    Raises:
        ConfigurationError: More than five modalities.
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
        node: Size = 64,
        attention2: Size = 64,
        gate1: Size = 64,
        gate2: Size = 64,
        head: Size = 64,
        node_dropout: Rate = 0.0,
        attention2_dropout: Rate = 0.0,
        gate1_dropout: Rate = 0.0,
        gate2_dropout: Rate = 0.0,
        head_dropout: Rate = 0.0,
        clock_limit: Size | None = CLOCK_LIMIT,
    ) -> None:
        if len(feature_dims) > MAX_MODALITIES:
            raise ConfigurationError(
                f"network 'graph_mfn' has a vertex for every subset of modalities and takes at most {MAX_MODALITIES}, "
                f"but there are {len(feature_dims)}: choose some with --data.modalities, or use 'mfn'"
            )
        fusion = GraphMemoryFusion(
            feature_dims,
            head,
            aligned,
            hidden=hidden,
            memory=memory,
            window=window,
            attention1=node,
            attention2=attention2,
            gate1=gate1,
            gate2=gate2,
            attention1_dropout=node_dropout,
            attention2_dropout=attention2_dropout,
            gate1_dropout=gate1_dropout,
            gate2_dropout=gate2_dropout,
            clock_limit=clock_limit,
        )
        super().__init__(fusion, output_dim, head_dropout)
