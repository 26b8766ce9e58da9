"""Padding and absence are never values."""

import pytest
import torch
from batches import (
    ENCODER_SETTINGS,
    FUSION_SETTINGS,
    MFN,
    SIZES,
    flat,
    full_batch,
    make_batch,
    of_sequences,
    select,
    trimmed,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.losses import MFMObjective
from mfm.models import DECODERS, ENCODERS, FUSIONS, MFM

DIMS = {"audio": 2, "text": 4, "vision": 3}
GARBAGE = (float("nan"), float("inf"), -float("inf"), 1e30, -3.0)


def build(dims=DIMS, *, encoder="lstm", fusion="mfn", decoder="free_running", output_dim=1, seed=0, **options):
    torch.manual_seed(seed)
    return MFM(
        dims,
        output_dim,
        **SIZES,
        encoder=ENCODER_SETTINGS[encoder],
        fusion=FUSION_SETTINGS[fusion],
        decoder=decoder,
        **options,
    )


def results(model, batch, mmd_on, unbiased=False):
    """Everything that a training step computes: outputs, loss parts, gradients."""
    features, lengths, present = batch
    model.zero_grad()
    output = model(features, lengths, present)
    rows = output.prediction.shape[0]
    torch.manual_seed(5)
    total, parts = MFMObjective("regression", mmd_on=mmd_on, unbiased=unbiased)(
        output.prediction,
        torch.ones(rows, 1),
        torch.ones(rows, 1, dtype=torch.bool),
        output.reconstruction,
        features,
        lengths,
        present,
        output.codes.z_y,
        output.codes.z,
    )
    total.backward()
    gradients = {f"gradient of {n}": p.grad.clone() for n, p in model.named_parameters()}
    return {**flat(output), "total": total, **{f"part {n}": v for n, v in parts.items()}, **gradients}


@st.composite
def batches_with_garbage(draw):
    rows = draw(st.integers(1, 4))
    lengths = {n: draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows)) for n in DIMS}
    steps = {n: max(max(lengths[n]), 1) + draw(st.integers(0, 2)) for n in DIMS}
    garbage = draw(st.lists(st.sampled_from(GARBAGE), min_size=3, max_size=3))
    # absent by the flag alone: `present` False while the length says otherwise
    hidden = {n: draw(st.lists(st.booleans(), min_size=rows, max_size=rows)) for n in DIMS}
    return lengths, steps, dict(zip(DIMS, garbage, strict=True)), hidden


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(
    ("encoder", "fusion", "decoder", "mmd_on"),
    [
        ("lstm", "mfn", "free_running", "joint"),
        ("gru", "concat_lstm", "teacher_forced", "marginals"),
        ("transformer", "transformer", "mlp", "joint"),
        ("mean", "mfn", "teacher_forced", "marginals"),
    ],
)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(case=batches_with_garbage())
def test_garbage_in_padding_and_absent_modalities_changes_nothing(encoder, fusion, decoder, mmd_on, aligned, case):
    lengths, steps, garbage, hidden = case
    model = build(encoder=encoder, fusion=fusion, decoder=decoder, aligned=aligned)
    features, own, present = make_batch(DIMS, lengths, steps=steps)
    clean, dirty, flags = {}, {}, {}
    for n, x in features.items():
        flags[n] = present[n] & ~torch.tensor(hidden[n])
        real = (torch.arange(x.shape[1]) < own[n][:, None]) & flags[n][:, None]
        clean[n] = torch.where(real[..., None], x, torch.zeros(()))
        dirty[n] = torch.where(real[..., None], x, torch.tensor(garbage[n]))
    before = results(model, (clean, own, flags), mmd_on)
    after = results(model, (dirty, own, flags), mmd_on)
    for name in before:
        assert torch.isfinite(before[name]).all(), name
        assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("decoder", of_sequences(DECODERS))
