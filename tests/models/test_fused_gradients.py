"""Hand-written gradients against finite differences, and where they must not be used."""

import pytest
import torch
from batches import MFN, SIZES, full_batch, make_batch
from torch import nn

from mfm.losses import MFMObjective
from mfm.models import MFM, Normalizer
from mfm.models.backend import use_backend
from mfm.models.fused_decoder import run_free
from mfm.models.fused_lstm import LSTMWeights
from mfm.models.fused_memory import run_memory
from mfm.models.lstm_groups import LSTMTask, run_lstms
from mfm.models.packing import packing_of

LENGTHS = [torch.tensor([3, 1, 2]), torch.tensor([0, 2, 0]), torch.tensor([3, 3, 3])]


def weights(dim, width):
    cell = nn.LSTMCell(dim, width).double()
    return [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]


def lstms(lengths):
    """Two LSTMs that read one tensor, one that reads another; all three values of each take part."""

    def compute(x, y, *flat):
        own = [LSTMWeights(*flat[place : place + 4]) for place in (0, 4, 8)]
        states = run_lstms([LSTMTask(x, lengths, own[0]), LSTMTask(x, lengths, own[1]), LSTMTask(y, lengths, own[2])])
        return tuple(value for state in states for value in state[:3])

    x, y = (torch.randn(3, 3, dim, dtype=torch.float64, requires_grad=True) for dim in (2, 1))
    return compute, (x, y, *weights(2, 2), *weights(2, 1), *weights(1, 2))


def free(lengths):
    packing = packing_of(lengths, 3)

    def compute(x, y, *flat):
        return tuple(run_free([x, y], [LSTMWeights(*flat[:4]), LSTMWeights(*flat[4:])], packing))

    x, y = (torch.randn(3, width, dtype=torch.float64, requires_grad=True) for width in (2, 1))
    return compute, (x, y, *weights(2, 2), *weights(1, 1))


def memory(lengths):
    packing = packing_of(lengths, 3)
    masks = (torch.rand(packing.height, 5) < 0.7).double() / 0.7

    def compute(known, proposals, from_memory, *second):
        return run_memory(known, proposals, from_memory, second, masks, packing)

    shapes = [(packing.height, 5), (packing.height, 3), (5, 3), (3, 2), (3,), (3, 3), (3,)]
    return compute, tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("recurrence", [lstms, free, memory])
def test_first_and_second_derivatives(recurrence, lengths):
    torch.manual_seed(1)
    compute, arguments = recurrence(lengths)
    assert torch.autograd.gradcheck(compute, arguments)
    assert torch.autograd.gradgradcheck(compute, arguments, fast_mode=True)


@pytest.mark.parametrize("recurrence", [lstms, free, memory])
def test_a_batch_of_gradients_is_each_of_them(recurrence):
    torch.manual_seed(2)
    compute, arguments = recurrence(LENGTHS[0])
    values = compute(*arguments)
    value = values if isinstance(values, torch.Tensor) else values[0]
    directions = torch.randn(4, *value.shape, dtype=torch.float64)
    single = [
        torch.autograd.grad(value, arguments, direction, retain_graph=True, allow_unused=True)
        for direction in directions
    ]
    batched = torch.autograd.grad(value, arguments, directions, is_grads_batched=True, allow_unused=True)
    for place, many in enumerate(batched):
        if many is not None:
            torch.testing.assert_close(many, torch.stack([own[place] for own in single]), rtol=1e-10, atol=1e-12)


def test_a_graph_that_is_kept_gives_the_same_gradients_again():
    compute, arguments = lstms(LENGTHS[0])
    total = sum(value.square().sum() for value in compute(*arguments))
    first = torch.autograd.grad(total, arguments, retain_graph=True)
    second = torch.autograd.grad(total, arguments)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
@pytest.mark.parametrize("backend", ["auto", "fused"])
def test_jacobians_by_torch_func(transform, backend):
    torch.manual_seed(0)
    decoder = MFM({"a": 2}, 1, **SIZES, backend=backend).double().decoders["a"]
    f_y, f_i = torch.randn(1, SIZES["f_y"]).double(), torch.randn(1, SIZES["f"]).double()
    found = transform(lambda f: decoder(f, f_i, 3).flatten())(f_y)[:, 0]
    f_y.requires_grad_()
    rows = [torch.autograd.grad(value, f_y, retain_graph=True)[0][0] for value in decoder(f_y, f_i, 3).flatten()]
    torch.testing.assert_close(found, torch.stack(rows))


