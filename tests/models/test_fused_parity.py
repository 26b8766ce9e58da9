"""Fused and reference backends: the same outputs and the same gradient of every parameter and input."""

import copy

import pytest
import torch
from batches import MFN, SIZES, flat, make_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.errors import ConfigurationError
from mfm.models import MFM, Factors
from mfm.models.backend import use_backend
from mfm.models.surrogate import surrogate_for

NAMES = ["a", "b", "c", "d", "e"]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-6}


def run(model, features, lengths, present):
    """Outputs, and gradients of a fixed random combination of them, by name."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in features.items()}
    # without changing what the model gets: a view of the leaf, contiguous or not
    output = flat(model(leaves, lengths, present))
    generator = torch.Generator().manual_seed(5)
    total = sum((v * torch.randn(v.shape, generator=generator, dtype=v.dtype)).sum() for v in output.values())
    model.zero_grad()
    total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return output, {**gradients, **{f"input {name}": x.grad for name, x in leaves.items()}}


def compare(model, batch, dtype):
    use_backend(model, "reference")
    expected = run(model, *batch)
    use_backend(model, "fused")
    found = run(model, *batch)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value is not None, name
            scale = max(1.0, float(other[name].detach().abs().max())) if other[name].numel() else 1.0
            difference = float((value - other[name]).detach().abs().max()) if value.numel() else 0.0
            assert difference <= TOLERANCE[dtype] * scale, (name, difference, scale)


@st.composite
def batches(draw):
    names = NAMES[: draw(st.integers(1, 5))]
    samples, steps = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    length = st.one_of(st.just(0), st.just(1), st.just(steps), st.integers(0, steps))
    if draw(st.booleans()):  # word-aligned and complete, as most batches are
        shared = draw(st.lists(st.integers(1, steps), min_size=samples, max_size=samples))
        lengths = dict.fromkeys(names, shared)
    else:
        lengths = {name: draw(st.lists(length, min_size=samples, max_size=samples)) for name in names}
    return {name: index + 1 for index, name in enumerate(names)}, lengths, steps, draw(st.booleans())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(batches(), st.sampled_from([torch.float64, torch.float32]), st.sampled_from([1, 2, 3]), st.booleans())
def test_outputs_and_every_gradient_agree(batch, dtype, window, aligned):
    dims, lengths, steps, transposed = batch
    torch.manual_seed(steps)
    hidden = {"default": 5, "a": 3}
    fusion = {**MFN, "hidden": hidden, "window": window}
    model = MFM(dims, 2, **{**SIZES, "z": {"default": 4, "a": 6}}, fusion=fusion, aligned=aligned).to(dtype)
    features, lengths, present = make_batch(dims, lengths, steps=dict.fromkeys(dims, steps), dtype=dtype)
    for name, x in features.items():  # garbage where nothing is real
        features[name] = x.masked_fill((torch.arange(steps) >= lengths[name][:, None])[..., None], 1e4)
        if transposed:
            features[name] = features[name].transpose(0, 1).contiguous().transpose(0, 1)
    compare(model, (features, lengths, present), dtype)


@pytest.mark.parametrize("part", ["model", "inputs"])
def test_what_is_frozen_gets_no_gradient_and_changes_no_other(part):
    torch.manual_seed(0)
    dims = {"a": 2, "b": 3}
    model = MFM(dims, 1, **SIZES, fusion=MFN)
    features, lengths, present = make_batch(dims, {"a": [3, 2], "b": [1, 3]})
    gradients = {}
    for backend in ("reference", "fused"):
        use_backend(model, backend)
        model.zero_grad()
        model.requires_grad_(True)
        x = {name: value.clone().requires_grad_(part == "model") for name, value in features.items()}
        if part == "model":
            model.encoders["a"].requires_grad_(False)
            model.fusion.cells["b"].weight_hh.requires_grad_(False)
            model.decoders["b"].cell.bias_ih.requires_grad_(False)
        output = model(x, lengths, present)
        (output.prediction.sum() + output.reconstruction["b"].square().sum()).backward()
        own = {name: p.grad for name, p in model.named_parameters()} | {name: v.grad for name, v in x.items()}
        gradients[backend] = {name: value for name, value in own.items() if value is not None and value.any()}
    assert gradients["fused"].keys() == gradients["reference"].keys()
    for name, value in gradients["fused"].items():
        torch.testing.assert_close(value, gradients["reference"][name], rtol=2e-5, atol=2e-6)


def test_steps_after_the_end_are_not_computed(monkeypatch):
    from mfm.models import fused_lstm

    rows = []
    original = fused_lstm.run_steps

    def counted(share, recurrent, sizes, **options):
        rows.append((len(recurrent), sum(sizes)))
        return original(share, recurrent, sizes, **options)

    monkeypatch.setattr(fused_lstm, "run_steps", counted)
    dims = {"a": 2, "b": 3}
    model = MFM(dims, 1, **SIZES, fusion=MFN)
    model.encode(*make_batch(dims, {"a": [7, 2, 0], "b": [0, 0, 0]}, steps={"a": 9, "b": 9}))
    assert sorted(rows) == [(2, 0), (2, 9)]  # encoder and fusion of each modality together
    rows.clear()
    model.encode(*make_batch(dims, {"a": [3, 2], "b": [3, 2]}))
    assert rows == [(4, 5)]


def test_several_chunks_of_steps(monkeypatch):
    torch.manual_seed(0)
    dims = {"a": 2, "b": 3}
    model = MFM(dims, 1, **SIZES, fusion=MFN).double()
    monkeypatch.setattr("mfm.models.packing.CHUNK", 3)
    compare(model, make_batch(dims, {"a": [5, 2], "b": [5, 2]}, dtype=torch.float64), torch.float64)


@pytest.mark.parametrize("training", [True, False])
def test_one_seed_gives_one_step_with_dropout(training):
    dims = {"a": 2, "b": 3}
    torch.manual_seed(0)
    rates = {f"{part}_dropout": 0.5 for part in ("attention1", "attention2", "gate1", "gate2")}
    model = MFM(dims, 1, **SIZES, dropout=0.3, fusion={**MFN, **rates}).train(training)
    batch = make_batch(dims, {"a": [3, 2, 1], "b": [0, 2, 3]})
    found = []
    for backend in ("fused", "fused", "reference"):
        use_backend(model, backend)
        torch.manual_seed(3)
        found.append(model(*batch).codes.z_y)
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], found[2], atol=1e-6) == (not training)


def test_dropout_in_the_memory_has_the_references_mean_and_spread():
    dims = {"a": 2}
    torch.manual_seed(0)
    fusion = {**MFN, "gate1_dropout": 0.7, "gate2_dropout": 0.4}
    model = MFM(dims, 1, **SIZES, fusion=fusion).double().fusion
    for gate in (model.gate1, model.gate2):
        gate.second.weight.data.mul_(8.0)
    features, lengths, _ = make_batch(dims, {"a": [4]}, dtype=torch.float64)
    features = {"a": features["a"].expand(4000, -1, -1)}
    lengths = {"a": lengths["a"].expand(4000)}
    drawn = {}
    for backend in ("reference", "fused"):
        use_backend(model, backend)
        with torch.no_grad():
            drawn[backend] = model(features, lengths)
    spread = drawn["reference"].std(dim=0)
    assert spread.min() > 1e-3
    assert ((drawn["fused"].mean(dim=0) - drawn["reference"].mean(dim=0)).abs() < 5 * spread / 4000**0.5 * 2**0.5).all()
    assert (drawn["fused"].std(dim=0) / spread - 1).abs().max() < 0.1


def test_surrogate_follows_its_models_backend():
    dims = {"a": 2, "b": 3}
    torch.manual_seed(0)
    model = MFM(dims, 1, **SIZES, fusion=MFN, backend="reference").double()
    surrogate = surrogate_for(model).double()
    features, lengths, present = make_batch(dims, {"a": [3, 2], "b": [0, 2]}, dtype=torch.float64)
    own = model.encode(features, lengths, present).z_y.detach()
    codes = surrogate(features, lengths, present, own)
    assert surrogate.encoders["a"].backend == "reference"
    use_backend(surrogate, "fused")
    fused = surrogate(features, lengths, present, own)
    torch.testing.assert_close(fused.z, codes.z, rtol=1e-10, atol=1e-10)


def test_a_checkpoint_fits_every_backend():
    models = {}
    for backend in ("auto", "fused", "reference"):
        torch.manual_seed(0)
        models[backend] = MFM({"a": 2}, 1, **SIZES, backend=backend)
        models[backend].load_state_dict(models["auto"].state_dict())
        assert all(part.backend == backend for part in models[backend].modules() if hasattr(part, "backend"))
    assert copy.deepcopy(models["fused"]).encoders["a"].backend == "fused"


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigurationError, match=r"unknown backend 'fussed'.*fused"):
        MFM({"a": 2}, 1, backend="fussed")


@st.composite
def wanted(draw):
    names = NAMES[: draw(st.integers(1, 5))]
    samples = draw(st.integers(1, 4))
    steps = {name: draw(st.sampled_from([1, 2, 5])) for name in names}
    # beyond T too: such a sample has all T steps
    own = {name: draw(st.lists(st.integers(0, steps[name] + 2), min_size=samples, max_size=samples)) for name in names}
    return steps, own, samples


@settings(max_examples=25, deadline=None, derandomize=True)
@given(wanted(), st.sampled_from([torch.float64, torch.float32]))
def test_decoders_stop_where_the_wanted_steps_end(case, dtype):
    """Of the steps wanted, the reference's; zeros after them; and the gradients of a loss on the former alone."""
    steps, lengths, samples = case
    torch.manual_seed(samples)
    names = sorted(steps)
    model = MFM(dict.fromkeys(names, 3), 1, **SIZES).to(dtype)
    lengths = {name: torch.tensor(own) for name, own in lengths.items()}
    kept = {n: (torch.arange(steps[n]) < lengths[n][:, None])[..., None] for n in names}
    weights = {name: torch.randn(samples, steps[name], 3, dtype=dtype) for name in names}
    leaves = {"y": torch.rand(samples, SIZES["f_y"], dtype=dtype)}
    leaves |= {name: torch.rand(samples, SIZES["f"], dtype=dtype) for name in names}
    found = {}
    for backend in ("reference", "fused"):
        use_backend(model, backend)
        own = {name: value.clone().requires_grad_() for name, value in leaves.items()}
        factors = Factors(own["y"], {name: own[name] for name in names})
        if backend == "fused":
            decoded = model.decode(factors, steps, lengths=lengths)
            assert all(not decoded[name].masked_select(~kept[name]).any() for name in names)
        else:  # each decoder alone, all of its steps
            every = {name: model.decoders[name](own["y"], own[name], steps[name]) for name in names}
            decoded = {name: every[name] * kept[name] for name in names}
        parameters = [*model.decoders.parameters(), *own.values()]
        total = sum((decoded[name] * weights[name]).sum() for name in names)
        found[backend] = [*decoded.values(), *torch.autograd.grad(total, parameters)]
    for value, expected in zip(found["fused"], found["reference"], strict=True):
        scale = max(1.0, float(expected.detach().abs().max()))
        assert float((value - expected).detach().abs().max()) <= TOLERANCE[dtype] * scale


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_views_with_gaps_and_modalities_absent_by_their_flag_alone(count, dtype):
    torch.manual_seed(count)
    dims = {name: 2 + place for place, name in enumerate(NAMES[:count])}
    model = MFM(dims, 1, **SIZES, fusion=MFN).to(dtype)
    features, lengths, present = make_batch(dims, {name: [1, 4, 2] for name in dims}, dtype=dtype)
    for place, name in enumerate(dims):
        wide = torch.randn(6, 8, 2 * dims[name], dtype=dtype)
        features[name] = wide[::2, ::2, 1::2]  # every stride is larger than a dense tensor's
        present[name] = torch.arange(3) != place  # lengths still say that there are steps
    found = {}
    for backend in ("reference", "fused"):
        use_backend(model, backend)
        model.zero_grad()
        output = flat(model(features, lengths, present))
        sum(value.square().sum() for value in output.values()).backward()
        found[backend] = [*output.values(), *(parameter.grad.clone() for parameter in model.parameters())]
    for value, expected in zip(found["fused"], found["reference"], strict=True):
        scale = max(1.0, float(expected.detach().abs().max()))
        assert float((value - expected).detach().abs().max()) <= TOLERANCE[dtype] * scale
