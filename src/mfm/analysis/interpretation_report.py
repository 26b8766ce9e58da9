"""What an interpretation found, as JSON, as a table and as a short text that also says what it does not show."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mfm.analysis.contribution import Contribution
from mfm.analysis.information import InformationRatio
from mfm.analysis.interpretation import Interpretation
from mfm.files import whole_file

_STILL = 0.05  # deviations of the training data; an opinion, said wherever it is used
_LEVEL = 0.05
COLUMNS = ("analysis", "modality", "id", "step", "word", "value", "low", "high", "p_value")


def as_json(found: Interpretation) -> dict[str, Any]:
    """Plain values; the subsets' names are joined with `+`, the empty one is `none`."""
    plain = {
        key: getattr(found, key)
        for key in ("samples", "summary", "spread", "flow", "flow_mean", "flow_samples", "notes")
    }
    plain["information"] = {name: asdict(one) for name, one in found.information.items()}
    plain["segments"] = [asdict(one) for one in found.segments]
    contribution = found.contribution
    plain["contribution"] = contribution and {
        **asdict(contribution),
        "scores": {_joined(one): score for one, score in contribution.scores.items()},
    }
    return plain


def write_table(path: str | Path, found: Interpretation) -> None:
    """Write one row a number as CSV (columns `COLUMNS`), whole or not at all."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for row in _rows(found):
            writer.writerow({key: f"{value:.7g}" if isinstance(value, float) else value for key, value in row.items()})


def _rows(found: Interpretation) -> Iterator[dict[str, Any]]:
    for name, one in found.information.items():
        yield {"analysis": "spread", "modality": name, "value": found.spread[name]}
        yield {"analysis": "ratio", "modality": name, "value": one.ratio, "low": one.low, "high": one.high}
        for analysis, part in (("hsic_shared", one.shared), ("hsic_own", one.own)):
            yield {"analysis": analysis, "modality": name, "value": part.value, "p_value": part.p_value}
            yield {"analysis": f"{analysis}_chance", "modality": name, "value": part.chance}
    for name, flow in found.flow.items():
        for step, value in enumerate(flow):
            yield {"analysis": "gradient_flow_mean", "modality": name, "step": step, "value": value}
    for segment in found.segments:
        for name, flow in segment.flow.items():
            for step, value in enumerate(flow):
                word = segment.words[step] if segment.words else ""
                row = {"analysis": "gradient_flow", "modality": name, "id": segment.id, "step": step, "word": word}
                yield {**row, "value": value}
    if found.contribution:
        for subset, score in found.contribution.scores.items():
            yield {"analysis": found.contribution.metric, "modality": _joined(subset), "value": score}
        for name, value in found.contribution.shapley.items():
            low, high = found.contribution.low[name], found.contribution.high[name]
            yield {"analysis": "shapley", "modality": name, "value": value, "low": low, "high": high}


def in_words(found: Interpretation) -> str:
    """What was found, and what cannot be concluded from it."""
    lines = [
        "What was found",
        *_information_in_words(found),
        *_flow_in_words(found),
        *(_contribution_in_words(found.contribution) if found.contribution else []),
        *(f"* {note}" for note in found.notes),
        "",
        "What cannot be concluded",
        *_limits(found),
    ]
    return "\n".join(lines) + "\n"


def _information_in_words(found: Interpretation) -> Iterator[str]:
    first = next(iter(found.information.values()))
    kernel = "linear kernel" if first.bandwidths is None else "RBF kernel, median heuristic"
    yield f"* Information ratio r = HSIC(F_y; X^) / HSIC(F_a; X^), normalised, {kernel}, in standardised units:"
    for name, one in found.information.items():
        how = "its mean over real steps" if found.summary[name] == "mean" else "its steps as one vector"
        yield (
            f"    {name}: r = {_interval(one.ratio, one.low, one.high)}; F_y {_dependence(one, 'shared')}, F_{name} "
            f"{_dependence(one, 'own')}; {one.samples:,} samples"
        )
        yield f"      X^ is {how}, with a deviation of {found.spread[name]:.2g} over samples"
        yield from (f"      {note}" for note in one.notes)
    yield from _order(found)


def _dependence(one: InformationRatio, which: str) -> str:
    part = one.shared if which == "shared" else one.own
    return f"{part.value:.3f} (chance {part.chance:.3f}, p = {part.p_value:.2g})"


def _order(found: Interpretation) -> Iterator[str]:
    information = found.information
    still = [name for name in information if found.spread[name] < _STILL]
    if still:
        yield (
            f"    The reconstruction of {', '.join(still)} hardly varies (deviation below {_STILL:g}): its decoder "
            "gives little more than a mean, and r says what feeds the little."
        )
    known = sorted(
        (one.ratio, name) for name, one in information.items() if one.ratio == one.ratio and name not in still
    )
    if len(known) > 1:
        (_, second), (_, first) = known[-2:]
        apart = information[first].low > information[second].high
        yield f"    F_y takes part most in rebuilding {first}, relative to the modality's own factor" + (
            f"; its interval lies above that of {second}, the next."
            if apart
            else f", but its interval overlaps that of {second}: the order of the two is open."
        )
    feeble = [name for name, one in information.items() if one.shared.p_value > _LEVEL]
    if feeble:
        yield f"    No dependence on F_y could be shown for {', '.join(feeble)} (p > .05)."


def _flow_in_words(found: Interpretation) -> Iterator[str]:
    yield (
        f"* Gradient flow ||d x^_t / d F_y||^2, mean over real steps of {found.flow_samples:,} samples, squared "
        "standardised units:"
    )
    for name, mean in found.flow_mean.items():
        flow = found.flow[name]
        if not flow:
            continue
        peak = max(range(len(flow)), key=flow.__getitem__)
        yield f"    {name}: {mean:.3g}; largest at step {peak + 1} of {len(flow)} ({flow[peak]:.3g})"


def _contribution_in_words(one: Contribution) -> Iterator[str]:
    scores = {_joined(subset): score for subset, score in one.scores.items()}
    everything = list(scores.values())[-1]
    yield (
        f"* {one.metric} is {everything:.4f} with all modalities and {scores['none']:.4f} for a constant prediction; "
        f"Shapley shares of the improvement, {one.samples:,} samples:"
    )
    for name, value in sorted(one.shapley.items(), key=lambda item: -item[1]):
        yield f"    {name}: {_interval(value, one.low[name], one.high[name], signed=True)}"
    gain = (everything - scores["none"]) * (1 if one.higher_is_better else -1)
    if gain <= 0:
        yield "    The model does no better than a constant: what its factors hold is of little interest."


def _limits(found: Interpretation) -> Iterator[str]:
    yield (
        "* Normalised HSIC stands in for mutual information; it is not in bits, depends on kernel and bandwidth, and "
        "does not say how informative a modality is about the label. It does not see how much X^ varies either: where "
        "the deviation is near 0, nearly nothing is rebuilt, and the ratio is about that."
    )
    yield (
        "* F_y and F_a are made from the same samples and may depend on each other, so that a factor can be dependent "
        "on X^ without the decoder using it; a small p says that they are not independent, not that the effect is big."
    )
    yield ("* Intervals are over samples of this split for this one model; another seed of training may give others.")
    yield (
        "* Gradient flow is the local slope of the decoder, not an effect on the label; it adds up all features of a "
        "step, so that steps can be compared within a modality, and modalities with each other only in shape."
    )
    if found.contribution:
        yield (
            "* Shapley shares show how this model fares when modalities are taken from it, with its own way of "
            "standing in for what is missing; a model trained on fewer modalities could do better with them. Below 0 "
            "the modality does harm on this split."
        )


def _interval(value: float, low: float, high: float, *, signed: bool = False) -> str:
    if value != value:
        return "not defined"
    shown = f"{value:+.3f}" if signed else f"{value:.3f}"
    return shown if low != low else f"{shown} [{low:.3f}, {high:.3f}]"


def _joined(subset: frozenset[str]) -> str:
    return "+".join(sorted(subset)) or "none"