def test_forward_mode_goes_through_the_reference():
    torch.manual_seed(0)
    decoder = MFM({"a": 2}, 1, **SIZES, backend="fused").double().decoders["a"]
    f_y, f_i, tangent = (torch.randn(2, size).double() for size in (SIZES["f_y"], SIZES["f"], SIZES["f_y"]))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(f_y, tangent)
        moved = torch.autograd.forward_ad.unpack_dual(decoder(dual, f_i, 3)).tangent
    step = 1e-6
    difference = (decoder(f_y + step * tangent, f_i, 3) - decoder(f_y - step * tangent, f_i, 3)) / (2 * step)
    torch.testing.assert_close(moved, difference, rtol=1e-6, atol=1e-8)


def step(model, normalizer, device, independence=1.0):
    """One training step's loss, backward included, with every part of the objective."""
    dims = model.feature_dims
    batch = full_batch(dims, 6, 4)
    features, lengths, present = ({name: x.to(device) for name, x in part.items()} for part in batch)
    target, mask = torch.zeros(6, 1, device=device), torch.ones(6, 1, dtype=torch.bool, device=device)
    features = normalizer(features, lengths)
    output = model(features, lengths, present)
    objective = MFMObjective("regression", independence=independence)
    loss = objective(
        output.prediction, target, mask, output.reconstruction, features, lengths, present, *output.drawn
    ).total
    loss.backward()
    return loss


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
@pytest.mark.parametrize("fusion", ["mfn", "concat_lstm"])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_training_step_never_reads_a_value(backend, fusion, aligned):
    """On the meta device there are none: `.item()`, `.cpu()` and `bool(tensor)` raise."""
    dims = {"a": 2, "b": 3}
    fusion = {**MFN, "gate1_dropout": 0.5} if fusion == "mfn" else fusion
    with torch.device("meta"):
        model = MFM(dims, 1, **SIZES, fusion=fusion, aligned=aligned, backend=backend, code_noise="learned")
        normalizer = Normalizer(dims)
    assert step(model, normalizer, "meta").device.type == "meta"
    assert all(parameter.grad is not None for parameter in model.parameters())


class _Reads(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what would wait for a device, or move to another one."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket._qualified_op_name
        if name in ("aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero", "aten::equal"):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_training_step_on_the_cpu_reads_no_value_either(backend):
    dims = {"a": 2, "b": 3}
    model = MFM(dims, 1, **SIZES, fusion=MFN, backend=backend)
    with _Reads() as reads:
        step(model, Normalizer(dims), "cpu")
    assert reads.found == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_recurrences_in_32_bits(dtype):
    torch.manual_seed(0)
    dims = {"a": 2, "b": 3}
    model, normalizer = MFM(dims, 1, **SIZES, fusion=MFN), Normalizer(dims)
    torch.manual_seed(1)
    exact = step(model, normalizer, "cpu", independence=0.0).detach()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=dtype):
        rounded = step(model, normalizer, "cpu", independence=0.0).detach()
    assert rounded.dtype == torch.float32
    assert float(rounded) == pytest.approx(float(exact), rel=0.02)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        scale = gradients[name].abs().max()
        assert (parameter.grad - gradients[name]).abs().max() <= 0.1 * scale + 1e-3, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_16_bits_takes_the_reference(dtype):
    torch.manual_seed(0)
    model = MFM({"a": 2}, 1, **SIZES, fusion=MFN).to(dtype)
    assert not model.fusion.runs_fused()
    features, lengths, present = full_batch({"a": 2}, 2, 3)
    output = model({"a": features["a"].to(dtype)}, lengths, present)
    assert output.prediction.dtype == dtype
    assert torch.isfinite(output.prediction).all()


def test_inference_mode_and_no_grad_give_what_training_gives():
    torch.manual_seed(0)
    dims = {"a": 2, "b": 3}
    model = MFM(dims, 1, **SIZES, fusion=MFN).eval()
    batch = make_batch(dims, {"a": [3, 0], "b": [2, 3]})
    expected = model(*batch).prediction
    with torch.no_grad():
        assert torch.equal(model(*batch).prediction, expected)
    with torch.inference_mode():
        assert torch.equal(model(*batch).prediction, expected)


def saved_bytes(backend):
    """What autograd keeps between forward and backward, parameters aside."""
    torch.manual_seed(0)
    dims = {"a": 20, "b": 10}
    model = MFM(dims, 1, **SIZES, fusion=MFN)
    use_backend(model, backend)
    kept = {}

    def keep(x):
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        output = model(*full_batch(dims, 16, 20))
        assert output.prediction.requires_grad
    return sum(size for place, size in kept.items() if place not in own)


def test_training_keeps_less_than_the_reference():
    assert saved_bytes("fused") < 0.8 * saved_bytes("reference")
