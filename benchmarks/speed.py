"""Time of training, evaluation and prediction: fused and reference backends, MMSA 2.2.1's MFM, the matrix products.

    bash benchmarks/mmsa_environment.sh /tmp/mmsa
    python benchmarks/speed.py --mmsa /tmp/mmsa --output benchmarks/results/speed.json

Everything runs side by side in one process, one round of each after the other, and medians of the rounds are compared;
run it on a machine that does nothing else. All models have the sizes and dropouts of `mosi.yaml` (MMSA's for MFM on
MOSI) and the same objective: L1, MSE of each reconstruction, the authors' MMD kernel on the marginals.

* `training`: forward, backward and Adam.
* `evaluation`: forward with all losses, as for validation.
* `prediction`: the label, as `mfm robustness` and a user of the model want it: Q(Z_y | X), G_y and the head. MMSA's
  forward always decodes and computes its losses; so its evaluation stands in both rows.

MMSA always runs all 50 steps; `--lengths words_50.pkl` takes batches of real lengths as the bucketing sampler makes
them, and the other models then run the steps that are real. `gemm` is the time that the matrix products of all 50 steps
take alone, hence a bound for `--lengths full` only; `share` is the part of a step that they are.

`--against FILE` compares ratios (not times) with those of an earlier `--output`, and fails where one fell by more than
`--tolerance`: `make bench`.

`--profile` prints where a step of the fused backend spends its time instead.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import shlex
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch

from mfm.data.readers import read_corpus
from mfm.data.sampling import LengthBucketBatchSampler
from mfm.losses import MFMObjective
from mfm.models import MFM

STEPS = 50
DIMS = {"768/5/20": {"text": 768, "audio": 5, "vision": 20}, "300/74/35": {"text": 300, "audio": 74, "vision": 35}}
HIDDEN = {"text": 128, "audio": 32, "vision": 128}
Z_Y, Z = 80, {"text": 64, "audio": 80, "vision": 80}
F_Y, F = 64, {"text": 32, "audio": 16, "vision": 64}
DROPOUT = {"text": 0.5, "audio": 0.7, "vision": 0.5}
WEIGHTS = {"text": 0.5, "audio": 0.01, "vision": 0.5}
ATTENTION1, ATTENTION2, GATE1, GATE2, MEMORY, WINDOW, MMD = 32, 64, 32, 64, 64, 2, 100.0


class Batch:
    """Random features of given lengths; MMSA sees all of `STEPS`, the others the longest sample's."""

    def __init__(self, dims: dict[str, int], lengths: torch.Tensor, device: str) -> None:
        self.size, steps = len(lengths), int(lengths.max())
        real = (torch.arange(STEPS) < lengths[:, None])[..., None]
        self.padded = {name: (torch.randn(self.size, STEPS, dim) * real).to(device) for name, dim in dims.items()}
        self.features = {name: x[:, :steps].contiguous() for name, x in self.padded.items()}
        self.lengths = dict.fromkeys(dims, lengths.to(device))
        self.present = dict.fromkeys(dims, torch.ones(self.size, dtype=torch.bool, device=device))
        self.target = torch.randn(self.size, 1, device=device)
        self.mask = torch.ones_like(self.target, dtype=torch.bool)


