"""Sections of `costs.py`: two processes, waiting for data, and starting the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from cost_epoch import module_of, training_step
from cost_measures import HERE, Section, quartiles, ratios, shown
from mfm.data.readers import read_corpus
from mfm.data.store import write_store
from mfm.data.synthetic import write_corpus
from mfm.datamodules import MOSIDataModule
from speed import DIMS, STEPS, Batch, Ours, measure

WORDS = {"text": 50, "timing": 4}
COUNTS = {"MOSI": (1284, 229, 686), "quick": (96, 16, 16)}


# ------------------------------------------------------------------------------------------------------- two processes


class _Loss(nn.Module):
    """A model whose forward is its objective, as DDP needs it."""

    def __init__(self, seed_of: Ours) -> None:
        super().__init__()
        self.own, self.model = [seed_of], seed_of.model

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.own[0].loss(batch)


def _train(model: nn.Module, batch: Batch) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        model(batch).backward()
        optimizer.step()

    return step


def _process(rank: int, folder: str, repeats: int, steps: int, size: int) -> None:
    """One of two processes; the first writes the milliseconds of each kind of round."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    dims = DIMS["768/5/20"]
    batch = Batch(dims, torch.full((size,), STEPS), "cpu")
    single = _train(_Loss(Ours(dims, "auto", "cpu")), batch)
    parallel = _train(nn.parallel.DistributedDataParallel(_Loss(Ours(dims, "auto", "cpu"))), batch)
    kinds = {"one": (single, rank == 0), "two apart": (single, True), "two by DDP": (parallel, True)}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats + 1):
        for name, (step, takes_part) in kinds.items():
            distributed.barrier()
            started = time.perf_counter()
            for _ in range(steps if takes_part else 0):
                step()
            distributed.barrier()  # a round ends when the slower one has
            times[name].append(1e3 * (time.perf_counter() - started) / steps)
    if rank == 0:
        Path(folder, "times.json").write_text(json.dumps({name: own[1:] for name, own in times.items()}))
    distributed.destroy_process_group()


