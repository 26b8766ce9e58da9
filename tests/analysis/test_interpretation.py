"""Interpretation as a whole, on a model without modality names of its own and on plain functions."""

import csv
import json
import math

import pytest
import torch

from mfm.analysis.contribution import constant_prediction
from mfm.analysis.figures import save_figure
from mfm.analysis.information import information_ratio
from mfm.analysis.interpretation import Options, interpret, words_of_steps
from mfm.analysis.interpretation_figures import contribution_figure, flow_figure, ratios_figure
from mfm.analysis.interpretation_outputs import collect
from mfm.analysis.interpretation_report import COLUMNS, as_json, in_words, write_table
from mfm.corpora import IEMOCAP, MOSI, YOUTUBE
from mfm.data.batch import AffectBatch
from mfm.errors import ConfigurationError, DataFormatError
from mfm.files import write_json
from mfm.models.mfm import MFM, Factors

NAMES = {"a$b_c$": 3, "smell": 2}


def batches(corpus, names=NAMES, sizes=(7, 6), steps=4, absent=None, seed=0, equal=False):
    generator = torch.Generator().manual_seed(seed)
    for part, count in enumerate(sizes):
        lengths = torch.full((count,), steps) if equal else torch.randint(1, steps + 1, (count,), generator=generator)
        there = {name: torch.ones(count, dtype=torch.bool) for name in names}
        if absent:
            there[absent] &= torch.arange(count) % 2 == 1
        if corpus.task == "multiclass":
            target = torch.randint(len(corpus.classes), (count,), generator=generator)
        elif corpus.task == "regression":
            target = torch.randn(count, len(corpus.targets), generator=generator)
        else:
            target = torch.randint(2, (count, len(corpus.targets)), generator=generator).float()
        features = {name: torch.randn(count, steps, dim, generator=generator) for name, dim in names.items()}
        for x in features.values():
            x.masked_fill_(torch.arange(steps)[:, None] >= lengths[:, None, None], torch.nan)  # padding is no value
        yield AffectBatch(
            features,
            {name: lengths.masked_fill(~there[name], 0) for name in names},
            there,
            target,
            torch.ones_like(target, dtype=torch.bool),
            [f"video$_${part}_{row}" for row in range(count)],
        )


def model(corpus, names=NAMES):
    torch.manual_seed(0)
    return MFM(names, corpus.output_dim, z_y=5, z=4, f_y=6, f=5).eval()


def run(corpus, *, options=None, constant=True, texts=None, names=NAMES, **kwargs):
    network = model(corpus, names)
    first = list(batches(corpus, names, **kwargs))
    target, mask = (torch.cat([getattr(batch, key) for batch in first]) for key in ("target", "target_mask"))
    return interpret(
        lambda batch: network(batch.features, batch.lengths, batch.present),
        network.decode,
        first,
        corpus,
        constant=constant_prediction(corpus, target, mask) if constant else None,
        texts=texts,
        options=options or Options(resamples=20, permutations=19, segments=2),
    )


@pytest.mark.parametrize(
    ("corpus", "names"), [(MOSI, NAMES), (YOUTUBE, {"one": 4}), (IEMOCAP, dict.fromkeys("abcd", 2))]
)
def test_everything_is_written_for_any_modalities(tmp_path, corpus, names):
    metric = None if corpus is not IEMOCAP else "happy/acc"
    found = run(corpus, names=names, options=Options(resamples=20, permutations=19, segments=2, metric=metric))
    assert set(found.information) == set(found.flow) == set(found.contribution.shapley) == set(names)
    assert len(found.contribution.scores) == 2 ** len(names)
    write_json(tmp_path / "all.json", as_json(found))
    assert json.loads((tmp_path / "all.json").read_text())["contribution"]["scores"].keys() >= {"none", *names}
    write_table(tmp_path / "all.csv", found)
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["modality"] for row in rows if row["analysis"] == "ratio"} == set(names)
    for figure in (ratios_figure(found), flow_figure(found), contribution_figure(found)):
        save_figure(figure, tmp_path / "figure.png")
    words = in_words(found)
    assert "What cannot be concluded" in words
    assert all(f"    {name}: " in words for name in names)


def test_numbers_are_those_of_the_parts():
    found = run(MOSI, options=Options(resamples=10, permutations=9, seed=3, summary="mean"))
    network = model(MOSI)
    factors, means, flows = [], [], []
    name = "smell"
    for batch in batches(MOSI):
        output = network(batch.features, batch.lengths, batch.present)
        factors.append(output.factors)
        for row, length in enumerate(batch.lengths[name].tolist()):
            y, i = output.factors.f_y[row : row + 1], output.factors.f[name][row : row + 1]
            means.append(network.decode(Factors(y, {name: i}), {name: length})[name][0].mean(dim=0).detach())
            jacobian = torch.autograd.functional.jacobian(
                lambda y, i=i, length=length: network.decode(Factors(y, {name: i}), {name: length})[name][0], y
            )
            flows.append(jacobian.square().sum(dim=(1, 2, 3)))
    expected = information_ratio(
        torch.cat([one.f_y for one in factors]),
        torch.cat([one.f[name] for one in factors]),
        torch.stack(means),
        resamples=10,
        permutations=9,
        seed=3,
    )
    assert found.information[name].ratio == pytest.approx(expected.ratio, rel=1e-4)
    assert found.spread[name] == pytest.approx(
        torch.stack(means).var(dim=0, correction=0).mean().sqrt().item(), rel=1e-4
    )
    for step, value in enumerate(found.flow[name]):
        mine = [flow[step].item() for flow in flows if len(flow) > step]
        assert value == pytest.approx(sum(mine) / len(mine), rel=1e-4)
    assert found.flow_mean[name] == pytest.approx(torch.cat(flows).mean().item(), rel=1e-4)


