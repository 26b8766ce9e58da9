"""Two images of one digit: are generated images of the right digit, and is style where it belongs?

    python benchmarks/digits.py --seeds 3

Trains `configs/digits.yaml` with each seed (`mfm fit`), then asks of the test split's images an independent classifier
that was trained on real training images only. Splits are the same for all seeds. Runs that are there already are not
trained again. Results go to `benchmarks/results/digits.json` and `.md`, the first seed's figures to `docs/figures`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mfm
from mfm.analysis import generation as g
from mfm.analysis.factorization import Blocks, collect_blocks
from mfm.analysis.image_figures import image_shapes
from mfm.analysis.image_scores import ImageClassifier
from mfm.analysis.probes import PROBES, r2
from mfm.cli.loading import LoadedRun, load_run
from mfm.data.batch import without
from mfm.data.digit_styles import STYLE_FACTORS
from mfm.files import write_json, write_text
from mfm.models.surrogate import infer_codes

HERE = Path(__file__).resolve().parent
PAIRS, STEPS = 1000, 9
CLASSIFIER_SEED = 1000
GOAL = 0.9
SURE = 0.9  # probability from which on the head is sure of what a draw from the prior is


def fit(seed: int, folder: Path, options: list[str]) -> tuple[Path, float]:
    """Train one seed, or find it trained; checkpoint and seconds of CPU time."""
    run = folder / f"seed_{seed}"
    best, clock = run / "checkpoints" / "best.ckpt", folder / f"seed_{seed}.seconds"
    if not clock.is_file():
        command = [sys.executable, "-m", "mfm", "fit", "--config", "digits.yaml", "--seed_everything", str(seed)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*command, "--run_dir", str(run), *options], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        write_text(clock, f"{spent:.1f}\n")
    return best, float(clock.read_text(encoding="utf-8"))


def features_of(run: LoadedRun, shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Modality -> (N, C, H, W) real images of the run's split."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in shapes}
    for batch in run.data.predict_dataloader():
        for name, shape in shapes.items():
            found[name].append(batch.features[name].numpy().reshape(-1, *shape))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def classifiers(checkpoint: Path) -> tuple[dict[str, ImageClassifier], dict[str, float]]:
    """One classifier a modality, trained on the training split's images, and its accuracy on real test images."""
    real = {name: load_run(str(checkpoint), [], split=name, command="digits") for name in ("train", "test")}
    shapes = image_shapes(real["train"].module.model)
    images = {name: features_of(run, shapes) for name, run in real.items()}
    labels = {name: torch.cat([b.target for b in run.data.predict_dataloader()]).numpy() for name, run in real.items()}
    found = {}
    for name in shapes:
        # a plain image occurs once for each of its partners
        unique = np.unique(images["train"][name], axis=0, return_index=True)[1]
        found[name] = ImageClassifier(images["train"][name][unique], labels["train"][unique], 10, seed=CLASSIFIER_SEED)
    return found, {name: one.accuracy(images["test"][name], labels["test"]) for name, one in found.items()}


def read(readers: dict[str, ImageClassifier], run: LoadedRun, recipe: g.Recipe, labels: np.ndarray) -> dict[str, float]:
    """Modality -> share of a recipe's images in which the classifier reads the label."""
    model, shapes = run.module.model, image_shapes(run.module.model)
    made = g.realise(model, run.module.normalizer, recipe)
    images = {name: np.clip(np.stack(made[name]).reshape(-1, *shape), 0.0, 1.0) for name, shape in shapes.items()}
    return {name: readers[name].accuracy(images[name], labels) for name in shapes}