def ddp(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: two processes under DDP beside one."""
    size, steps = (4, 1) if quick else (32, 3)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_process, (folder, repeats, steps, size), nprocs=2)
        times = json.loads(Path(folder, "times.json").read_text())
    samples = {"one": size, "two apart": 2 * size, "two by DDP": 2 * size}
    rates = {name: [1e3 * samples[name] / ms for ms in own] for name, own in times.items()}
    gains = {name: ratios(own, rates["one"]) for name, own in rates.items()}
    titles = {"one": "one process", "two apart": "two, each for itself", "two by DDP": "two, DDP over gloo"}
    rows = [[titles[n], shown(times[n]), shown(rates[n]), shown(gains[n], ".2f")] for n in titles]
    return Section(
        "Two processes",
        f"Training steps of {size} samples a process, one thread each, D 768/5/20, T = {STEPS}; the three kinds "
        f"take turns in the same two processes. The system shows {os.cpu_count()} CPUs; where they are threads of one "
        "core, two processes cannot do twice the work, and `each for itself` says how much more they do: what DDP "
        "costs is the difference to it.",
        ["", "ms a step", "samples a second", "to one process"],
        rows,
        {"batch": size, "ms": times, "samples a second": rates},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- waiting for data


def _store(folder: Path, name: str, samples: tuple[int, int, int], dims: dict[str, int] | None) -> Path:
    """A generated store of CMU-MOSI's structure."""
    pickle, store = folder / f"{name}.pkl", folder / f"{name}.h5"
    write_corpus("mosi", pickle, samples, dims=dims)
    write_store(read_corpus(pickle), store)
    return store


def loader(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: the share of a training step that waiting for the loader takes."""
    waits: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        words = _store(folder, "words", COUNTS["quick" if quick else "MOSI"], WORDS)
        wide = _store(folder, "wide", (64 if quick else 384, 8, 8), {"text": 768, "audio": 74, "vision": 35})
        made = {
            "MOSI's words, default settings": _epoch(words),
            "MOSI's words, read from the file at every step": _epoch(words, in_memory=False),
            "MOSEI's widths, read from the file at every step": _epoch(wide, in_memory=False),
        }
        for round_ in range(repeats + 1):
            for name, epoch in made.items():
                waited, stepped = epoch()
                if round_:
                    shares.setdefault(name, []).append(100 * sum(waited) / (sum(waited) + sum(stepped)))
                    waits.setdefault(name, []).extend(waited)
                    steps.setdefault(name, []).extend(stepped)
    rows = [[name, shown(waits[name], ".2f"), shown(steps[name]), shown(shares[name], ".2f")] for name in made]
    return Section(
        "Waiting for data",
        "Time that the next batch takes to come, in the process that trains, beside the step that it is for (forward, "
        "backward, clipping, Adam; `mosi.yaml`, batch 64, generated stores); the share is of an epoch. The target is "
        "below 5 % with default settings.",
        ["", "ms to wait", "ms a step", "share, %"],
        rows,
        {"share": shares, "ms to wait": waits, "ms a step": steps},
    )  # fmt: skip


def _epoch(store: Path, **options: Any) -> Callable[[], tuple[list[float], list[float]]]:
    """An epoch of training: milliseconds of waiting and of working for each batch."""
    data = MOSIDataModule(str(store), batch_size=64, **options)
    data.setup("fit")
    module = module_of("mosi.yaml", data.feature_dims, "mosi")
    step = training_step(module)
    batches = data._loader("train", shuffle=True)

    def epoch() -> tuple[list[float], list[float]]:
        waited, stepped = [], []
        started = time.perf_counter()
        for batch in batches:
            came = time.perf_counter()
            step(batch)
            done = time.perf_counter()
            waited.append(1e3 * (came - started))
            stepped.append(1e3 * (done - came))
            started = done
        return waited, stepped

    return epoch


# ------------------------------------------------------------------------------------------------------------ starting


def startup(mmsa: Path | None, repeats: int, quick: bool) -> Section:
    """Section: seconds until the commands answer, and until `mfm fit` has done its first step."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        store = _store(folder, "store", COUNTS["quick"], None)
        mfm = [sys.executable, "-m", "mfm"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "mfm --help": [*mfm, "--help"],
            "mfm data inspect (a small store)": [*mfm, "data", "inspect", str(store)],
        }
        times = measure({name: lambda own=own: _quiet(own) for name, own in commands.items()}, repeats, "cpu")
        seconds = {name: [ms / 1e3 for ms in own] for name, own in times.items()}
        bare = seconds["python -c pass"]
        rows = [
            [name, shown(own, ".2f"), shown([a - b for a, b in zip(own, bare, strict=True)], ".2f")]
            for name, own in seconds.items()
        ]
        first = [_first_step(folder, store, number) for number in range(2 if quick else 3)]
    rows.append(["mfm fit on a store, to the end of the first training step", shown(first, ".1f"), ""])
    return Section(
        "Starting",
        f"{repeats} rounds in turn, after two that do not count; {len(first)} of `mfm fit --config mosi.yaml` on a "
        "generated store. The targets are below 1 s above the bare interpreter, and 10 s to the first step.",
        ["", "s", "above the interpreter, s"],
        rows,
        {**seconds, "first step": first, "medians": {name: quartiles(own)[1] for name, own in seconds.items()}},
    )  # fmt: skip


def _quiet(command: list[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def _first_step(folder: Path, store: Path, number: int) -> float:
    """Seconds from the start of `mfm fit` to the end of its first training step."""
    told = folder / f"first_{number}"
    command = [sys.executable, "-m", "mfm", "fit", "--config", "mosi.yaml", "--data.path", str(store)]
    command += ["--run_dir", str(folder / f"run_{number}"), "--trainer.callbacks", "first_step.FirstStep"]
    command += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    started = time.time()
    _quiet(command, env={**os.environ, "PYTHONPATH": str(HERE), "FIRST_STEP": str(told)}, cwd=folder)
    return float(told.read_text()) - started