class Ours:
    """MFM of this package."""

    def __init__(self, dims: dict[str, int], backend: str, device: str) -> None:
        torch.manual_seed(0)
        fusion = {
            "name": "mfn", "hidden": HIDDEN, "memory": MEMORY, "window": WINDOW, "attention1": ATTENTION1,
            "attention1_dropout": 0.7, "attention2": ATTENTION2, "gate1": GATE1, "gate2": GATE2, "gate2_dropout": 0.5,
        }  # fmt: skip
        sizes = {"z_y": Z_Y, "z": Z, "f_y": F_Y, "f": F, "dropout_y": 0.5, "dropout": DROPOUT}
        self.model = MFM(dims, 1, **sizes, fusion=fusion, backend=backend).to(device)
        self.objective = MFMObjective(
            "regression", reconstruction=WEIGHTS, mmd=MMD, kernel="original", mmd_on="marginals"
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        """The objective of a batch."""
        output = self.model(batch.features, batch.lengths, batch.present)
        return self.objective(
            output.prediction, batch.target, batch.mask, output.reconstruction, batch.features, batch.lengths,
            batch.present, *output.drawn,
        ).total  # fmt: skip

    def label(self, batch: Batch) -> torch.Tensor:
        """The prediction of a batch."""
        return self.model.infer_label(batch.features, batch.lengths, batch.present)


class Theirs:
    """MMSA's MFM, from the directory that `mmsa_environment.sh` installed it into."""

    def __init__(self, directory: Path, dims: dict[str, int], device: str) -> None:
        package = types.ModuleType("mmsa_models")
        package.__path__ = [str(directory / "MMSA" / "models" / "singleTask")]
        sys.modules["mmsa_models"] = package
        config = json.loads((directory / "MMSA" / "config" / "config_regression.json").read_text())
        settings = dict(config["mfm"]["datasetParams"]["mosi"])
        order = ("text", "audio", "vision")
        settings |= {"feature_dims": [dims[name] for name in order], "device": device, "train_mode": "regression"}
        settings |= {"num_classes": 1, "output_dim": 1}
        torch.manual_seed(0)
        self.model = importlib.import_module("mmsa_models.MFM").MFM(types.SimpleNamespace(**settings)).to(device)
        self.weight = settings["lda_mmd"]

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss that MMSA trains with."""
        prediction, generation, mmd, missing = self.model(*(batch.padded[n] for n in ("text", "audio", "vision")))
        error = torch.nn.functional.l1_loss(prediction.squeeze(1), batch.target.squeeze(1))
        return error + generation + self.weight * mmd + missing

    def label(self, batch: Batch) -> torch.Tensor:
        """The prediction of a batch, which does not come without the rest."""
        return self.model(*(batch.padded[n] for n in ("text", "audio", "vision")))[0]


def steps_of(model: Ours | Theirs, batch: Batch, device: str, dtype: str, fused: bool) -> dict[str, Callable[[], None]]:
    """A training step, one of evaluation and one of prediction."""
    optimizer = torch.optim.Adam(model.model.parameters(), lr=1e-3, weight_decay=1e-3, fused=fused or None)
    precision = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]

    def train() -> None:
        model.model.train()
        optimizer.zero_grad()
        with torch.autocast(device, dtype=precision, enabled=precision is not None):
            loss = model.loss(batch)
        loss.backward()
        optimizer.step()

    def without_gradients(compute: Callable[[Batch], torch.Tensor]) -> None:
        model.model.eval()
        with torch.no_grad(), torch.autocast(device, dtype=precision, enabled=precision is not None):
            compute(batch)

    return {
        "training": train,
        "evaluation": lambda: without_gradients(model.loss),
        "prediction": lambda: without_gradients(model.label),
    }


def products(dims: dict[str, int], batch: int, device: str) -> dict[str, Callable[[], None]]:
    """The matrix products of MFM alone, (rows, inputs, outputs, times, whether the input needs a gradient)."""
    rows, cells = STEPS * batch, WINDOW * sum(HIDDEN.values())
    fusion = [(rows, cells, n, 1, True) for n in (ATTENTION1, ATTENTION2, GATE1 + GATE2)]
    fusion += [(rows, ATTENTION1, cells, 1, True), (rows, ATTENTION2, MEMORY, 1, True)]
    fusion += [(batch, n, m, STEPS, True) for n, m in ((MEMORY, GATE1 + GATE2), (GATE1, MEMORY), (GATE2, MEMORY))]
    rest = []
    for name, dim in dims.items():
        for part, width in ((fusion, HIDDEN[name]), (rest, Z[name])):
            part += [(rows, dim, 4 * width, 1, False), (batch, width, 4 * width, STEPS, True)]
        rest += [(batch, F_Y + F[name], 4 * (F_Y + F[name]), STEPS, True), (rows, F_Y + F[name], dim, 1, True)]
    made = [(torch.randn(m, k, device=device), torch.randn(n, k, device=device), torch.randn(m, n, device=device),
             torch.randn(m * t, k, device=device) if t > 1 else None, torch.randn(m * t, n, device=device), t, needs)
            for m, k, n, t, needs in (*fusion, *rest)]  # fmt: skip

    def forward(count: int = len(made)) -> None:
        for x, w, _, _, _, times, _ in made[:count]:
            for _ in range(times):
                torch.mm(x, w.t())

    def training() -> None:
        forward()
        for x, w, d, whole, d_whole, times, needs in made:
            for _ in range(times if needs else 0):
                torch.mm(d, w)
            torch.mm(d_whole.t(), x if whole is None else whole)

    return {"training": training, "evaluation": forward, "prediction": lambda: forward(len(fusion))}


def measure(runs: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of each run in each round, the runs taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(-2, repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_ >= 0:
                times[name].append(1e3 * (time.perf_counter() - started))
    return times


def length_batches(source: str, size: int, count: int, *, training: bool) -> list[torch.Tensor]:
    """Lengths of batches: all steps real, or some of an epoch of a corpus, bucketed as training batches are by default.

    Evaluation takes the samples in the file's order.
    """
    if source == "full":
        return [torch.full((size,), STEPS)]
    split = read_corpus(source).splits["train"]
    own = torch.stack([torch.as_tensor(one.lengths) for one in split.sequences.values()]).amax(dim=0)
    lengths = own.clamp(min=1, max=STEPS)
    sampler = LengthBucketBatchSampler(batch_size=size, lengths=lengths.tolist(), shuffle=training)
    batches = [lengths[rows] for rows in sampler if len(rows) == size]
    return [batches[round(i * (len(batches) - 1) / max(1, count - 1))] for i in range(min(count, len(batches)))]


def compare(options: argparse.Namespace) -> list[dict[str, object]]:
    """One row a shape, batch size and mode."""
    found = []
    for dims_name in options.dims:
        dims = DIMS[dims_name]
        for size in options.batch:
            models: dict[str, Ours | Theirs] = {b: Ours(dims, b, options.device) for b in ("auto", "reference")}
            if options.mmsa:
                models["mmsa"] = Theirs(options.mmsa, dims, options.device)
            bound = products(dims, size, options.device)
            for mode in ("training", "evaluation", "prediction"):
                lengths = length_batches(options.lengths, size, 8, training=mode == "training")
                batches = [Batch(dims, own, options.device) for own in lengths]
                made = {
                    name: [steps_of(model, batch, options.device, options.dtype, name != "mmsa") for batch in batches]
                    for name, model in models.items()
                }
                runs = {name: lambda own=own, mode=mode: [s[mode]() for s in own] for name, own in made.items()}
                if options.lengths == "full":
                    runs["gemm"] = bound[mode]
                times = measure(runs, options.repeats, options.device)
                row: dict[str, object] = {"dims": dims_name, "batch": size, "mode": mode}
                for name, own in times.items():
                    low, middle, high = statistics.quantiles(own, n=4)
                    row[name] = {
                        "median": middle / len(batches),
                        "quartiles": [low / len(batches), high / len(batches)],
                    }
                others = [name for name in times if name != "auto"]
                auto = statistics.median(times["auto"])
                row["ratio"] = {name: statistics.median(times[name]) / auto for name in others}
                found.append(row)
                line = "  ".join(f"{n} {row[n]['median']:7.1f} ms" for n in times)  # type: ignore[index]
                print(f"{dims_name:10} {size:4} {mode:9} {line}  ratios "
                      + "  ".join(f"{n} {value:.2f}" for n, value in row["ratio"].items()), flush=True)  # type: ignore[attr-defined]  # fmt: skip
    return found


def profiled(options: argparse.Namespace) -> None:
    """Print where one step of each mode spends its time."""
    dims = DIMS[options.dims[0]]
    batch = Batch(dims, length_batches(options.lengths, options.batch[0], 1, training=True)[0], options.device)
    steps = steps_of(Ours(dims, "auto", options.device), batch, options.device, options.dtype, True)
    for mode, run in steps.items():
        for _ in range(3):
            run()
        with torch.profiler.profile() as profile:
            run()
        order = "self_cuda_time_total" if options.device == "cuda" else "self_cpu_time_total"
        print(mode, profile.key_averages().table(sort_by=order, row_limit=25), sep="\n")


def regressions(rows: list[dict[str, object]], stored: list[dict[str, object]], tolerance: float) -> list[str]:
    """What became slower, measured by the matrix products and the reference backend of the same run."""
    shape = ("dims", "batch", "mode")
    before = {tuple(row[key] for key in shape): row["ratio"] for row in stored}
    found = []
    for row in rows:
        key = tuple(row[name] for name in shape)
        for other, ratio in row["ratio"].items():  # type: ignore[attr-defined]
            was = before.get(key, {}).get(other)  # type: ignore[attr-defined]
            if was is not None and ratio < (1 - tolerance) * was:
                found.append(f"{' '.join(map(str, key))}: ratio to {other} {ratio:.2f}, was {was:.2f}")
    return found


def machine(threads: int, device: str = "cpu") -> dict[str, object]:
    """What was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(named, platform.processor()),
        "CPUs": os.cpu_count(),
        "torch": torch.__version__,
        "threads": threads,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    }


