"""A discriminator as the independence term of the modules."""

import pytest
from affect_batches import make_affect_batch

from mfm.modules import AblationModule, MFMModule

DIMS = {"audio": 2, "text": 3}
GIVEN = {
    "feature_dims": DIMS,
    "corpus": "mosi",
    **{"z_y": 3, "z": {"audio": 2, "text": 4}, "f_y": 4, "f": 3},
    "fusion": {"name": "concat_lstm", "hidden": 4},
    "weight_independence": 0.5,
    "independence": "discriminator",
}


def batch(**options):
    return make_affect_batch(DIMS, rows=8, **options)


def parts(module):
    module.step(batch()).loss.backward()
    return {name.partition("/")[2] for name in module.step(batch()).parts if name.startswith("independence/")}


@pytest.mark.parametrize(
    ("kind", "options", "blocks"),
    [
        (MFMModule, {}, {"audio", "text"}),
        (AblationModule, {"variant": "MFM", "divergence": "kl"}, {"audio", "text"}),
        (AblationModule, {"variant": "M_E", "z_shared": 5}, {"shared"}),
        (AblationModule, {"variant": "M_D"}, set()),
        (AblationModule, {"variant": "M_C"}, set()),
    ],
)
def test_every_module_trains_its_networks_with_the_rest(kind, options, blocks):
    module = kind(**GIVEN, **options).train()
    assert parts(module) == blocks
    own = list(module.objective.parameters())
    assert bool(own) == bool(blocks)
    assert all(parameter.grad is not None for parameter in own)
    assert {id(one) for one in own} <= {id(one) for one in module.parameters()}
    kind(**GIVEN, **options).load_state_dict(module.state_dict())  # checkpoints hold them


def test_what_is_frozen_takes_the_networks_with_it():
    posthoc = MFMModule(**GIVEN, surrogate="posthoc", init_from="x.ckpt")
    head = AblationModule(**GIVEN, stage="discriminate", init_from="x.ckpt")
    for module in (posthoc, head):
        assert not any(parameter.requires_grad for parameter in module.objective.parameters())
