"""What `mfm generate` made: who reads the intended label in it, and what is written of it."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mfm.analysis import generation as g
from mfm.analysis.figures import save_figure
from mfm.analysis.generation_figure import Shown, generation_figure
from mfm.analysis.generation_scores import PriorCheck, agreement, constant_agreement, read_independently
from mfm.cli.image_outputs import generated_images
from mfm.cli.loading import LoadedRun
from mfm.corpora import Corpus
from mfm.data.arrays import ArraySequences
from mfm.data.records import CorpusData, FloatArray, SplitData
from mfm.data.store import write_store
from mfm.files import write_json
from mfm.modules import FactorModule

CONTENTS, SAID = "the content's label", "what the head says of the code"
HEAD, RIDGE, CODE = "own head", "independent ridge", "head on the code"


@dataclass
class Generated:
    """Samples that were generated, and what is known of them.

    Attributes:
        recipe: What was combined.
        sequences: Modality -> sequences in the file's units.
        steps: Positions on each walk or line.
        intended: (P, K) or (P,) labels that the samples should have; (P, 0) where nothing is intended.
        known: Same shape, which are known.
        intended_is: What the intended label is, in words.
        target: Which target is scored; None for all.
        readings: Reader -> (P, K) raw outputs.
        scores: Reader -> what is read -> metric -> value.
        prior: Codes against the prior.
        walk: What was walked.
        notes: What was left out, and why, in sentences.
    """

    recipe: g.Recipe
    sequences: dict[str, list[FloatArray]]
    steps: int
    intended: Tensor
    known: Tensor
    intended_is: str
    target: int | None = None
    readings: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    prior: list[PriorCheck] = field(default_factory=list)
    walk: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """Whether a label is intended."""
        return self.intended.ndim == 1 or self.intended.shape[1] > 0

    def scored(self, corpus: Corpus, values: Tensor) -> Tensor:
        """The columns of outputs or labels that are scored."""
        if self.target is None or corpus.task == "multiclass":
            return values
        return values[:, self.target : self.target + 1]


def outputs_of(corpus: Corpus) -> tuple[str, ...]:
    """Names of the head's outputs."""
    return corpus.classes if corpus.task == "multiclass" else corpus.targets


# ----------------------------------------------------------------------------------------------------------- score
def score(
    run: LoadedRun,
    module: FactorModule,
    encoded: g.Encoded,
    result: Generated,
    encode_split: Callable[[str], g.Encoded],
) -> None:
    """Ask the model's own head and an independent regressor for the intended label.

    Args:
        run: The run.
        module: Its module.
        encoded: The samples that were drawn from.
        result: What was generated; gets `readings`, `scores` and `notes`.
        encode_split: Encodes another split of the same file.
    """
    if not result.labelled:
        result.notes.append("No label is intended, for the model reads none: whether it can be read was not checked.")
        return
    corpus = run.data.corpus_record
    batches = g.as_batches(result.recipe.ids, result.sequences)
    again = g.encode(module.model, module.surrogate, module.normalizer, batches)
    splits = [name for name, split in run.data.corpus_data.splits.items() if len(split)]
    real_from, real = encoded, {}
    if "train" in run.data.predict_splits:  # what the regressor was fitted to is no test of it
        other = next((name for name in ("test", "valid") if name in splits), None)
        real_from = encoded if other is None else encode_split(other)
    if CODE in result.readings:
        result.readings[HEAD], real[HEAD] = again.prediction, real_from.prediction
    read = None
    if "train" in splits:
        read = read_independently(corpus, encode_split("train"), np.concatenate([again.pooled, real_from.pooled]))
    if read is None:
        result.notes.append(
            "No independent reader was fitted: the file has too few labelled training samples to learn from."
        )
    else:
        result.readings[RIDGE], real[RIDGE] = read[: len(again.ids)], read[len(again.ids) :]
    _compare(corpus, result, encoded, real_from, real)
    if result.walk:
        _mean_walk(corpus, result)