def test_flattened_by_default_where_lengths_agree():
    assert set(run(MOSI, equal=True).summary.values()) == {"flatten"}
    assert set(run(MOSI).summary.values()) == {"mean"}
    assert set(run(MOSI, equal=True, options=Options(summary="mean", permutations=5)).summary.values()) == {"mean"}
    network = model(MOSI)
    flat = collect(
        lambda batch: network(batch.features, batch.lengths, batch.present),
        network.decode,
        batches(MOSI, equal=True),
        "auto",
        every_subset=False,
    )
    assert flat.rebuilt["smell"].shape == (13, 4 * 2)
    with pytest.raises(ConfigurationError, match="cannot be flattened"):
        run(MOSI, options=Options(summary="flatten", permutations=5))


def test_absent_modalities_take_no_part():
    found = run(MOSI, absent="smell")
    assert found.information["smell"].samples == 6
    assert found.information["a$b_c$"].samples == 13
    # seed 0 draws its segments among all samples; those without the modality have no flow of it
    few = run(MOSI, absent="smell", sizes=(7,))
    assert "smell" not in few.information
    assert any("3 samples have it" in note for note in few.notes)
    shown = run(MOSI, absent="smell", options=Options(ids=("video$_$0_0", "video$_$0_1"), resamples=5, permutations=5))
    assert [set(one.flow) for one in shown.segments] == [{"a$b_c$"}, {"a$b_c$", "smell"}]


def test_no_segments_is_an_empty_figure(tmp_path):
    found = run(MOSI, options=Options(resamples=0, permutations=1, segments=0))
    assert found.segments == []
    save_figure(flow_figure(found), tmp_path / "flow.png")
    assert math.isnan(found.information["smell"].low)
    save_figure(ratios_figure(found), tmp_path / "ratios.png")
    assert "r = " in in_words(found)


def test_subset_and_seed():
    options = Options(samples=8, resamples=20, permutations=19, segments=1, seed=2)
    found = run(MOSI, options=options)
    assert {one.samples for one in found.information.values()} == {8}
    assert as_json(run(MOSI, options=options)) == as_json(found)


def test_without_labels_there_is_no_contribution():
    found = run(MOSI, constant=False)
    assert found.contribution is None
    assert contribution_figure(found) is None
    assert "left out" in in_words(found)


def test_words_are_shown_only_where_steps_are_words():
    lengths = [torch.tensor([3, 1, 2, 4]), torch.tensor([3, 0, 2, 4])]
    words = words_of_steps(["i am here", "hm", "two words", "too few"], lengths)
    assert words == [("i", "am", "here"), ("hm",), ("two", "words"), None]
    # utterances: a sample with as many words as there are utterances means nothing
    assert words_of_steps(["i am here", "what is this", "a longer thing", "no"], lengths) is None
    assert words_of_steps(None, lengths) is None
    lengths = torch.cat([batch.lengths["smell"] for batch in batches(MOSI)]).tolist()
    found = run(MOSI, texts=[" ".join("word" for _ in range(length)) for length in lengths])
    for segment in found.segments:
        assert len(segment.words) == len(segment.flow["smell"])
        assert math.isfinite(float(segment.outcome["prediction"]))


def test_refusals():
    with pytest.raises(DataFormatError, match="at least 4 samples that have a modality, and there are"):
        run(MOSI, sizes=(3,))
    with pytest.raises(DataFormatError, match="no sample"):
        interpret(model(MOSI), model(MOSI).decode, [], MOSI)
    for options, match in (
        (Options(ids=("video$_$0_9",)), "did you mean"),
        (Options(ids=("?",)), "the first is 'video"),
        (Options(metric="mea"), "did you mean 'mae'"),
        (Options(metric="corr"), "'corr' is not defined for the constant"),
        (Options(summary="meen"), "did you mean 'mean'"),
        (Options(samples=0), "must be at least 1"),
        (Options(samples=2), "at least 4 samples"),
        (Options(kernel="rfb"), "did you mean 'rbf'"),
    ):
        with pytest.raises((ConfigurationError, DataFormatError), match=match):
            run(MOSI, options=options)


def test_constant_factors_are_said():
    network = model(MOSI)

    def forward(batch):
        output = network(batch.features, batch.lengths, batch.present)
        dead = torch.zeros_like(output.factors.f_y)
        return output._replace(factors=output.factors._replace(f_y=dead))

    options = Options(resamples=5, permutations=5, segments=1)
    found = interpret(forward, network.decode, batches(MOSI), MOSI, options=options)
    assert {one.ratio for one in found.information.values()} == {0.0}
    assert "F_y is the same for every sample" in in_words(found)
