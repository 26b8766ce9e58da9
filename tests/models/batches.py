"""Small random batches for the model tests."""

import torch

SIZES = {"z_y": 5, "z": 4, "f_y": 9, "f": 8}
MFN = {"name": "mfn", "hidden": 5, "memory": 4, "attention1": 6, "attention2": 7, "gate1": 6, "gate2": 8}
FUSION_SETTINGS = {
    "mfn": MFN,
    "concat_lstm": {"name": "concat_lstm", "hidden": 8},
    "transformer": {"name": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0},
    "ssm": {"name": "ssm", "width": 6, "layers": 1, "states": 2, "dropout": 0.0},
}
ENCODER_SETTINGS = {
    "lstm": {"name": "lstm"},
    "gru": {"name": "gru", "hidden": 6},
    "transformer": {"name": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.0},
    "mean": {"name": "mean"},
    "ssm": {"name": "ssm", "width": 6, "layers": 1, "states": 2, "dropout": 0.0},
}


def make_batch(dims, lengths, *, steps=None, seed=0, dtype=torch.float32):
    """Features with zeros in padding, lengths and presence; `lengths` is modality -> list of B lengths."""
    generator = torch.Generator().manual_seed(seed)
    features, own, present = {}, {}, {}
    for name, dim in dims.items():
        own[name] = torch.tensor(lengths[name])
        t = (steps or {}).get(name, max(max(lengths[name]), 1))
        x = torch.randn(len(lengths[name]), t, dim, generator=generator, dtype=dtype)
        features[name] = x * (torch.arange(t) < own[name][:, None])[..., None]
        present[name] = own[name] > 0
    return features, own, present


def full_batch(dims, batch, steps, **options):
    return make_batch(dims, {name: [steps] * batch for name in dims}, **options)


def select(batch, rows):
    """Rows of a batch, with the padding it has."""
    return tuple({name: value[rows] for name, value in part.items()} for part in batch)


def trimmed(batch, row):
    """One sample alone, without any padding."""
    features, lengths, present = select(batch, [row])
    return {n: x[:, : int(lengths[n])] for n, x in features.items()}, lengths, present


def flat(output):
    """All tensors of an MFMOutput by name."""
    return {
        "prediction": output.prediction,
        "z_y": output.codes.z_y,
        "f_y": output.factors.f_y,
        **{f"z/{n}": v for n, v in output.codes.z.items()},
        **{f"f/{n}": v for n, v in output.factors.f.items()},
        **{f"reconstruction/{n}": v for n, v in output.reconstruction.items()},
    }


def of_sequences(registry):
    """Names of the parts that take sequences of any width; `conv` takes images, and has tests of its own."""
    return [name for name in registry.names() if name != "conv"]