def _compare(
    corpus: Corpus, result: Generated, encoded: g.Encoded, real_from: g.Encoded, real: Mapping[str, Tensor]
) -> None:
    def agrees(read: Tensor, label: Tensor, known: Tensor) -> dict[str, float]:
        return agreement(corpus, *(result.scored(corpus, one) for one in (read, label, known)))

    style = result.recipe.style
    styled = result.intended_is == CONTENTS and bool(encoded.mask[style].any())
    known_real = bool(real_from.mask.any())
    for name, readings in result.readings.items():
        found = {"generated": agrees(readings, result.intended, result.known)}
        if styled:
            found["style_label"] = agrees(readings, encoded.target[style], encoded.mask[style])
        if name in real and known_real:
            found["real"] = agrees(real[name], real_from.target, real_from.mask)
        result.scores[name] = found

    def constant(label: Tensor, known: Tensor) -> dict[str, float]:
        return constant_agreement(corpus, result.scored(corpus, label), result.scored(corpus, known))

    result.scores["constant"] = {"generated": constant(result.intended, result.known)}
    if known_real:
        result.scores["constant"]["real"] = constant(real_from.target, real_from.mask)


def _mean_walk(corpus: Corpus, result: Generated) -> None:
    """What each reader says at each position, mean over walks."""
    along = outputs_of(corpus).index(result.walk["along"])
    result.walk["read"] = {
        name: g.head_output(corpus, read, along).reshape(-1, result.steps).mean(dim=0).tolist()
        for name, read in result.readings.items()
    }


# ----------------------------------------------------------------------------------------------------------- write
def write(
    path: Path, run: LoadedRun, module: FactorModule, encoded: g.Encoded, result: Generated, given: argparse.Namespace
) -> None:
    """Write the store, the figure and the scores, each whole or not at all, and print what was found."""
    images = (result.recipe, result.sequences, given.mode, result.steps)
    figure = generated_images(run, module, encoded, *images) or generation_figure(
        run.data.corpus_record,
        {name: read for name, read in result.readings.items() if name in (HEAD, RIDGE)},
        result.intended,
        result.known,
        {name: found["generated"] for name, found in result.scores.items()},
        _shown(run, module, encoded, result, given),
        f"mfm generate --mode {given.mode}: {_counted(len(result.recipe.ids))}",
        result.target or 0,
        style=encoded.target[result.recipe.style] if result.intended_is == CONTENTS else None,
    )
    write_store(_as_corpus(run, result, given), path, overwrite=True, source_fingerprint=run.data.fingerprint)
    save_figure(figure, path.with_suffix(".png"))
    write_json(
        path.with_suffix(".json"),
        {
            "mode": given.mode,
            "samples": len(result.recipe.ids),
            "intended": result.intended_is if result.labelled else None,
            "target": None if result.target is None else run.data.corpus_record.targets[result.target],
            "scores": result.scores,
            "notes": result.notes,
            **({"prior": [check._asdict() for check in result.prior]} if result.prior else {}),
            **({"walk": result.walk} if result.walk else {}),
            "split": given.split,
            "seed": given.seed,
            "checkpoint": str(given.ckpt_path),
            "data": run.data.path,
            "data_fingerprint": run.data.fingerprint,
            "command": os.environ.get("MFM_COMMAND", ""),
        },
    )
    out = Console(file=sys.stdout)
    if result.scores:
        out.print(_table(run.data.corpus_record, result))
    for note in result.notes:
        out.print(note, soft_wrap=True, highlight=False)
    for check in result.prior:
        out.print(_in_words(check), soft_wrap=True, highlight=False)
    for suffix in (".h5", ".png", ".json"):
        out.print(os.path.relpath(path.with_suffix(suffix)), soft_wrap=True, highlight=False)


def _as_corpus(run: LoadedRun, result: Generated, given: argparse.Namespace) -> CorpusData:
    labels = {}
    if result.labelled:
        values = result.intended.double().masked_fill(~result.known, torch.nan).numpy()
        source = next(iter(run.data.corpus_data.splits.values())).labels
        keys = run.data.corpus_record.label_keys
        name = run.data.target or next((key for key in keys if key in source), keys[0])
        labels[name] = values.reshape(len(values), -1)
    dims = run.data.feature_dims
    split = SplitData(
        ids=tuple(result.recipe.ids),
        sequences={name: ArraySequences(x, dim=dims[name]) for name, x in result.sequences.items()},
        labels=labels,
    )
    note = f"generated by mfm generate --mode {given.mode}"
    note += f"; labels are {result.intended_is}" if result.labelled else "; no label is intended"
    return CorpusData(run.data.path, "generated", {"test": split}, run.data.aligned, (note,))


