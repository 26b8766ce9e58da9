"""Section of `costs.py`: operations of a training step, and what an epoch of CMU-MOSEI costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, addmm_flop, baddbmm_flop, register_flop_formula

from cost_measures import HERE, Section, quartiles, shown
from mfm.data.batch import AffectBatch
from mfm.models import MFM
from mfm.modules import MFMModule
from speed import measure

SAMPLES, STEPS = 16326, 50
DIMS = {"text": 768, "audio": 74, "vision": 35}
GPU_TFLOPS, GPU_SHARE, GPU_LAUNCH = 19.5, 0.2, 5e-6
"""An A100's float32 peak, the share of it that such small products are assumed to reach, seconds an operation."""

register_flop_formula(torch.ops.aten.addmm_)(addmm_flop.__wrapped__)
register_flop_formula(torch.ops.aten.baddbmm_)(baddbmm_flop.__wrapped__)


class _Launches(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = function._schema.returns
        self.count += not any(one.alias_info and not one.alias_info.is_write for one in returns)
        return function(*args, **(kwargs or {}))


def module_of(config: str, dims: dict[str, int], corpus: str, **options: Any) -> MFMModule:
    """The module of a shipped configuration."""
    settings = yaml.safe_load((HERE.parent / "configs" / config).read_text())["model"]["init_args"]
    torch.manual_seed(0)
    return MFMModule(**{**settings, **options}, feature_dims=dims, corpus=corpus)


def training_step(module: MFMModule) -> Callable[[AffectBatch], None]:
    """Forward, backward, clipping and Adam, as `mfm fit` does them on a CPU."""
    optimizer = torch.optim.Adam(module.parameter_groups(), lr=module.lr, fused=True)
    module.train()

    def step(batch: AffectBatch) -> None:
        optimizer.zero_grad()
        module.step(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return step


def formula(model: MFM, dims: dict[str, int], batch: int, steps: int) -> int:
    """FLOPs of the matrix products of one training step, all steps real; see `docs/costs.md`."""
    rows, fusion = batch * steps, model.fusion
    products, lstms = 0, 0
    for name, dim in dims.items():
        for width in (model.encoders[name].recurrence.hidden_size, fusion.cells[name].hidden_size):
            lstms += rows * 4 * width * (2 * dim + 3 * width)  # no gradient of X
        decoder = model.decoders[name]
        products += rows * (4 * decoder.cell.hidden_size**2 + decoder.output.weight.numel())
    for part in (fusion.attention1, fusion.attention2, fusion.gate1, fusion.gate2):
        products += rows * (part.first.weight.numel() + part.second.weight.numel())
    return 2 * (lstms + 3 * products)


def mosei(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: FLOPs of a training step with `mosei.yaml`, and an epoch's time measured and estimated."""
    size = 8 if quick else 64
    module = module_of("mosei.yaml", DIMS, "mosei")
    step = training_step(module)
    batch = AffectBatch(
        {name: torch.randn(size, STEPS, dim) for name, dim in DIMS.items()},
        {name: torch.full((size,), STEPS) for name in DIMS},
        {name: torch.ones(size, dtype=torch.bool) for name in DIMS},
        torch.randn(size, 1),
        torch.ones(size, 1, dtype=torch.bool),
        [str(place) for place in range(size)],
    )
    step(batch)
    with FlopCounterMode(display=False) as counted:
        step(batch)
    with _Launches() as launches:
        step(batch)
    times = measure({"step": lambda: step(batch)}, repeats, "cpu")["step"]
    batches, flops = math.ceil(SAMPLES / size), counted.get_total_flops()
    by_formula = formula(module.model, DIMS, size, STEPS)
    here = quartiles(times)[1]
    by_flops = batches * flops / (GPU_TFLOPS * 1e12 * GPU_SHARE)
    by_launches = batches * launches.count * GPU_LAUNCH
    values = {
        "batch": size, "batches": batches, "FLOPs a step": flops, "FLOPs by formula": by_formula,
        "operations a step": launches.count, "ms a step": times, "epoch here, s": here * batches / 1e3,
        "epoch on a GPU by FLOPs, s": by_flops, "epoch on a GPU by operations, s": by_launches,
    }  # fmt: skip
    rows = [
        [f"FLOPs of a training step of {size}, counted", f"{flops / 1e9:.2f} G"],
        ["the same by the formulas of the larger products", f"{by_formula / 1e9:.2f} G"],
        ["operations of a training step, views aside", f"{launches.count:,}"],
        ["ms a step on this machine", shown(times)],
        ["rate on this machine", f"{flops / here / 1e6:.1f} GFLOP/s"],
        [f"an epoch here, {batches} such steps", f"{here * batches / 1e3:.0f} s"],
        ["estimate: an epoch on one GPU by FLOPs", f"{by_flops:.1f} s"],
        ["estimate: an epoch on one GPU by operations", f"{by_launches:.1f} s"],
    ]
    return Section(
        "An epoch of CMU-MOSEI",
        f"`mosei.yaml`, {SAMPLES:,} samples, all {STEPS} steps real (an upper bound: real sentences are shorter), "
        "D 768/74/35, without reading data and without validation. The GPU's rows are estimates and were not measured: "
        f"by FLOPs with {GPU_SHARE:.0%} of an A100's float32 peak of {GPU_TFLOPS} TFLOP/s, by operations with "
        f"{GPU_LAUNCH * 1e6:.0f} us to launch each; the larger of the two counts. On a GPU cuDNN runs the encoders, in "
        "fewer operations.",
        ["", ""],
        rows,
        values,
    )  # fmt: skip
