"""What every network that predicts promises, for all of `NETWORKS`; what is special to one is in files of their own."""

import math
from collections.abc import Sequence

import pytest
import torch
from batches import make_batch, trimmed

from mfm.errors import ConfigurationError
from mfm.models import NETWORKS
from mfm.models.backend import use_backend
from mfm.models.networks import Network

LATE = {"subnetwork": {"type": "lstm", "default": "mlp"}, "hidden": {"a.b": 3, "default": 4}}
SMALL = {
    "ef_lstm": {"hidden": 5},
    "graph_mfn": {"hidden": {"z": 2, "default": 3}, "memory": 4, "node": 5, "attention2": 3, "gate1": 4, "head": 6},
    "lf_dnn": {**LATE, "vector": {"z": 2, "default": 3}, "fusion": 6},
    "lf_lstm": {"hidden": {"a.b": 3, "default": 4}, "head": 5},
    "lmf": {**LATE, "rank": 3},
    "mfn": {"hidden": 3, "memory": 4, "window": 3, "attention1": 5, "attention2": 2, "gate1": 4, "gate2": 3, "head": 6},
    "mult": {"width": 4, "heads": 2, "layers": 1, "self_layers": 1, "dropout_embedding": 0.0, "dropout": 0.0},
    "tfn": {**LATE, "vector": 2, "fusion": 5},
}
DIMS = {"type": 3, "a.b": 2, "z": 1}
LENGTHS = {"type": [5, 0, 1, 2], "a.b": [2, 4, 0, 3], "z": [3, 1, 1, 0]}
every_network = pytest.mark.parametrize("name", NETWORKS.names())


def build(name, dims=DIMS, output_dim=2, aligned=False, **settings):
    torch.manual_seed(0)
    used = {
        key: {m: v for m, v in value.items() if m in (*dims, "default")} if isinstance(value, dict) else value
        for key, value in {**SMALL.get(name, {}), **settings}.items()
    }
    return NETWORKS.build({"name": name, **used}, feature_dims=dims, output_dim=output_dim, aligned=aligned).eval()


WIDE = {"hidden": 16, "vector": 8, "head": 16, "fusion": 16}


def wider(name):
    """Settings by which some units of every layer are active."""
    return {key: value for key, value in WIDE.items() if key in NETWORKS.settings(name)}


@every_network
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_padding_and_absence_are_never_a_value(name, aligned):
    features, lengths, present = make_batch(DIMS, LENGTHS)
    present["type"][0] = False
    network = build(name, aligned=aligned)
    expected = network(features, lengths, present)
    assert expected.shape == (4, 2)
    for m, x in features.items():
        padded = torch.arange(x.shape[1]) >= lengths[m].masked_fill(~present[m], 0)[:, None]
        features[m] = torch.cat([x.masked_fill(padded[..., None], math.nan), torch.full_like(x[:, :2], 1e9)], dim=1)
    found = network(features, lengths, present)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


@every_network
def test_what_was_observed_matters(name):
    features, lengths, present = make_batch(DIMS, LENGTHS)
    network = build(name, **wider(name))
    expected = network(features, lengths, present)
    for m, x in features.items():
        changed = network({**features, m: x + 1}, lengths, present)
        assert [bool(row) for row in (changed != expected).any(dim=1)] == [length > 0 for length in LENGTHS[m]]


@every_network
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
def test_a_batch_equals_its_samples_one_by_one(name, aligned):
    batch = make_batch(DIMS, LENGTHS, steps={"z": 6})
    network = build(name, aligned=aligned)
    together = network(*batch)
    for row in range(4):
        torch.testing.assert_close(network(*trimmed(batch, row)), together[[row]])


@every_network
def test_one_modality_and_nothing_at_all(name):
    features, lengths, present = make_batch({"type": 3}, {"type": [0, 1, 4]})
    network = build(name, {"type": 3}, output_dim=1)
    prediction = network(features, lengths, present)
    assert prediction.shape == (3, 1)
    assert bool(prediction.isfinite().all())
    nothing = {"type": features["type"][:, :0]}
    none = {"type": torch.zeros(3, dtype=torch.int64)}, {"type": torch.zeros(3, dtype=torch.bool)}
    empty = network(nothing, *none)
    torch.testing.assert_close(empty, prediction[:1].expand(3, 1))


@every_network
def test_predictions_start_where_they_are_told(name):
    batch = make_batch(DIMS, LENGTHS)
    network = build(name)
    before, bias = network(*batch), network.output_bias.detach().clone()
    with torch.no_grad():
        network.output_bias.copy_(torch.tensor([3.0, -1.0]))
    torch.testing.assert_close(network(*batch) - before, (torch.tensor([3.0, -1.0]) - bias).expand(4, 2))