def shown_command(arguments: list[str]) -> str:
    """A command line without the folders of the machine it ran on."""
    own = [
        one if not one.startswith(("/", "..")) else f"DATA/{Path(one).name}" if Path(one).is_file() else "DIR"
        for one in arguments[1:]
    ]
    return shlex.join(["python", f"benchmarks/{Path(arguments[0]).name}", *own])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmsa", type=Path, help="directory of mmsa_environment.sh; without, MMSA is left out")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"], help="of autocast")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--dims", nargs="+", choices=DIMS, default=list(DIMS))
    parser.add_argument("--lengths", default="full", help="full, or a file whose training lengths to take")
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--against", type=Path, help="JSON of an earlier run to compare ratios with")
    parser.add_argument("--tolerance", type=float, default=0.2, help="how much a ratio may fall, of 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.profile:
        profiled(options)
        return
    rows = compare(options)
    if options.output:
        record = {
            "date": datetime.date.today().isoformat(),
            "command": shown_command(sys.argv),
            "machine": machine(options.threads, options.device),
            "lengths": "full" if options.lengths == "full" else Path(options.lengths).name,
            "dtype": options.dtype,
            "repeats": options.repeats,
            "rows": rows,
        }
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    if options.against:
        slower = regressions(rows, json.loads(options.against.read_text())["rows"], options.tolerance)
        print("\n".join(slower) or f"no ratio fell by more than {options.tolerance:.0%} of {options.against}")
        sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
