"""Robustness studies of a predictor that is known: what it sees decides what it says."""

import csv
import math

import numpy as np
import pytest
import torch

from mfm.analysis.robustness import (
    DECIBELS,
    RATES,
    SHARES,
    Method,
    RobustnessStudy,
    Row,
    Summary,
    areas,
    summarise,
    write_rows,
)
from mfm.analysis.robustness_figure import robustness_figure
from mfm.data.batch import AffectBatch, draw_absent, without
from mfm.errors import ConfigurationError
from mfm.metrics.conventions import Definition
from mfm.metrics.functional import mae

NAMES = ("audio", "text")
STD = {name: torch.ones(1) for name in NAMES}


def column_mae(preds, target, mask):
    return mae(preds[:, 0], target[:, 0], mask[:, 0])


DEFINITIONS = {"mae": Definition(column_mae, "mean absolute error", higher_is_better=False)}


def batches(sizes=(5, 3), steps=4, seed=0):
    """Targets are the sum of all modalities' means."""
    generator = torch.Generator().manual_seed(seed)
    for rows in sizes:
        features = {name: torch.randn(rows, steps, 1, generator=generator) + 3 for name in NAMES}
        lengths = {name: torch.full((rows,), steps) for name in NAMES}
        present = {name: torch.ones(rows, dtype=torch.bool) for name in NAMES}
        target = sum(x.mean(dim=1) for x in features.values())
        yield AffectBatch(features, lengths, present, target, torch.ones_like(target).bool(), ["x"] * rows)


def total(batch):
    """Sum of the means of what is present; lost steps count as 0."""
    found = torch.zeros(len(batch.ids), 1)
    for name, x in batch.features.items():
        real = torch.arange(x.shape[1]) < batch.lengths[name][:, None]
        mean = torch.nan_to_num(x).masked_fill(~real[..., None], 0).sum(1) / batch.lengths[name].clamp(min=1)[:, None]
        found += mean * batch.present[name][:, None]
    return found


def study(given=None, methods=None, **options):
    return RobustnessStudy(given or batches(), methods or {"own": Method(total)}, DEFINITIONS, STD, **options)


def error_without(name):
    given = list(batches())
    return float(torch.cat([batch.features[name].mean(dim=1) for batch in given]).abs().mean())


def test_subsets_miss_what_they_do_not_observe():
    rows = study(constant=torch.tensor([1.0])).run(["subsets"])
    found = {row.observed: (row.level, row.metrics["mae"]) for row in rows}
    assert found.keys() == {("audio",), ("text",), ("audio", "text"), ()}
    assert found["audio", "text"] == (0.0, pytest.approx(0.0, abs=1e-6))
    assert found[("audio",)] == (0.5, pytest.approx(error_without("text"), rel=1e-5))
    target = torch.cat([batch.target for batch in batches()])
    assert found[()] == (1.0, pytest.approx(float((target - 1).abs().mean()), rel=1e-5))


def test_random_absence_is_what_a_pass_over_the_damaged_batches_gives():
    rows = study().run(["random"], draws=2, seed=7)
    assert {row.level for row in rows} == set(RATES)
    assert {row.observed for row in rows} == {("audio",), ("text",), ()}
    for row in rows:
        rates = {name: row.level for name in NAMES if name not in row.observed}
        generator = torch.Generator().manual_seed(7 * 1_000_003 + 10_007 + row.draw)
        damaged = [without(batch, draw_absent(batch, rates, generator)) for batch in batches()]
        prediction, target = (torch.cat(parts) for parts in zip(*[(total(b), b.target) for b in damaged], strict=True))
        assert row.metrics["mae"] == pytest.approx(float((prediction - target).abs().mean()), abs=1e-6)


def test_passes_over_the_data_are_few():
    calls = []

    def counted(batch):
        calls.append(1)
        return total(batch)

    study(methods={"own": Method(counted)}).run(["subsets", "random"], draws=50)
    assert len(calls) == 3 * 2  # three subsets of two batches