@every_network
def test_learns_a_tiny_set_by_heart(name):
    batch = make_batch(DIMS, {m: [3, 2, 3, 1] for m in DIMS})
    network = build(name, **wider(name)).train()
    target = torch.tensor([[1.0, -1.0], [-1.0, 0.5], [0.5, 1.0], [-0.5, -1.0]])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(60):
        loss = (network(*batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * target.square().mean()


@every_network
def test_backends_agree(name):
    batch = make_batch(DIMS, LENGTHS, dtype=torch.float64)
    network = build(name).double()
    found = []
    for backend in ("reference", "fused"):
        use_backend(network, backend)
        network.zero_grad()
        prediction = network(*batch)
        prediction.square().sum().backward()
        found.append([prediction, *(parameter.grad for parameter in network.parameters())])
    torch.testing.assert_close(found[0], found[1])


# ------------------------------------------------------------------------- the formulas of the docstrings, K = 2
def perceptron(i, h, o):
    return h * (i + 1) + o * (h + 1)


def lstm(d, h):
    return 4 * h * (d + h + 2)


def subnetworks(dims, hidden, vector):
    total = 0
    for m, d in dims.items():
        h, u = hidden[m], vector[m]
        total += lstm(d, h) + u * (h + 1) if m == "type" else h * (d + 1) + (h + u) * (h + 1)
    return total


def of_ef_lstm(dims):
    return lstm(sum(dims.values()), 5) + 5 * 6 + 2 * 6


def of_lf_lstm(dims):
    h = {m: 3 if m == "a.b" else 4 for m in dims}
    return sum(lstm(d, h[m]) + h[m] * (h[m] + 1) for m, d in dims.items()) + perceptron(sum(h.values()), 5, 2)


def of_lf_dnn(dims):
    u = {m: 2 if m == "z" else 3 for m in dims}
    hidden = {m: 3 if m == "a.b" else 4 for m in dims}
    return subnetworks(dims, hidden, u) + 6 * (sum(u.values()) + 1) + 6 * 7 + 2 * 7


def of_tfn(dims):
    hidden = {m: 3 if m == "a.b" else 4 for m in dims}
    products = math.prod(2 + 1 for _ in dims)
    return subnetworks(dims, hidden, dict.fromkeys(dims, 2)) + 5 * (products + 1) + 5 * 6 + 2 * 6


def of_lmf(dims):
    h = {m: 3 if m == "a.b" else 4 for m in dims}
    return subnetworks(dims, h, h) + 3 * 2 * sum(h[m] + 1 for m in dims) + 3 + 2


def of_mfn(dims):
    h, memory = 3 * len(dims), 4
    w = 3 * h
    gates = perceptron(w + memory, 4, memory) + perceptron(w + memory, 3, memory)
    attention = perceptron(w, 5, w) + perceptron(w, 2, memory)
    return sum(lstm(d, 3) for d in dims.values()) + attention + gates + perceptron(h + memory, 6, 2)


def of_graph_mfn(dims):
    h, node, memory = {m: 2 if m == "z" else 3 for m in dims}, 5, 4
    names = sorted(dims)
    subsets = [{m for place, m in enumerate(names) if bits >> place & 1} for bits in range(1, 2 ** len(names))]

    def width(subset):
        return h[min(subset)] if len(subset) == 1 else node

    graph = perceptron(sum(h.values()), node, 3 ** len(dims) - 2 ** len(dims))
    graph += sum(perceptron(sum(width(r) for r in subsets if r < s), node, node) for s in subsets if len(s) > 1)
    graph += perceptron(sum(map(width, subsets)), node, node)
    total = sum(lstm(d, h[m]) + h[m] * (2 * h[m] + 1) for m, d in dims.items()) + graph
    total += perceptron(node, 3, memory) + perceptron(node + memory, 4, memory) + perceptron(node + memory, 64, memory)
    return total + perceptron(sum(h.values()) + memory, 6, 2)


FORMULAS = {name.removeprefix("of_"): formula for name, formula in globals().items() if name.startswith("of_")}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("names", [["type"], ["type", "z"], list(DIMS)], ids=len)
def test_parameters_are_as_many_as_documented(name, names):
    dims = {m: DIMS[m] for m in names}
    assert sum(parameter.numel() for parameter in build(name, dims).parameters()) == FORMULAS[name](dims)


def test_every_network_of_the_collection_has_small_settings_here():
    assert SMALL.keys() >= set(NETWORKS.names())
    assert FORMULAS.keys() | {"mult"} == SMALL.keys()  # its formula is tested with its other equations


# ------------------------------------------------------------------------------------------------------ refusals
def test_a_tensor_too_large_names_the_remedy():
    with pytest.raises(ConfigurationError, match=r"would have 2,146,689 entries .* lower its setting 'vector', or use"):
        build("tfn", vector=128)


def test_a_graph_of_too_many_subsets_names_the_remedy():
    dims = dict.fromkeys("abcdef", 1)
    with pytest.raises(ConfigurationError, match=r"at most 5, but there are 6: .*--data\.modalities, or use 'mfn'"):
        NETWORKS.build("graph_mfn", feature_dims=dims, output_dim=1, aligned=True)


@pytest.mark.parametrize("name", ["lf_lstm", "lf_dnn", "mfn"])
def test_a_setting_of_an_unknown_modality_is_refused(name):
    hidden = {"tpye": 3, "default": 1}
    with pytest.raises(ConfigurationError, match=r"hidden.* names an unknown modality 'tpye': .*'type'"):
        NETWORKS.build({"name": name, "hidden": hidden}, feature_dims=DIMS, output_dim=1, aligned=True)


class Unannotated(Network):
    def __init__(self, feature_dims, output_dim, aligned, *, hidden=3):
        super().__init__()


class Listed(Unannotated):
    def __init__(self, feature_dims, output_dim, aligned, *, hidden: Sequence[int] = (3,)):
        super().__init__(feature_dims, output_dim, aligned)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./my_net.py", r"unknown network './my_net\.py'"),
        (".my_net", r"unknown network '\.my_net'"),
        ("no_such_module.Net", "cannot be imported .*PYTHONPATH"),
        ("math.pi", r"is no torch\.nn\.Module"),
        (f"{__name__}.Unannotated", "setting 'hidden' .* annotate it with bool, int"),
        (f"{__name__}.Listed", "setting 'hidden' .* annotate it with bool, int"),
    ],
)
def test_a_network_of_your_own_that_cannot_be_built_is_one_sentence(name, says):
    with pytest.raises(ConfigurationError, match=says):
        NETWORKS.build({"name": name, "hidden": 4}, feature_dims=DIMS, output_dim=1, aligned=True)