def generated(run: LoadedRun, readers: dict[str, ImageClassifier], seed: int) -> dict[str, dict[str, float]]:
    """Kind of generation -> modality -> digit accuracy, on the test split."""
    module, corpus = run.module, run.data.corpus_record
    encoded = g.encode(module.model, module.surrogate, module.normalizer, run.data.predict_dataloader())
    labels = encoded.target.numpy()
    everyone = torch.arange(len(labels))
    found = {}
    itself = g.Recipe(list(encoded.ids), encoded.codes, encoded.lengths, everyone, everyone)
    found["reconstructed"] = read(readers, run, itself, labels)
    swapped = g.swap(encoded, g.choose_pairs(encoded, PAIRS, seed=seed))
    found["swapped: content's digit"] = read(readers, run, swapped, labels[swapped.content])
    found["swapped: style's digit"] = read(readers, run, swapped, labels[swapped.style])
    drawn = g.draw_prior(encoded, PAIRS, seed)
    of_prior = g.swap(encoded, g.choose_pairs(encoded, PAIRS, seed=seed + 100))
    styled = of_prior._replace(codes=of_prior.codes._replace(z=drawn.codes.z))
    found["style drawn from the prior"] = read(readers, run, styled, labels[of_prior.content])
    said = g.head_on(module.model, drawn.codes)
    found["all drawn from the prior"] = read(readers, run, drawn, said.argmax(dim=1).numpy())
    sure = (said.softmax(dim=1).amax(dim=1) > SURE).nonzero().flatten()
    found["these, where the head is sure"] = read(readers, run, rows_of(drawn, sure), said[sure].argmax(dim=1).numpy())
    found["share of these"] = dict.fromkeys(readers, len(sure) / PAIRS)
    output = g.head_output(corpus, encoded.prediction, 9)
    walk = g.traverse(encoded, output, g.walk_of(encoded, output), g.choose_samples(encoded, 100, seed), STEPS)
    found["Z_y walked towards 9"] = read(readers, run, walk, g.head_on(module.model, walk.codes).argmax(1).numpy())
    ends = rows_of(walk, torch.arange(STEPS - 1, len(walk.ids), STEPS))
    found["Z_y walked to its end"] = read(readers, run, ends, np.full(100, 9))
    for hidden in sorted(readers):
        found[f"{hidden} completed"] = {hidden: completed(run, readers[hidden], hidden)}
        found[f"{hidden} completed in another's style"] = {hidden: completed(run, readers[hidden], hidden, lent=True)}
    return found


def rows_of(recipe: g.Recipe, rows: torch.Tensor) -> g.Recipe:
    """Some samples of a recipe."""
    codes = recipe.codes._replace(z_y=recipe.codes.z_y[rows], z={name: z[rows] for name, z in recipe.codes.z.items()})
    lengths = {name: length[rows] for name, length in recipe.lengths.items()}
    return g.Recipe([recipe.ids[int(row)] for row in rows], codes, lengths, recipe.content[rows], recipe.style[rows])


@torch.inference_mode()
def completed(run: LoadedRun, reader: ImageClassifier, hidden: str, *, lent: bool = False) -> float:
    """Digit accuracy of a modality that the surrogate generated from the others.

    Args:
        run: The run.
        reader: The modality's classifier.
        hidden: The modality.
        lent: Its Z is that of another sample instead of the inferred one, which is the mean of all possible styles.
    """
    module, model = run.module, run.module.model
    shape, right, count = image_shapes(model)[hidden], 0.0, 0
    for batch in run.data.predict_dataloader():
        gone = without(batch, {hidden: torch.ones(len(batch.ids), dtype=torch.bool)})
        features = module.normalizer(gone.features, gone.lengths)
        codes = infer_codes(model, module.surrogate, features, gone.lengths, gone.present)
        if lent:
            whole = model.encode(module.normalizer(batch.features, batch.lengths), batch.lengths, batch.present)
            codes = codes._replace(z={**codes.z, hidden: whole.z[hidden].roll(1, dims=0)})
        made = module.normalizer.inverse(model.decode(model.factorize(codes), {hidden: 1}))[hidden]
        images = made.numpy().reshape(-1, *shape)
        right += reader.accuracy(np.clip(images, 0.0, 1.0), batch.target.numpy()) * len(batch.ids)
        count += len(batch.ids)
    return right / count


