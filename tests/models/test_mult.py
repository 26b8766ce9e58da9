"""MulT: its attention against a plain loop, and what padding, absence and the number of modalities mean."""

import math

import pytest
import torch
from batches import make_batch, select

from mfm.errors import ConfigurationError
from mfm.models.attention import CrossAttentionBlock
from mfm.models.networks import NETWORKS

DIMS = {"a": 3, "b": 2, "c": 4, "type": 1}
SMALL = {"name": "mult", "width": 4, "heads": 2, "layers": 2, "self_layers": 1, "kernel": {"a": 1, "default": 3}}
LENGTHS = {"a": [5, 0, 1, 2], "b": [2, 4, 0, 3], "c": [3, 1, 0, 7], "type": [1, 2, 3, 0]}


def build(dims, **settings):
    torch.manual_seed(0)
    return NETWORKS.build({**SMALL, **settings}, feature_dims=dims, output_dim=2, aligned=False).eval()


def some(names):
    dims = {name: DIMS[name] for name in names}
    return dims, make_batch(dims, {name: LENGTHS[name] for name in names})


def test_crossmodal_attention_is_the_papers_by_a_plain_loop():
    torch.manual_seed(0)
    block = CrossAttentionBlock(6, 2, dropout=0.3, attention_dropout=0.3).double().eval()
    x, source = torch.randn(3, 4, 6, dtype=torch.float64), torch.randn(3, 5, 6, dtype=torch.float64)
    lengths = [5, 2, 0]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    found = block(x, source, mask)
    keys, values = block.key_value.weight.chunk(2), block.key_value.bias.chunk(2)
    for row, length in enumerate(lengths):
        normed = [block.attention_norm(step) for step in source[row, :length]]
        for step in range(4):
            own = x[row, step]
            if length:
                query = block.query(block.attention_norm(own))
                heads = []
                for part in (slice(0, 3), slice(3, 6)):
                    scores = [query[part] @ (keys[0] @ s + values[0])[part] / math.sqrt(3) for s in normed]
                    total = sum(score.exp() for score in scores)
                    heads.append(
                        sum(
                            score.exp() / total * (keys[1] @ s + values[1])[part]
                            for score, s in zip(scores, normed, strict=True)
                        )
                    )
                own = own + block.attention_output(torch.cat(heads))
            torch.testing.assert_close(found[row, step], own + block.mlp(own))


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "type"], list(DIMS)], ids=len)
def test_parameters_are_as_many_as_documented(names):
    dims, batch = some(names)
    model = build(dims)
    m, d = len(dims), 4
    w = max(m - 1, 1) * d
    s = m * w
    kernels = sum((1 if name == "a" else 3) * dim for name, dim in dims.items())

    def block(width):
        return 12 * width**2 + 13 * width

    count = d * kernels + m * (m - 1) * (2 * block(d) + 2 * d) + m * (block(w) + 2 * w) + 2 * s * (s + 1) + 2 * (s + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert model(*batch).shape == (4, 2)


@pytest.mark.parametrize("names", [["a"], ["a", "b"], list(DIMS)], ids=len)
def test_padding_and_absence_are_never_a_value(names):
    dims, (features, lengths, present) = some(names)
    model = build(dims)
    present["a"] = present["a"].clone()
    present["a"][0] = False
    expected = model(features, lengths, present)
    assert bool(expected.isfinite().all())
    for name, x in features.items():
        padded = torch.arange(x.shape[1]) >= lengths[name].masked_fill(~present[name], 0)[:, None]
        features[name] = torch.cat([x.masked_fill(padded[..., None], math.nan), torch.full_like(x[:, :2], 1e9)], dim=1)
    torch.testing.assert_close(model(features, lengths, present), expected)
    expected.square().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_an_absent_modality_leaves_what_the_others_give():
    dims, batch = some(["a", "b"])
    model = build(dims)
    alone = select(batch, [1])  # without a
    tokens = model._embed("b", alone[0]["b"], alone[1]["b"])
    for block in model.crossmodal["b"]["a"].blocks:
        tokens = tokens + block.mlp(tokens)  # nothing to attend to
    end = model.memory["b"](model.crossmodal["b"]["a"].norm(tokens), torch.ones(1, 4, dtype=torch.bool))[:, 3]
    fused = torch.cat([torch.zeros(1, 4), end], dim=1)
    torch.testing.assert_close(model(*alone), model.output(fused + model.residual(fused)))


def test_impossible_settings_are_one_sentence():
    with pytest.raises(ConfigurationError, match="width 5 is no multiple of its 2 heads"):
        build(DIMS, width=5)
    with pytest.raises(ConfigurationError, match="unknown modality 'tpye'"):
        build(DIMS, kernel={"tpye": 3, "default": 1})
