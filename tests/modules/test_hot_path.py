"""What runs at every step: it never waits for a device, and 16 bits change the numbers little."""

import pytest
import torch
from affect_batches import make_affect_batch

from mfm.data.batch import AffectBatch
from mfm.metrics import metrics_for
from mfm.modules import MFMModule

DIMS = {"a": 2, "b": 3}
SMALL = {"z_y": 5, "z": 4, "f_y": 6, "f": 3, "fusion": {"name": "mfn", "hidden": 5, "gate1_dropout": 0.5}}


def build(**options):
    torch.manual_seed(0)
    return MFMModule(**SMALL, feature_dims=DIMS, corpus="mosi", **options)


def moved(batch, device):
    return AffectBatch(
        *({name: x.to(device) for name, x in part.items()} for part in batch[:3]),
        batch.target.to(device),
        batch.target_mask.to(device),
        batch.ids,
    )


@pytest.mark.parametrize("options", [{}, {"surrogate": "joint"}, {"weight_independence": 1.0}], ids=str)
def test_a_step_of_the_module_reads_no_value(options):
    """On the meta device there are none: `.item()`, `.cpu()`, `nonzero` and `bool(tensor)` raise."""
    module = build(**options).to("meta")
    batch = moved(make_affect_batch(DIMS), "meta")
    loss = module.step(batch).loss
    loss.backward()
    assert loss.device.type == "meta"
    assert module.eval().predict_label(batch).shape == (6, 1)


def test_metrics_of_a_step_read_no_value():
    batch = moved(make_affect_batch(DIMS), "meta")
    metrics = metrics_for(build().corpus).to("meta")
    metrics.update(torch.empty(6, 1, device="meta"), batch.target, batch.target_mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_give_finite_losses_and_nearly_the_same_metrics(dtype):
    module = build().eval()
    module.center_output(torch.tensor([0.7]))
    batch = make_affect_batch(DIMS, rows=64, steps=8)
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=enabled):
            output = module.step(batch)
        metrics = metrics_for(module.corpus)
        metrics.update(output.prediction.float(), batch.target, batch.target_mask)
        found.append({"loss": output.loss, **output.parts, **metrics.compute()})
    exact, rounded = found
    assert torch.isfinite(rounded["loss"])
    for name in ("loss", "prediction", "mmd", "reconstruction/a", "reconstruction/b", "mae"):
        torch.testing.assert_close(rounded[name].double(), exact[name].double(), rtol=0.01, atol=1e-3)
    assert abs(float(rounded["corr"] - exact["corr"])) < 0.02
    for name in ("acc2_has0", "acc7"):  # one sample of 64 may change sides
        assert abs(float(rounded[name] - exact[name])) <= 1.01 / 64