def separation(checkpoint: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Block of codes -> what is read -> probe -> R^2 of a factor of style, or share of right digits; on test."""
    runs = {name: load_run(str(checkpoint), [], split=name, command="digits") for name in ("train", "test")}
    blocks: dict[str, Blocks] = {
        name: collect_blocks(lambda batch, run=run: run.module(batch)[0], run.data.predict_dataloader())
        for name, run in runs.items()
    }
    styles = {name: run.data.paired.styles[name] for name, run in runs.items()}
    digits = {name: np.eye(10)[blocks[name].target.astype(int)] for name in runs}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for block in blocks["train"].codes:
        x, new = (blocks[name].codes[block] for name in ("train", "test"))
        table[block] = {name: {} for name in (*STYLE_FACTORS, "digit")}
        for probe, reader in PROBES.items():
            scores, start = r2(styles["test"], reader(x, styles["train"], new, 0)), 0
            for factor, parts in STYLE_FACTORS.items():
                table[block][factor][probe] = float(scores[start : start + len(parts)].mean())
                start += len(parts)
            read = reader(x, digits["train"], new, 0).argmax(axis=1)
            table[block]["digit"][probe] = float((read == blocks["test"].target).mean())
    return table


def draw_figures(checkpoint: Path, folder: Path, target: Path) -> list[str]:
    """The commands whose figures the documentation shows, run on one checkpoint."""
    asked = {
        "digits_swap": ["generate", "--mode", "swap", "--seed", "1"],
        "digits_traverse": ["generate", "--mode", "traverse", "--count", "4", "--steps", "9", "--seed", "1"],
        "digits_prior": ["generate", "--mode", "prior"],
        "digits_completion": ["reconstruct", "--missing", "styled"],
    }
    for name, (command, *options) in asked.items():
        output = ["--ckpt_path", str(checkpoint), *options, "--output", str(folder / f"{name}.h5")]
        subprocess.run([sys.executable, "-m", "mfm", command, *output], check=True, stdout=subprocess.DEVNULL)
        shutil.copyfile(folder / f"{name}.png", target / f"{name}.png")
    return [f"{name}.png: `mfm {shlex.join(words)}`" for name, words in asked.items()]


def spread(values: list[float]) -> str:
    """Mean and sample deviation, or the one value."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def markdown(head: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """The tables."""
    names = sorted(head["classifier"])
    lines = [
        "# Two images of one digit", "", f"`{head['command']}`", "",
        f"{head['date']}; {head['versions']}; {head['machine']}; seeds {', '.join(map(str, head['seeds']))}; mean ± "
        f"deviation over seeds. One training takes {spread([cell['seconds'] for cell in cells])} s of one CPU.", "",
        f"Digit accuracy on the test split ({head['samples']} pairs of images that no training saw), read by a "
        "convolutional classifier that was trained on real training images only, moved, blurred and bleached at "
        "random. The model's own head: "
        f"{spread([cell['head'] for cell in cells])}.", "",
        "| images | " + " | ".join(names) + " |", "|" + "---|" * (1 + len(names)),
        "| real | " + " | ".join(f"{head['classifier'][name]:.3f}" for name in names) + " |",
    ]  # fmt: skip
    for kind in cells[0]["generated"]:
        row = [cell["generated"][kind] for cell in cells]
        lines.append(f"| {kind} | " + " | ".join(spread([one[n] for one in row]) if n in row[0] else "" for n in names)
                     + " |")  # fmt: skip
    lines += ["", "What each block of codes tells: R^2 of the styled image's private factors, share of right digits "
              "(chance .1), by probes fitted on the training split.", ""]  # fmt: skip
    what = [*STYLE_FACTORS, "digit"]
    lines += ["| codes | probe | " + " | ".join(what) + " |", "|" + "---|" * (2 + len(what))]
    for block in cells[0]["separation"]:
        for probe in PROBES:
            row = [spread([cell["separation"][block][one][probe] for cell in cells]) for one in what]
            lines.append(f"| Z_{block} | {probe} | " + " | ".join(row) + " |")
    lines += ["", "Figures (first seed):", "", *(f"- {line}" for line in head["figures"])]
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to N")
    parser.add_argument("--output", type=Path, default=Path("runs/digits_benchmark"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    given, options = parser.parse_known_args()
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    cells, readers, real = [], None, {}
    for seed in range(1, given.seeds + 1):
        best, seconds = fit(seed, given.output, options)
        if readers is None:
            readers, real = classifiers(best)
        run = load_run(str(best), [], split="test", command="digits")
        encoded = g.encode(run.module.model, None, run.module.normalizer, run.data.predict_dataloader())
        head = float((encoded.prediction.argmax(dim=1) == encoded.target).double().mean())
        cell = {"seed": seed, "seconds": seconds, "head": head}
        cells.append({**cell, "generated": generated(run, readers, seed), "separation": separation(best)})
        print(json.dumps(cells[-1]), flush=True)
    first = given.output / "seed_1" / "checkpoints" / "best.ckpt"
    result = {
        "command": shlex.join(["python", "benchmarks/digits.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "seeds": [cell["seed"] for cell in cells],
        "samples": len(encoded.ids),
        "versions": f"mfm {mfm.__version__}, torch {torch.__version__}, python {platform.python_version()}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs (shared with other trainings), no GPU",
        "classifier": real,
        "goal": GOAL,
        "figures": draw_figures(first, given.output, given.figures),
    }
    write_json(given.results / "digits.json", {**result, "cells": cells})
    write_text(given.results / "digits.md", markdown(result, cells))


if __name__ == "__main__":
    main()