def _counted(samples: int) -> str:
    return f"{samples} sample{'s' * (samples != 1)}"


def _shown(
    run: LoadedRun, module: FactorModule, encoded: g.Encoded, result: Generated, given: argparse.Namespace
) -> list[Shown]:
    """Three samples for the figure: content, style and what came of them; or three that were generated.

    Of several exchanges, the one between the most different labels.
    """

    def standardised(features: Mapping[str, Tensor]) -> dict[str, FloatArray]:
        lengths = {name: torch.tensor([x.shape[0]]) for name, x in features.items()}
        scaled = module.normalizer({name: x[None] for name, x in features.items()}, lengths)
        return {name: x[0].numpy() for name, x in scaled.items()}

    def generated(place: int, title: str) -> Shown:
        parts = {name: torch.from_numpy(x[place]) for name, x in result.sequences.items()}
        return Shown(title, standardised(parts))

    recipe, count = result.recipe, len(result.recipe.ids)
    if given.mode != "swap":
        span = min(count, result.steps) if given.mode != "prior" else min(3, count)
        places = sorted({0, span // 2, span - 1})
        word = "draw" if given.mode == "prior" else "step"
        return [generated(place, f"{word} {place}") for place in places]
    pair = _most_opposite(encoded, recipe, result.target or 0)
    wanted = {int(recipe.content[pair]): "content", int(recipe.style[pair]): "style"}
    shown, start = {}, 0
    for batch in run.data.predict_dataloader():
        for place in [one for one in wanted if start <= one < start + len(batch.ids)]:
            row = place - start
            parts = {
                name: x[row, : int(batch.lengths[name][row]) if batch.present[name][row] else 0]
                for name, x in batch.features.items()
            }
            label = _label_in_words(run.data.corpus_record, encoded, place, result.target or 0)
            shown[wanted[place]] = Shown(f"{wanted[place]} (real{label})", standardised(parts))
        start += len(batch.ids)
    return [shown["content"], shown["style"], generated(pair, "generated from both")]


def _most_opposite(encoded: g.Encoded, recipe: g.Recipe, target: int) -> int:
    """Place of the pair whose labels differ most; the first where no label is known."""

    def column(values: Tensor) -> Tensor:
        return values if values.ndim == 1 else values[:, target]

    label, known = column(encoded.target).float(), column(encoded.mask)
    both = known[recipe.content] & known[recipe.style]
    return int((label[recipe.content] - label[recipe.style]).abs().masked_fill(~both, -1.0).argmax())


def _label_in_words(corpus: Corpus, encoded: g.Encoded, place: int, target: int) -> str:
    where = place if corpus.task == "multiclass" else (place, target)
    if not bool(encoded.mask[where]):
        return ""
    value = float(encoded.target[where])
    if corpus.task == "multiclass":
        return f", {corpus.classes[int(value)]}"
    return f", {corpus.targets[target]} {value:+.1f}" if corpus.task == "regression" else ""


def _table(corpus: Corpus, result: Generated) -> Table:
    metrics = list(next(iter(result.scores.values()))["generated"])
    of = ""
    if len(corpus.targets) > 1:
        mean = f"mean over {len(corpus.targets)} targets"
        of = f", {mean if result.target is None else corpus.targets[result.target]}"
    table = Table(title=f"Intended label ({result.intended_is}{of}) read by", title_justify="left")
    table.add_column("reader")
    columns = {"generated": "generated", "style_label": "style's label", "real": "real"}
    used = [key for key in columns if any(key in found for found in result.scores.values())]
    for key in used:
        for metric in metrics:
            table.add_column(f"{columns[key]}\n{metric}", justify="right")
    for name, found in result.scores.items():
        numbers = [found.get(key, {}).get(metric, math.nan) for key in used for metric in metrics]
        table.add_row(name, *("-" if math.isnan(number) else f"{number:.3f}" for number in numbers))
    return table


def _in_words(check: PriorCheck) -> str:
    said = f"codes {check.block}, {check.samples} samples: "
    if math.isnan(check.p):
        return said + "too few to compare with the prior"
    verdict = "not told apart from N(0, I)" if check.p > 0.05 else "not N(0, I): the prior draws other codes than these"
    numbers = f"MMD^2 {check.mmd:.4f}, p {check.p:.3f}, mean {check.mean:.2f}, deviation {check.deviation:.2f}"
    return f"{said}{numbers}; {verdict}"