@pytest.mark.parametrize("fusion", of_sequences(FUSIONS))
@pytest.mark.parametrize("encoder", of_sequences(ENCODERS))
def test_a_sample_alone_gives_what_it_gives_in_a_padded_batch(encoder, fusion, decoder, aligned):
    model = build(encoder=encoder, fusion=fusion, decoder=decoder, aligned=aligned).double().eval()
    if aligned:
        lengths = {"audio": [6, 2, 0, 1, 0], "text": [6, 0, 3, 1, 0], "vision": [6, 2, 3, 1, 0]}
    else:
        lengths = {"audio": [9, 13, 0, 1, 0], "text": [4, 0, 3, 1, 0], "vision": [17, 5, 8, 2, 0]}
    batch = make_batch(DIMS, lengths, dtype=torch.float64)
    together = flat(model(*batch))
    for row in range(5):
        alone = flat(model(*trimmed(batch, row)))
        for name, value in alone.items():
            expected = together[name][row : row + 1]
            if name.startswith("reconstruction"):
                expected = expected[:, : value.shape[1]]
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("fusion", of_sequences(FUSIONS))
def test_permuting_the_batch_permutes_the_outputs(fusion):
    model = build(fusion=fusion).double()
    batch = make_batch(DIMS, {"audio": [5, 2, 3], "text": [5, 0, 3], "vision": [5, 2, 0]}, dtype=torch.float64)
    order = torch.tensor([2, 0, 1])
    expected, actual = flat(model(*batch)), flat(model(*select(batch, order)))
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name][order], rtol=1e-12, atol=1e-12)


def test_absent_modalities_and_empty_sequences_have_the_prior_mean_as_code():
    model = build()
    codes = model.encode(*make_batch(DIMS, {"audio": [3, 0, 0], "text": [3, 3, 0], "vision": [3, 3, 0]}))
    assert codes.z["audio"][1:].eq(0).all()
    assert codes.z["audio"][0].ne(0).any()
    assert codes.z["text"][2].eq(0).all()
    assert codes.z_y[2].eq(0).all()
    assert codes.z_y[:2].ne(0).any(dim=1).all()


@pytest.mark.parametrize("fusion", of_sequences(FUSIONS))
def test_a_modality_that_the_batch_lacks_is_absent_for_all(fusion):
    model = build(fusion=fusion)
    batch = full_batch(DIMS, 3, 4)
    lengths = {**batch[1], "text": torch.zeros(3, dtype=torch.int64)}
    present = {**batch[2], "text": torch.zeros(3, dtype=torch.bool)}
    expected = model(batch[0], lengths, present)
    actual = model(*({n: v for n, v in part.items() if n != "text"} for part in batch))
    torch.testing.assert_close(actual.prediction, expected.prediction)
    torch.testing.assert_close(actual.codes.z, expected.codes.z)
    assert sorted(actual.reconstruction) == ["audio", "vision"]
    actual.prediction.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n.startswith("fusion"))


def test_cells_of_an_absent_modality_take_no_part_in_the_attention():
    """With one of two modalities absent, the attention must sum to 1 over the cells of the other."""
    torch.manual_seed(0)
    model = MFM({"a": 2, "b": 3}, 1, **SIZES, fusion=MFN, backend="reference")
    seen = []
    original = torch.softmax
    features, lengths, present = make_batch({"a": 2, "b": 3}, {"a": [4, 4], "b": [4, 0]})
    try:
        torch.softmax = lambda *args, **kwargs: seen.append(original(*args, **kwargs)) or seen[-1]
        model(features, lengths, present)
    finally:
        torch.softmax = original
    (weights,) = seen
    hidden = MFN["hidden"]
    of_b = torch.cat([torch.arange(hidden, 2 * hidden), torch.arange(3 * hidden, 4 * hidden)])
    assert weights[1][:, of_b].eq(0).all()
    assert weights[0][:, of_b].gt(0).all()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 4))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("fusion", of_sequences(FUSIONS))
def test_everything_absent_is_finite_forward_and_backward(fusion, aligned):
    for encoder, decoder in (("lstm", "free_running"), ("transformer", "teacher_forced"), ("mean", "mlp")):
        model = build(fusion=fusion, encoder=encoder, decoder=decoder, aligned=aligned)
        batch = make_batch(DIMS, {name: [0, 0] for name in DIMS}, steps=dict.fromkeys(DIMS, 3))
        for mmd_on in ("joint", "marginals"):
            for name, value in results(model, batch, mmd_on).items():
                assert torch.isfinite(value).all(), name
        no_steps = {n: x[:, :0] for n, x in batch[0].items()}
        assert model(no_steps, batch[1], batch[2]).reconstruction["text"].shape == (2, 0, 4)


@pytest.mark.parametrize("fusion", of_sequences(FUSIONS))
def test_more_than_a_thousand_steps(fusion):
    model = build(fusion=fusion)
    output = model(*make_batch(DIMS, {name: [1003, 1] for name in DIMS}))
    output.reconstruction["text"].square().mean().backward()
    assert all(torch.isfinite(value).all() for value in flat(output).values())