@pytest.mark.parametrize(("protocol", "levels"), [("spans", SHARES), ("steps", SHARES), ("noise", DECIBELS)])
def test_damage_grows_with_the_level_and_repeats_by_seed(protocol, levels):
    one, again, other = (study().run([protocol], draws=2, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    joint = [row for row in one if row.observed == () and row.draw == 0]
    assert [row.level for row in joint] == list(levels)
    assert joint[-1].metrics["mae"] > joint[2].metrics["mae"] > 0
    if protocol != "noise":
        assert joint[0].metrics["mae"] == pytest.approx(0.0, abs=1e-6)


def test_a_protocol_draws_the_same_whichever_others_run():
    alone = study().run(["steps"], draws=1)
    assert [row for row in study().run(["subsets", "noise", "steps"], draws=1) if row.protocol == "steps"] == alone


def test_methods_fill_and_those_that_would_do_the_same_are_scored_once():
    methods = {
        "own": Method(total),
        "zero_fill": Method(total, fill=0.0, lost=0.0),
        "ones": Method(total, fill=1.0, lost=1.0),
        "mean_fill": Method(total, fill=math.nan),
    }
    rows = study(methods=methods).run(["subsets", "spans", "noise"], draws=1)
    of = {(row.method, row.observed): row.metrics["mae"] for row in rows if row.protocol == "subsets"}
    assert of["zero_fill", ("text",)] == of["own", ("text",)] == of["mean_fill", ("text",)]
    assert of["own", ("text",)] - of["ones", ("text",)] == pytest.approx(1.0, abs=1e-5)
    assert {row.method for row in rows if row.protocol == "spans"} == {"own", "zero_fill", "ones"}
    assert {row.method for row in rows if row.protocol == "noise"} == {"own"}


def test_modalities_that_no_sample_has_are_left_out():
    gone = {"audio": torch.ones(5, dtype=torch.bool)}
    found = study([without(batch, gone) for batch in batches((5,))])
    assert found.modalities == ["text"]
    assert {row.observed for row in found.run(["subsets", "random"])} == {("text",), ()}
    with pytest.raises(ConfigurationError, match="nothing observed"):
        found.run(["subsets"], subsets=[("audio",)])


def test_samples_that_never_had_anything_keep_their_prediction():
    gone = {name: torch.tensor([True, False, False, False, False]) for name in NAMES}
    found = study([without(batch, gone) for batch in batches((5,))])
    assert all(math.isfinite(row.metrics["mae"]) for row in found.run(["random"], draws=1))


@pytest.mark.parametrize(("options", "named"), [({"protocols": ["subset"]}, "subsets"), ({"draws": 0}, "at least 1")])
def test_options_that_cannot_be_used(options, named):
    with pytest.raises(ConfigurationError, match=named):
        study().run(**options)


def test_without_labels_there_is_nothing_to_score():
    given = [batch._replace(target_mask=torch.zeros_like(batch.target_mask)) for batch in batches()]
    with pytest.raises(ConfigurationError, match="no sample has a label"):
        study(given)


def curve(protocol, values, observed=(), draw=0):
    return [Row(protocol, observed, level, draw, "own", {"mae": value}) for level, value in values]


def test_areas_are_mean_heights():
    steps = [(0.0, 1.0), (0.1, 2.0), (0.3, 4.0), (0.9, 0.0)]
    rows = [*curve("steps", steps), *curve("steps", [(x, y + 1) for x, y in steps], draw=1)]
    x, y = zip(*steps, strict=True)
    expected = float(np.trapezoid(y, x)) / 0.9
    (found,) = areas(rows)
    assert found["metrics"]["mae"].mean == pytest.approx(expected + 0.5)
    assert found["metrics"]["mae"].low == pytest.approx(expected + 0.025)
    subsets = [*curve("subsets", [(0.5, 1.0)], ("a",)), *curve("subsets", [(0.5, 3.0)], ("b",))]
    (found,) = areas([*subsets, *curve("subsets", [(0.0, 0.0)], ("a", "b"))])
    assert found["metrics"]["mae"].mean == pytest.approx(1.0)  # from 0 to the mean of 1 and 3


def test_summaries_leave_undefined_draws_out():
    assert Summary.of([1.0, math.nan, 3.0]).mean == 2.0
    assert math.isnan(Summary.of([math.nan]).mean)
    (found,) = summarise([*curve("steps", [(0.1, 1.0)]), *curve("steps", [(0.1, 2.0)], draw=1)])
    assert (found["metrics"]["mae"].mean, found["metrics"]["mae"].draws) == (1.5, 2)


def test_table_and_figure(tmp_path):
    rows = study(constant=torch.tensor([1.0])).run(draws=2)
    write_rows(tmp_path / "r.csv", rows)
    found = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert list(found[0]) == ["protocol", "observed", "level", "draw", "method", "mae"]
    assert len(found) == len(rows)
    assert found[2]["observed"] == "audio+text"
    figure = robustness_figure(rows, "mae", "title")
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title().split(":")[0] for axes in panels] == ["subsets", "random", "spans", "steps", "noise"]
    assert all(axes.get_xlabel() and axes.get_ylabel() == "mae" for axes in panels)
    # no legend hides a point, and all that is drawn has an entry
    legends = [axes.get_legend() for axes in figure.axes if not axes.axison and axes.get_legend()]
    assert all(axes.get_legend() is None for axes in panels)
    entries = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert entries == [axes.get_legend_handles_labels()[1] for axes in panels]
