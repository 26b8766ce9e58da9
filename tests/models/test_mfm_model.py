"""The model as users build it."""

from itertools import product

import pytest
import torch
from batches import ENCODER_SETTINGS, FUSION_SETTINGS, MFN, SIZES, flat, full_batch, make_batch, of_sequences
from torch import nn

from mfm.errors import ConfigurationError
from mfm.losses import MFMObjective
from mfm.models import DECODERS, ENCODERS, FUSIONS, MFM, Codes, Normalizer
from mfm.models.masking import step_mask

ODD_NAMES = ["type", "train", "a.b", "keys", "%2E", "of_type", "T_destination", "text"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_any_number_of_modalities_with_any_names(count):
    dims = {name: index + 1 for index, name in enumerate(ODD_NAMES[:count])}
    model = MFM(dims, 2, **SIZES, fusion=MFN)
    output = model(*make_batch(dims, {name: [4, 1] for name in dims}))
    assert list(output.reconstruction) == sorted(dims)
    for name, dim in dims.items():
        assert output.reconstruction[name].shape == (2, 4, dim)
        assert output.codes.z[name].shape == (2, SIZES["z"])
    again = MFM(dims, 2, **SIZES, fusion=MFN)
    again.load_state_dict(model.state_dict())
    assert all(p.shape == q.shape for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_order_of_the_modalities_given_does_not_matter():
    dims = {"b": 2, "a": 3}
    torch.manual_seed(0)
    one = MFM(dims, 1, **SIZES)
    torch.manual_seed(0)
    two = MFM(dict(reversed(dims.items())), 1, **SIZES)
    batch = full_batch(dims, 2, 3)
    assert torch.equal(one(*batch).prediction, two(*batch).prediction)


def test_one_seed_gives_one_model_and_one_step_to_the_last_digit():
    def run():
        torch.manual_seed(4)
        model = MFM({"a": 3, "b": 2}, 1, **SIZES, dropout=0.3, dropout_y=0.3, dropout_head=0.3)
        features, lengths, present = full_batch({"a": 3, "b": 2}, 4, 5)
        output = model(features, lengths, present)
        total, _ = MFMObjective("regression")(
            output.prediction,
            torch.zeros(4, 1),
            torch.ones(4, 1, dtype=torch.bool),
            output.reconstruction,
            features,
            lengths,
            present,
            *output.codes,
        )
        total.backward()
        return [total, *(p.grad for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_decoders_and_head_read_only_their_factors():
    """The head reads F_y alone, decoder i reads F_y and F_ai alone, encoder i reads X_i alone."""
    dims = {"a": 3, "b": 2}
    torch.manual_seed(0)
    model = MFM(dims, 1, **SIZES)
    codes = Codes(torch.randn(2, SIZES["z_y"]), {n: torch.randn(2, SIZES["z"]) for n in dims})
    factors = model.factorize(codes)
    assert factors.f_y.min() >= 0
    moved = model.factorize(codes._replace(z={**codes.z, "b": torch.randn(2, SIZES["z"])}))
    assert torch.equal(model.predict(factors.f_y), model.predict(moved.f_y))
    before, after = model.decode(factors, {"a": 4, "b": 4}), model.decode(moved, {"a": 4, "b": 4})
    assert torch.equal(before["a"], after["a"])
    assert not torch.equal(before["b"], after["b"])
    assert list(model.decode(factors, {"b": 2})) == ["b"]
    features, lengths, present = full_batch(dims, 2, 4)
    changed = {**features, "b": features["b"] + 1}
    assert torch.equal(model.encode(features, lengths, present).z["a"], model.encode(changed, lengths, present).z["a"])


def test_what_is_decoded_for_a_step_does_not_depend_on_how_many_are():
    for decoder in of_sequences(DECODERS):
        torch.manual_seed(0)
        part = DECODERS.build(decoder, f_y=3, f_i=2, output_dim=4)
        f_y, f_i = torch.rand(2, 3), torch.rand(2, 2)
        torch.testing.assert_close(part(f_y, f_i, 9)[:, :4], part(f_y, f_i, 4))
        assert part(f_y, f_i, 0).shape == (2, 0, 4)


def test_teacher_forcing_with_its_own_output_equals_generation():
    torch.manual_seed(0)
    part = DECODERS.build({"name": "teacher_forced", "hidden": 7}, f_y=3, f_i=2, output_dim=4).double()
    f_y, f_i = torch.rand(2, 3).double(), torch.rand(2, 2).double()
    generated = part(f_y, f_i, 6)
    torch.testing.assert_close(part(f_y, f_i, 6, generated), generated, rtol=1e-12, atol=1e-12)
    other = generated.clone()
    other[:, 3] += 1.0  # step t must not see x_t itself
    torch.testing.assert_close(part(f_y, f_i, 6, other)[:, :4], generated[:, :4], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="6 steps with 5"):
        part(f_y, f_i, 6, generated[:, :5])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_recurrent_encoders_equal_packed_sequences(name):
    torch.manual_seed(0)
    encoder = ENCODERS.build({"name": name, "layers": 2, "hidden": 5}, input_dim=3, code_dim=4).double()
    lengths = torch.tensor([4, 1, 6])
    x = torch.randn(3, 6, 3, dtype=torch.float64)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    _, last = encoder.recurrence(packed)
    last = last[0] if name == "lstm" else last
    torch.testing.assert_close(encoder(x, lengths), encoder.to_code(last[-1]), rtol=1e-12, atol=1e-12)


def test_no_head_predicts_nothing_and_trains():
    dims = {"a": 3}
    model = MFM(dims, 0, **SIZES)
    features, lengths, present = full_batch(dims, 3, 4)
    output = model(features, lengths, present)
    assert output.prediction.shape == (3, 0)
    total, parts = MFMObjective("regression")(
        output.prediction,
        torch.zeros(3, 0),
        torch.zeros(3, 0, dtype=torch.bool),
        output.reconstruction,
        features,
        lengths,
        present,
        *output.codes,
    )
    assert sorted(parts) == ["mmd", "reconstruction/a"]
    total.backward()
    assert all(p.grad is not None for p in model.parameters())


def combinations():
    """All parts with each other. The fast ones, a Latin square, have every two parts together once; slow are the third
    of their kind, and a state space beside other encoders or fusions."""
    encoders, fusions, decoders = (list(of_sequences(parts)) for parts in (ENCODERS, FUSIONS, DECODERS))
    for (i, encoder), (j, fusion), (k, decoder) in product(*map(enumerate, (encoders, fusions, decoders))):
        mixed = "ssm" in (encoder, fusion) and encoder != fusion
        slow = mixed or (encoder != "ssm" and (i + j + k) % len(decoders) != 0)
        yield pytest.param(encoder, fusion, decoder, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("encoder", "fusion", "decoder"), list(combinations()))
def test_every_combination_learns_a_tiny_set(encoder, fusion, decoder):
    torch.manual_seed(1)
    dims = {"a": 2, "b": 3}
    model = MFM(
        dims,
        1,
        z_y=16,
        z=16,
        f_y=16,
        f=16,
        encoder=ENCODER_SETTINGS[encoder],
        fusion=FUSION_SETTINGS[fusion],
        decoder=decoder,
    )
    batch = make_batch(dims, {"a": [4, 3, 4, 2], "b": [4, 3, 0, 2]})
    features, lengths, _ = batch
    target = torch.tensor([[1.0], [-1.0], [0.5], [2.0]])
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)

    def losses():
        output = model(*batch)
        errors = [
            ((output.reconstruction[n] - features[n]).square() * step_mask(lengths[n], 4)[..., None]).mean()
            for n in dims
        ]
        return (output.prediction - target).abs().mean(), sum(errors)

    first = losses()
    for _ in range(80):
        prediction, reconstruction = losses()
        optimiser.zero_grad()
        (prediction + reconstruction).backward()
        optimiser.step()
    prediction, reconstruction = losses()
    assert prediction < 0.5 * first[0]
    assert reconstruction < 0.75 * first[1]


@pytest.mark.parametrize(
    ("encoder", "fusion", "decoder", "aligned"),
    [
        ("lstm", "mfn", "free_running", True),
        ("lstm", "mfn", "free_running", False),
        ("gru", "concat_lstm", "teacher_forced", True),
        ("gru", "concat_lstm", "teacher_forced", False),
        ("transformer", "transformer", "mlp", True),  # these fusions need no alignment
        ("mean", "mfn", "teacher_forced", True),
        ("ssm", "ssm", "mlp", True),
    ],
)
def test_a_training_step_never_looks_at_values(encoder, fusion, decoder, aligned):
    """On the meta device there are no values: anything that moves or synchronises would fail."""
    dims = {"a": 2, "b": 3}
    with torch.device("meta"):
        model = MFM(dims, 1, encoder=encoder, fusion=fusion, decoder=decoder, aligned=aligned)
        normalizer = Normalizer(dims)
        raw = {n: torch.empty(4, 3, d) for n, d in dims.items()}
        lengths = {n: torch.empty(4, dtype=torch.int64) for n in dims}
        present = {n: torch.empty(4, dtype=torch.bool) for n in dims}
        features = normalizer(raw, lengths)
        output = model(features, lengths, present)
        for mmd_on, unbiased in (("joint", False), ("marginals", True)):
            total, _ = MFMObjective("regression", mmd_on=mmd_on, unbiased=unbiased)(
                output.prediction,
                torch.empty(4, 1),
                torch.empty(4, 1, dtype=torch.bool),
                output.reconstruction,
                features,
                lengths,
                present,
                *output.codes,
            )
            total.backward(retain_graph=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decoder", of_sequences(DECODERS))
@pytest.mark.parametrize("fusion", of_sequences(FUSIONS))
def test_autocast_is_finite_and_near_float32(fusion, decoder, dtype):
    dims = {"a": 2, "b": 3}
    for encoder in of_sequences(ENCODERS):
        torch.manual_seed(0)
        model = MFM(
            dims,
            1,
            **SIZES,
            encoder=ENCODER_SETTINGS[encoder],
            fusion=FUSION_SETTINGS[fusion],
            decoder=decoder,
        )
        features, lengths, present = make_batch(dims, {"a": [5, 2, 0], "b": [5, 2, 4]})
        exact = flat(model(features, lengths, present))
        with torch.autocast("cpu", dtype=dtype):
            output = model(features, lengths, present)
            total, parts = MFMObjective("regression")(
                output.prediction,
                torch.zeros(3, 1),
                torch.ones(3, 1, dtype=torch.bool),
                output.reconstruction,
                features,
                lengths,
                present,
                *output.codes,
            )
        total.backward()
        assert all(part.dtype == torch.float32 and part.isfinite() for part in (total, *parts.values()))
        assert all(p.grad.isfinite().all() for p in model.parameters())
        for name, value in flat(output).items():
            torch.testing.assert_close(value.float(), exact[name], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"z": {"txt": 3, "default": 2}}, "z names an unknown modality 'txt': did you mean 'text'"),
        ({"z": {"text": 3}}, "z has no value for modality 'audio'"),
        ({"f": -1}, "f is -1, but must be an integer >= 1"),
        ({"f": {"text": 0, "default": 2}}, "f of modality 'text' is 0"),
        ({"z_y": 0}, "z_y is 0"),
        ({"z_y": 2.5}, "z_y is 2.5"),
        ({"dropout": 1.0}, "dropout is 1.0, but must be a number >= 0 and < 1"),
        ({"dropout_y": -0.1}, "dropout_y is -0.1"),
        ({"encoder": "lstn"}, "unknown encoder 'lstn': did you mean 'lstm'"),
        ({"encoder": {"text": "gru"}}, "encoder has no value for modality 'audio'"),
        ({"encoder": {"name": "lstm", "layer": 2}}, "encoder 'lstm' has no setting 'layer': did you mean 'layers'"),
        ({"encoder": {"name": "lstm", "layers": -1}}, "setting 'layers' of encoder 'lstm' is -1"),
        ({"encoder": {"name": "lstm", "layers": "2"}}, "is '2', but must be an integer >= 1"),
        ({"encoder": {"name": "lstm", "layers": True}}, "is True"),
        ({"encoder": {"name": "transformer", "heads": 7}}, "no multiple of its 7 heads"),
        ({"encoder": 3}, "encoder is 3, but must be a name"),
        ({"encoder": {"name": "lstm", "input_dim": 2}}, "no setting 'input_dim'"),
        ({"fusion": "mfm"}, "unknown fusion 'mfm': did you mean 'mfn'"),
        ({"fusion": {"memory": 3}}, "fusion is {'memory': 3}, but must be a name or a mapping with the key 'name'"),
        ({"fusion": {"name": "mfn", "hidden": {"txt": 3}}}, "unknown modality 'txt'"),
        ({"fusion": {"name": "mfn", "hidden": {"text": 0, "audio": 1}}}, "setting 'hidden' of fusion 'mfn'"),
        ({"decoder": "mpl"}, "unknown decoder 'mpl': did you mean 'mlp'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigurationError) as caught:
        MFM({"text": 3, "audio": 2}, 1, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("dims", "output_dim", "message"),
    [
        ({}, 1, "no modality"),
        ({"a": 0}, 1, "is 0"),
        ({"": 2}, 1, "cannot be called ''"),
        ({"y": 2}, 1, "cannot be called 'y'"),
        ({"a": 2}, -1, "output_dim"),
    ],
)
def test_impossible_models_are_refused(dims, output_dim, message):
    with pytest.raises(ConfigurationError, match=message):
        MFM(dims, output_dim)


def test_batches_of_another_shape_are_refused():
    model = MFM({"text": 3, "audio": 2}, 1)
    with pytest.raises(ConfigurationError, match="did you mean 'text'"):
        model(*full_batch({"txt": 3}, 2, 2))
    with pytest.raises(ConfigurationError, match="4 features a step, but the model was built for 3"):
        model(*full_batch({"text": 4}, 2, 2))
    with pytest.raises(ConfigurationError, match="no modality"):
        model({}, {}, {})
    with pytest.raises(ConfigurationError, match="not built for modality 'x'"):
        model.decode(model.factorize(model.encode(*full_batch({"text": 3}, 2, 2))), {"x": 2})


def test_parts_may_differ_between_modalities():
    model = MFM(
        {"text": 3, "audio": 2},
        1,
        encoder={"text": "transformer", "default": {"name": "gru", "hidden": 4}},
        decoder="mlp",
    )
    assert type(model.encoders["text"]) is ENCODERS._parts["transformer"]
    assert model.encoders["audio"].recurrence.hidden_size == 4


@pytest.mark.parametrize("registry", [ENCODERS, FUSIONS, DECODERS])
def test_descriptions_name_every_part_and_setting(registry):
    text = registry.describe()
    for name in registry.names():
        assert f"{name}: " in text
        for setting in registry.settings(name):
            assert f"    {setting}: " in text
    with pytest.raises(ConfigurationError, match="registered already"):
        registry.register(registry.names()[0])(nn.Module)


def test_nothing_else_may_be_passed_to_parts_by_users():
    assert set(FUSIONS.settings("mfn")) >= {"hidden", "memory", "window", "attention1_dropout"}
    assert FUSION_SETTINGS["mfn"].keys() - {"name"} <= FUSIONS.settings("mfn").keys()
