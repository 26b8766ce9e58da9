"""Sections of `costs.py`: MMD by matrix products, and how a training step grows with each size."""

from __future__ import annotations

import itertools
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cost_measures import Section, exponent, in_child, quartiles, ratios, shown
from mfm.losses import MFMObjective, mmd
from mfm.losses.hsic import normalized_hsic
from mfm.models import MFM
from speed import measure, steps_of

BASE = {"N": 32, "T": 50, "D": 64, "M": 3, "z": 64}
AXES = {
    "N": (16, 32, 64, 128),
    "T": (12, 25, 50, 100),
    "D": (16, 64, 256, 1024),
    "M": (1, 2, 4, 8),
    "z": (16, 32, 64, 128, 256),
}
QUICK = {"N": (32, 64), "T": (10, 20), "D": (64, 128), "M": (1, 2), "z": (32, 64)}
THEORY = {"N": "0 to 1, of MMD 2", "T": "1", "D": "0 to 1", "M": "0 to 1", "z": "0 to 2"}
MEANING = {
    "N": "samples of a batch",
    "T": "steps of a sequence",
    "D": "features of a step",
    "M": "modalities",
    "z": "width of every code, factor and LSTM",
}


class Uniform:
    """MFM of which all modalities and all parts have one size."""

    def __init__(self, sizes: dict[str, int]) -> None:
        z = sizes["z"]
        fusion = {"name": "mfn", "hidden": z, "memory": z, "attention1": z, "attention2": z, "gate1": z, "gate2": z}
        torch.manual_seed(0)
        dims = {f"m{place}": sizes["D"] for place in range(sizes["M"])}
        self.model = MFM(dims, 1, z_y=z, z=z, f_y=z, f=z, fusion=fusion)
        self.objective = MFMObjective("regression")

    def loss(self, batch: Any) -> torch.Tensor:
        """The objective of a batch."""
        output = self.model(batch.features, batch.lengths, batch.present)
        return self.objective(
            output.prediction, batch.target, batch.mask, output.reconstruction, batch.features, batch.lengths,
            batch.present, *output.drawn,
        ).total  # fmt: skip


def uniform_batch(sizes: dict[str, int]) -> Any:
    """Random features of which every step is real."""
    names = [f"m{place}" for place in range(sizes["M"])]
    samples, steps = sizes["N"], sizes["T"]
    target = torch.randn(samples, 1)
    return types.SimpleNamespace(
        features={name: torch.randn(samples, steps, sizes["D"]) for name in names},
        lengths={name: torch.full((samples,), steps) for name in names},
        present={name: torch.ones(samples, dtype=torch.bool) for name in names},
        target=target,
        mask=torch.ones_like(target, dtype=torch.bool),
    )


# ---------------------------------------------------------------------------------------------------------------- MMD


