"""Peak memory in a process of its own; `costs.py` starts it and reads the JSON that it prints.

python benchmarks/cost_memory.py '{"job": "model", "dims": "768/5/20", "batch": 128, "steps": 3, "mmsa": null}'
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from cost_measures import Section, in_child, peak_growth, quartiles, shown
from cost_scaling import Uniform, plain_mmd, uniform_batch
from mfm.losses import mmd
from speed import DIMS, STEPS, Batch, Ours, Theirs, steps_of


def _model(job: dict[str, Any]) -> float:
    """Training steps of our model or, with `mmsa`, of theirs; the batch is there before."""
    dims = DIMS[job["dims"]]
    batch = Batch(dims, torch.full((job["batch"],), STEPS), "cpu")
    _load_torch(fused=not job["mmsa"])

    def work() -> object:
        if job["mmsa"]:
            model: Ours | Theirs = Theirs(Path(job["mmsa"]), dims, "cpu")
        else:
            model = Ours(dims, job["backend"], "cpu")
        step = steps_of(model, batch, "cpu", "fp32", not job["mmsa"])["training"]
        for _ in range(job["steps"]):
            step()
        return model

    return peak_growth(work)


def _load_torch(*, fused: bool) -> None:
    """What torch loads when it is first used, by a step of something small."""
    small = torch.nn.Linear(8, 8)
    optimizer = torch.optim.Adam(small.parameters(), fused=fused or None)
    torch.nn.functional.l1_loss(small(torch.randn(8, 8)).relu(), torch.randn(8, 8)).backward()
    optimizer.step()


def _scaling(job: dict[str, Any]) -> list[float]:
    """Two training steps of each of several sizes, one after the other."""

    def work(sizes: dict[str, int]) -> object:
        model = Uniform(sizes)
        step = steps_of(model, uniform_batch(sizes), "cpu", "fp32", True)["training"]  # type: ignore[arg-type]
        step()
        step()
        return model

    work(job["sizes"][0])  # what torch itself needs when it runs for the first time
    return [peak_growth(lambda sizes=sizes: work(sizes)) for sizes in job["sizes"]]


def _mmd(job: dict[str, Any]) -> list[float]:
    """MMD and its gradient, by matrix products and pair by pair."""
    z, prior = torch.randn(job["rows"], job["dim"], requires_grad=True), torch.randn(job["rows"], job["dim"])
    z.grad = torch.zeros_like(z)
    mmd(z[:8], prior[:8], kernel="original").backward()
    plain_mmd(z[:8], prior[:8]).backward()
    return [
        peak_growth(lambda: mmd(z, prior, kernel="original").backward()),
        peak_growth(lambda: plain_mmd(z, prior).backward()),
    ]


def memory(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: peak memory of training, ours, the reference backend and MMSA's MFM taking turns."""
    names = ["auto", "reference", *(["mmsa"] if mmsa else [])]
    size, steps = (16, 1) if quick else (128, 3)
    found: dict[str, dict[str, list[float]]] = {dims: {name: [] for name in names} for dims in DIMS}
    for _ in range(repeats):
        for dims, own in found.items():
            for name in names:
                job = {"job": "model", "dims": dims, "batch": size, "steps": steps, "backend": name}
                job["mmsa"] = str(mmsa) if name == "mmsa" else None
                own[name].append(in_child("cost_memory.py", json.dumps(job)))
    rows = []
    for dims, own in found.items():
        ratio = quartiles(own["auto"])[1] / quartiles(own["mmsa"])[1] if mmsa else None
        rows.append([dims, *(shown(own[name], ".0f") for name in names), *([f"{ratio:.2f}"] if ratio else [])])
    return Section(
        "Peak memory of training",
        f"MB by which a process grew over {steps} training steps, model and optimiser included, batch {size}, "
        f"T = {STEPS}; a process each, in turn; sizes of `mosi.yaml`. What torch loads for its first product "
        "and its first optimiser is not counted. The target is a ratio of at most 0.8.",
        ["text/audio/vision D", *({"auto": "fused", "reference": "reference", "mmsa": "MMSA"}[n] for n in names),
         *(["fused / MMSA"] if mmsa else [])],
        rows,
        {"batch": size, "steps": steps, "MB": found},
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    job = json.loads(sys.argv[1])
    print(json.dumps({"model": _model, "scaling": _scaling, "mmd": _mmd}[job["job"]](job)))
