"""Networks against the plainest derivation of their equations."""

import itertools
import math
from types import SimpleNamespace

import torch
from batches import make_batch, select, trimmed
from plain_mfm import PlainMFM
from torch import nn

from mfm.models import NETWORKS
from mfm.models.graph_mfn import DynamicFusionGraph
from mfm.models.tfn import outer_product

DIMS = {"a": 3, "b": 2, "c": 4}
LENGTHS = {"a": [4, 2, 5, 0], "b": [4, 3, 1, 2], "c": [4, 0, 2, 5]}


def build(name, aligned=True, dims=DIMS, **settings):
    torch.manual_seed(0)
    spec = {"name": name, **settings}
    return NETWORKS.build(spec, feature_dims=dims, output_dim=2, aligned=aligned).double().eval()


def some():
    return make_batch(DIMS, LENGTHS, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------- late and early
def last_hidden(features, weights):
    """The last state of an LSTM with these weights over one sample's steps, (H,)."""
    dim, width = weights["weight_ih_l0"].shape[1], weights["weight_hh_l0"].shape[1]
    own = nn.LSTM(dim, width).double()
    own.load_state_dict(weights)
    return own(features)[1][0][0]


def test_late_fusion_is_an_lstm_over_each_sample():
    network, batch = build("lf_lstm", hidden={"a": 3, "default": 5}, head=4), some()
    for row in range(4):
        features, _, present = trimmed(batch, row)
        vectors = []
        for m, encoder in network.subnetworks.recurrent.items():
            if present[m]:
                vectors.append(encoder.to_code(last_hidden(features[m][0], encoder.recurrence.state_dict())))
            else:
                vectors.append(torch.zeros(encoder.to_code.out_features, dtype=torch.float64))
        expected = network.head(torch.cat(vectors))
        torch.testing.assert_close(network(*select(batch, [row]))[0], expected)


def test_early_fusion_is_an_lstm_over_joined_steps():
    network, batch = build("ef_lstm", hidden=4), some()
    for row in range(4):
        features, lengths, _ = trimmed(batch, row)
        steps = max(int(own) for own in lengths.values())
        joined = torch.zeros(steps, sum(DIMS.values()), dtype=torch.float64)
        for place, m in enumerate(DIMS):
            first = sum(list(DIMS.values())[:place])
            joined[: int(lengths[m]), first : first + DIMS[m]] = features[m][0]
        expected = network.head(last_hidden(joined, network.recurrence.state_dict()))
        torch.testing.assert_close(network(*select(batch, [row]))[0], expected)


def test_a_perceptron_reads_the_mean_of_real_steps():
    network, batch = build("lf_dnn", hidden=4, fusion=3), some()
    expected = []
    for row in range(4):
        features, lengths, _ = trimmed(batch, row)
        vectors = []
        for m, own in network.subnetworks.means.items():
            x = features[m][0].mean(dim=0)
            for layer in own.layers[1::2]:
                x = (layer.weight @ x + layer.bias).relu() if lengths[m] else torch.zeros(4, dtype=torch.float64)
            vectors.append(x)
        expected.append(network.head(torch.cat(vectors)))
    torch.testing.assert_close(network(*batch), torch.stack(expected))


# ------------------------------------------------------------------------------------------------ tensors
def test_the_tensor_holds_every_product():
    vectors = [torch.randn(2, size, dtype=torch.float64) for size in (2, 3, 1)]
    found = outer_product(vectors)
    with_one = [[[1.0, *map(float, row)] for row in u] for u in vectors]
    for sample in range(2):
        entries = [x * y * z for x in with_one[0][sample] for y in with_one[1][sample] for z in with_one[2][sample]]
        torch.testing.assert_close(found[sample], torch.tensor(entries, dtype=torch.float64))


def test_lmf_of_full_rank_is_a_linear_map_of_tfns_tensor():
    """W z for the tensor z is sum_r W_r z_r, and each z_r the product of one entry of every [1; u_m]: rank P."""
    sizes = {"a": 2, "b": 3, "c": 1}
    shape = [size + 1 for size in sizes.values()]
    rank = math.prod(shape)
    network = build("lmf", hidden=sizes, rank=rank)
    tensor_map = nn.Linear(rank, 2).double()
    with torch.no_grad():
        network.weights.fill_(1)
        network.bias.copy_(tensor_map.bias)
        for place, (_, factor) in enumerate(network.factors.items()):
            chosen = torch.zeros(rank, 2, shape[place], dtype=torch.float64)
            for r, entry in enumerate(itertools.product(*map(range, shape))):
                chosen[r, :, entry[place]] = tensor_map.weight[:, r] if place == 0 else 1.0
            factor.bias.copy_(chosen[:, :, 0].flatten())
            factor.weight.copy_(chosen[:, :, 1:].flatten(0, 1))
    vectors = {m: torch.randn(5, size, dtype=torch.float64) for m, size in sizes.items()}
    torch.testing.assert_close(network.fuse(vectors), tensor_map(outer_product(list(vectors.values()))))


# ---------------------------------------------------------------------------------------------- memories
MEMORY = {
    "hidden": {"a": 2, "default": 3},
    "memory": 4,
    "window": 2,
    "attention2": 3,
    "gate1": 4,
    "gate2": 5,
    "head": 6,
}


def plain(network):
    """The plain reference for the parts of a network that MFM has too."""
    return PlainMFM(
        SimpleNamespace(feature_dims=DIMS, named_parameters=network.named_parameters, fusion=network.fusion)
    )


def samples(batch):
    """Each sample without the padding that all its modalities have, its lengths as numbers, and its row."""
    for row in range(4):
        features, lengths, _ = select(batch, [row])
        known = {m: int(own) for m, own in lengths.items()}
        yield {m: x[:, : max(known.values())] for m, x in features.items()}, known, row


def test_mfn_is_the_plain_reference_and_a_head():
    network, batch = build("mfn", attention1=7, **MEMORY), some()
    reference = plain(network)
    for features, lengths, row in samples(batch):
        code = reference.encode_all(features, lengths)
        torch.testing.assert_close(network(*select(batch, [row])), reference.linear("head.2", code.relu()))


def by_hand(graph, singletons):
    """T of a dynamic fusion graph for one sample: vertex by vertex, edge by edge; subsets as sorted tuples."""
    names = sorted(singletons)
    order = [s for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]
    efficacies = iter(torch.sigmoid(graph.efficacies(torch.cat([singletons[m] for m in names]))))
    values = {(m,): singletons[m] for m in names}
    networks = iter(graph.vertices)
    for s in order:
        if len(s) > 1:
            read = [next(efficacies) * values[r] for r in order if len(r) < len(s) and set(r).issubset(s)]
            values[s] = next(networks)(torch.cat(read))
    summary = graph.summary(torch.cat([next(efficacies) * values[s] for s in order]))
    assert next(efficacies, None) is None
    return summary


def test_the_graph_is_a_loop_over_vertices_and_edges():
    for count in (1, 2, 3, 4):
        widths = {m: place + 2 for place, m in enumerate("abcd"[:count])}
        graph = DynamicFusionGraph(widths, 3, dropout=0.0).double()
        singletons = {m: torch.randn(2, 5, width, dtype=torch.float64) for m, width in widths.items()}
        found = graph(singletons)
        for row, step in itertools.product(range(2), range(5)):
            expected = by_hand(graph, {m: x[row, step] for m, x in singletons.items()})
            torch.testing.assert_close(found[row, step], expected)


def test_graph_mfn_is_a_loop_over_steps():
    network, batch = build("graph_mfn", node=5, **MEMORY), some()
    reference, widths = plain(network), {"a": 2, "b": 3, "c": 3}
    for features, lengths, row in samples(batch):
        h, c = ({m: torch.zeros(1, width, dtype=torch.float64) for m, width in widths.items()} for _ in range(2))
        mem = torch.zeros(1, 4, dtype=torch.float64)
        for step in range(max(lengths.values())):
            before = dict(c)
            for m in widths:
                if step < lengths[m]:
                    h[m], c[m] = reference.cell(f"fusion.cells.of_{m}", "", features[m][:, step], h[m], c[m])
            seen = {m: torch.cat([before[m], c[m]], dim=1)[0] for m in widths}
            vertex = {m: network.fusion.singletons[m](seen[m]) * (lengths[m] > 0) for m in widths}
            t = by_hand(network.fusion.graph, vertex)[None]
            proposal = torch.tanh(reference.mlp("fusion.attention2", t))
            both = torch.cat([t, mem], dim=1)
            keep, write = (torch.sigmoid(reference.mlp(f"fusion.gate{place}", both)) for place in (1, 2))
            mem = keep * mem + write * proposal
        code = reference.linear("fusion.to_code", torch.cat([*h.values(), mem], dim=1))
        torch.testing.assert_close(network(*select(batch, [row])), reference.linear("head.2", code.relu()))