def plain_mmd(z: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """MMD with the kernel `original`, from the N x N x d differences of all pairs."""

    def similarity(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(a[:, None] - b[None]).square().mean(dim=2) / a.shape[1])

    return similarity(z, z).mean() - 2.0 * similarity(z, prior).mean() + similarity(prior, prior).mean()


class _Largest(TorchDispatchMode):
    """Values of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.values = max([self.values, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


def mmd_section(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: MMD and its gradient, by matrix products and pair by pair."""
    rows, dim = (64, 16) if quick else (512, 64)
    torch.manual_seed(0)
    z, prior = torch.randn(rows, dim, requires_grad=True), torch.randn(rows, dim)
    forms: dict[str, Callable[[], torch.Tensor]] = {
        "N x N x d, kernel original": lambda: plain_mmd(z, prior),
        "matrix products, kernel original": lambda: mmd(z, prior, kernel="original"),
        "matrix products, kernel rbf": lambda: mmd(z, prior),
    }
    times = measure({name: lambda form=form: form().backward() for name, form in forms.items()}, repeats, "cpu")
    largest = {}
    for name, form in forms.items():
        with _Largest() as found:
            form().backward()
        largest[name] = found.values
    peaks = in_child("cost_memory.py", json.dumps({"job": "mmd", "rows": rows, "dim": dim}), whole_pages=True)
    plain, original, _ = forms
    peak = {plain: peaks[1], original: peaks[0]}
    speedups = {name: ratios(times[plain], own) for name, own in times.items()}
    agreement = abs(forms[plain]().item() - forms[original]().item())
    cells = [
        [
            name,
            shown(own, ".2f"),
            shown(speedups[name]),
            f"{largest[name]:,}",
            f"{peak[name]:.1f}" if name in peak else "",
        ]
        for name, own in times.items()
    ]
    return Section(
        f"MMD at N = {rows}, d = {dim}",
        f"Value and gradient; both forms of the kernel `original` differ by {agreement:.0e}. The target is 50 times "
        f"the speed of the N x N x d form, and no tensor of its N x N x d = {rows * rows * dim:,} values.",
        ["form", "ms", "times as fast", "values of the largest tensor", "peak memory, MB"],
        cells,
        {"ms": times, "ratio": speedups, "largest": largest, "peak MB": peak, "N x N x d": rows * rows * dim},
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- scaling


def scaling(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: time and memory of a training step against N, T, D, M and z, and of MMD and HSIC against N."""
    axes = QUICK if quick else AXES
    base = {name: values[0] for name, values in QUICK.items()} if quick else BASE
    points = [(axis, value) for axis, values in axes.items() for value in values]
    sizes = [{**base, axis: value} for axis, value in points]
    runs: dict[Any, Callable[[], None]] = {}
    for point, own in zip(points, sizes, strict=True):
        step = steps_of(Uniform(own), uniform_batch(own), "cpu", "fp32", True)  # type: ignore[arg-type]
        runs[point] = step["training"]
    times = measure(runs, repeats, "cpu")
    runs.clear()
    job = json.dumps({"job": "scaling", "sizes": sizes})
    peaks = dict(zip(points, in_child("cost_memory.py", job, whole_pages=True), strict=True))
    cells, values = [], {}
    for axis, own_sizes in axes.items():
        medians = [quartiles(times[axis, value])[1] for value in own_sizes]
        memory = [peaks[axis, value] for value in own_sizes]
        values[axis] = {
            "sizes": own_sizes,
            "ms": {value: times[axis, value] for value in own_sizes},
            "MB": memory,
            "exponents": _exponents(own_sizes, medians, memory),
        }
        cells.append(_row(f"{axis}, {MEANING[axis]}", THEORY[axis], values[axis], medians))
    for name, own in _losses(repeats, quick).items():
        values[name] = own
        cells.append(_row(name, "2", own, [quartiles(own["ms"][value])[1] for value in own["sizes"]]))
    others = ", ".join(f"{axis} = {value}" for axis, value in base.items())
    return Section(
        "How a training step grows",
        f"One size is changed, the others stay at {others}; every step is real. Medians of {repeats} rounds in which "
        "all points take turns. Exponents p of cost = c * size^p are fitted by least squares between logarithms to all "
        "points, and to the last two. Memory is the peak above that of the idle process: parameters, gradients and "
        "Adam's state take part.",
        ["size", "exponent in theory", "points", "ms", "exponent of time (last two)", "MB",
         "exponent of memory (last two)"],
        cells,
        values,
    )  # fmt: skip


def _exponents(sizes: tuple[int, ...], medians: list[float], memory: list[float] | None) -> dict[str, float]:
    found = {"time": exponent(sizes, medians), "time, last two": exponent(sizes[-2:], medians[-2:])}
    if memory:
        found |= {"memory": exponent(sizes, memory), "memory, last two": exponent(sizes[-2:], memory[-2:])}
    return found


def _row(name: str, theory: str, own: dict[str, Any], medians: list[float]) -> list[str]:
    fitted, memory = own["exponents"], own.get("MB")
    return [
        name,
        theory,
        ", ".join(map(str, own["sizes"])),
        ", ".join(f"{value:.3g}" for value in medians),
        f"{fitted['time']:.2f} ({fitted['time, last two']:.2f})",
        ", ".join(f"{value:.0f}" for value in memory) if memory else "",
        f"{fitted['memory']:.2f} ({fitted['memory, last two']:.2f})" if memory else "",
    ]


def _losses(repeats: int, quick: bool) -> dict[str, dict[str, Any]]:
    """Time of MMD and of normalised HSIC, with gradient, against N."""
    sizes, dim = ((32, 64), 16) if quick else ((128, 256, 512, 1024), 64)
    made = {rows: (torch.randn(rows, dim, requires_grad=True), torch.randn(rows, dim)) for rows in sizes}
    forms = {f"N of MMD alone, d = {dim}": mmd, f"N of HSIC alone, d = {dim}": normalized_hsic}
    runs: dict[Any, Callable[[], None]] = {
        (name, rows): lambda form=form, rows=rows: form(*made[rows]).backward()
        for (name, form), rows in itertools.product(forms.items(), sizes)
    }
    times = measure(runs, repeats, "cpu")
    found = {}
    for name in forms:
        medians = [quartiles(times[name, rows])[1] for rows in sizes]
        own = {rows: times[name, rows] for rows in sizes}
        found[name] = {"sizes": sizes, "ms": own, "exponents": _exponents(sizes, medians, None)}
    return found
