"""Surrogate inference: what is missing has no influence, what is complete is untouched, samples do not mix."""

import pytest
import torch
from batches import FUSION_SETTINGS, SIZES, flat, full_batch, make_batch, select, trimmed
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.errors import ConfigurationError
from mfm.models import MFM
from mfm.models.subsets import all_subsets
from mfm.models.surrogate import Surrogate, generate, infer, infer_codes, surrogate_codes, surrogate_for

DIMS = {"audio": 2, "text": 4, "vision": 3}
GARBAGE = (float("nan"), float("inf"), -3.0, 1e30)


def build(dims=DIMS, decoder="free_running", fusion="mfn", **settings):
    torch.manual_seed(0)
    model = MFM(dims, 1, **SIZES, fusion=FUSION_SETTINGS[fusion], decoder=decoder).eval()
    return model, surrogate_for(model, **{"width": 6, "hidden": 7, **settings}).eval()


def mixed(dims=DIMS, steps=4, seed=0):
    """A batch with one sample for every subset, the empty one too."""
    patterns = [(), *all_subsets(dims)]
    lengths = {name: [1 + row % steps if name in one else 0 for row, one in enumerate(patterns)] for name in dims}
    return make_batch(dims, lengths, seed=seed)


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(GARBAGE), min_size=3, max_size=3),
    st.sampled_from(["mfn", "concat_lstm", "transformer"]),
    st.booleans(),
)
def test_the_value_of_a_missing_modality_changes_nothing(garbage, fusion, by_flag):
    model, surrogate = build(fusion=fusion)
    features, lengths, present = mixed()
    clean = flat(infer(model, surrogate, features, lengths, present))
    filled, claimed = {}, dict(lengths)
    for (name, x), value in zip(features.items(), garbage, strict=True):
        hidden = torch.arange(x.shape[1]) >= lengths[name][:, None]
        filled[name] = x.masked_fill(hidden[..., None], value)
        if by_flag:  # absent by `present` alone, while the length says otherwise
            claimed[name] = lengths[name].masked_fill(~present[name], x.shape[1])
    for name, value in flat(infer(model, surrogate, filled, claimed, present)).items():
        assert torch.equal(value, clean[name]), name


@pytest.mark.parametrize("decoder", ["free_running", "teacher_forced", "mlp"])
def test_complete_samples_come_out_bit_for_bit_as_without_a_surrogate(decoder):
    model, surrogate = build(decoder=decoder)
    batch = full_batch(DIMS, 5, 4)
    without, with_one = flat(model(*batch)), flat(infer(model, surrogate, *batch))
    assert without.keys() == with_one.keys()
    assert all(torch.equal(without[name], with_one[name]) for name in without)
    mixture = mixed()
    complete = torch.stack(list(mixture[2].values())).all(0)
    assert complete.sum() == 1
    own, inferred = flat(model(*mixture)), flat(infer(model, surrogate, *mixture))
    for name in own:
        # what is decoded beside a sample differs in steps, hence products in rows, hence sums in their last bit
        tolerance = 1e-6 if name.startswith("reconstruction/") else 0
        torch.testing.assert_close(own[name][complete], inferred[name][complete], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("encoder", ["lstm", "gru", "mean", {"name": "transformer", "width": 8, "heads": 2}])
def test_a_batch_equals_its_samples_one_by_one(encoder):
    model, surrogate = build(encoder=encoder, decoder="teacher_forced")
    batch = mixed()
    together = infer(model, surrogate, *batch)
    for row in range(len(batch[1]["text"])):
        alone = infer(model, surrogate, *trimmed(batch, row))
        for name in ("z_y", "prediction", "z/audio", "z/text", "f_y"):
            torch.testing.assert_close(flat(alone)[name][0], flat(together)[name][row], rtol=1e-4, atol=1e-5)
        for name, x in alone.reconstruction.items():
            torch.testing.assert_close(x[0], together.reconstruction[name][row, : x.shape[1]], rtol=1e-4, atol=1e-5)


def test_what_is_inferred_and_what_is_not():
    model, surrogate = build()
    features, lengths, present = mixed()
    own = model.encode(features, lengths, present)
    inferred = surrogate(features, lengths, present, own.z_y)
    codes = infer_codes(model, surrogate, features, lengths, present)
    for row in range(8):
        there = [name for name in DIMS if present[name][row]]
        expected = own.z_y[row] if len(there) == 3 else inferred.z_y[row]
        assert torch.equal(codes.z_y[row], expected)
        for name in DIMS:
            assert torch.equal(codes.z[name][row], own.z[name][row] if name in there else inferred.z[name][row])
    assert not codes.z_y[0].any()  # nothing observed: the prior's mean
    assert not torch.stack([code[0] for code in codes.z.values()]).any()
    assert codes.z["text"][1].any()


def test_a_modality_that_the_batch_lacks_is_one_that_no_sample_has():
    model, surrogate = build()
    features, lengths, present = full_batch(DIMS, 3, 4)
    rest = tuple({name: part[name] for name in ("audio", "vision")} for part in (features, lengths, present))
    hidden = {**present, "text": torch.zeros(3, dtype=torch.bool)}
    lacking, hiding = infer_codes(model, surrogate, *rest), infer_codes(model, surrogate, features, lengths, hidden)
    torch.testing.assert_close(lacking.z_y, hiding.z_y)
    torch.testing.assert_close(lacking.z, hiding.z)


def test_teacher_forced_decoders_run_free_where_there_is_nothing_to_be_taught_with():
    model, surrogate = build(decoder="teacher_forced")
    features, lengths, present = full_batch(DIMS, 2, 4)
    present["text"][0] = False
    output = infer(model, surrogate, features, lengths, present)
    free = model.decode(output.factors, {"text": 4})["text"]
    assert torch.equal(output.reconstruction["text"][0], free[0])
    assert not torch.allclose(output.reconstruction["text"][1], free[1])


def test_every_parameter_has_a_gradient_whatever_was_observed():
    model, surrogate = build()
    features, lengths, present = select(full_batch(DIMS, 2, 3), [0, 1])
    observed = {"audio": torch.tensor([True, True])} | dict.fromkeys(("text", "vision"), torch.tensor([False, False]))
    codes = surrogate_codes(surrogate, model.encode(features, lengths, present), features, lengths, observed)
    output = generate(model, codes, features)
    (output.prediction.sum() + sum(x.sum() for x in output.reconstruction.values())).backward()
    # those that infer what was observed take part as soon as the loss names them: see the objective's tests
    lacking = {name for name, p in surrogate.named_parameters() if p.grad is None}
    assert lacking <= {"to_z.of_audio.weight", "to_z.of_audio.bias"}


@pytest.mark.parametrize("dims", [{"text": 3}, {"a.b": 2, "train": 3}, dict.fromkeys("pqrst", 2)])
def test_any_number_of_modalities_under_any_name(dims):
    model, surrogate = build(dims)
    output = infer(model, surrogate, *mixed(dims))
    assert output.prediction.shape == (2 ** len(dims), 1)
    assert torch.isfinite(output.prediction).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"encoder": "lstn"}, "lstm"), ({"width": 0}, "surrogate_width"), ({"hidden": 0}, "surrogate_hidden")],
)
def test_settings_that_cannot_be_used(options, named):
    with pytest.raises(ConfigurationError, match=named):
        Surrogate(DIMS, 4, dict.fromkeys(DIMS, 3), **options)
