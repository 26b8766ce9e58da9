import csv
import json
import statistics

import numpy as np
import pytest
from fake_cells import finished

from mfm.benchmark.comparison import comparison_tables, read_published
from mfm.benchmark.document import BEGIN, END, with_table
from mfm.benchmark.predictions import write_predicted
from mfm.benchmark.records import ResultsFile
from mfm.benchmark.study import compare_models, read_study
from mfm.benchmark.tables import Table, html_table, latex, markdown
from mfm.cli import main
from mfm.corpora import CORPORA, get_corpus
from mfm.errors import ConfigurationError, DataFormatError
from mfm.files import write_json
from mfm.metrics import describe

FEW = ["--resamples", "20"]


@pytest.fixture
def target():
    return np.random.default_rng(0).uniform(-3, 3, 30).round(1)


@pytest.fixture
def folder(tmp_path, target):
    """Three models of rising error, three seeds each."""
    generator = np.random.default_rng(1)
    models = {
        model: np.stack([target + error * generator.standard_normal(len(target)) for _ in range(3)])
        for model, error in (("bad", 3.0), ("one", 0.8), ("two", 0.9))
    }
    return finished(tmp_path / "suite", models, target)


def test_a_report_in_every_format(folder, target, capsys):
    ResultsFile(folder).append(
        {"corpus": "mosi", "model": "bad", "seed": 4, "status": "failed", "error": "SIGKILL | oom"}
    )
    about = json.loads((folder / "suite.json").read_text())
    write_json(folder / "suite.json", {**about, "models": {**about["models"], "one": "A < B"}})
    assert main(["benchmark", "report", str(folder), *FEW]) == 0
    text = capsys.readouterr().out
    assert "against A &lt; B, both" in (folder / "report" / "report.html").read_text()
    assert "9 runs finished, 1 failed" in text
    assert "| mosi/bad/seed_4 | SIGKILL \\| oom |" in text
    assert f"* `acc2_has0`: {describe(get_corpus('mosi'))['acc2_has0']}" in text
    for name in ("report.md", "report.tex", "report.html", "report.csv", "benchmark_mosi.png"):
        assert (folder / "report" / name).stat().st_size > 100
    rows = list(csv.DictReader((folder / "report" / "report.csv").open()))
    row = next(one for one in rows if (one["model"], one["metric"], one["stage"]) == ("two", "mae", "test"))
    values = [
        record["metrics"]["test"]["mae"]
        for record in map(json.loads, (folder / "results.jsonl").open())
        if record["model"] == "two"
    ]
    assert (int(row["n"]), float(row["mean"])) == (3, pytest.approx(statistics.fmean(values)))
    assert float(row["deviation"]) == pytest.approx(statistics.stdev(values))
    assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    assert float(row["p_holm"]) >= float(row["p"])
    bad = next(one for one in rows if (one["model"], one["metric"], one["stage"]) == ("bad", "mae", "test"))
    assert float(bad["difference_low"]) > 0
    assert float(bad["p_holm"]) == pytest.approx(2 * 2 / 21)


def test_the_best_is_first_and_ranks_are_over_corpora(folder, target, tmp_path):
    other = finished(tmp_path / "other", {"two": np.stack([target, target])}, target, corpus="words")
    study = read_study([folder, other])
    assert study.corpora["mosi"].best_first() == ["one", "two", "bad"]
    assert study.mean_ranks() == {"one": (1.0, 1), "two": (1.5, 2), "bad": (3.0, 1)}


def test_another_reference_and_other_metrics(folder, capsys):
    assert main(["benchmark", "report", str(folder), *FEW, "--reference", "two", "--metrics", "acc2_has0"]) == 0
    assert "less TWO" in capsys.readouterr().out
    assert main(["benchmark", "report", str(folder), "--reference", "tow"]) == 2
    assert "did you mean 'two'" in capsys.readouterr().err
    assert main(["benchmark", "report", str(folder), "--metrics", "mea"]) == 2
    assert "did you mean 'mae'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data_fingerprint": "0" * 64}, "different data .000000000000: late/seed_1; ffffffffffff: bad/seed_1"),
        ({"monitor": "val/corr"}, "selected by different metrics .*late by val/corr"),
    ],
)
def test_what_does_not_belong_together_is_not_mixed(folder, target, changes, says):
    finished(folder, {"late": np.stack([target])}, target, **changes)
    with pytest.raises(DataFormatError, match=says):
        read_study([folder])


def test_one_model_with_two_settings_is_not_mixed(folder, target):
    ResultsFile(folder).append(
        {**json.loads((folder / "results.jsonl").read_text().splitlines()[0]), "config_hash": "x"}
    )
    with pytest.raises(DataFormatError, match="bad on mosi have different settings"):
        read_study([folder])


def test_other_test_samples_are_not_mixed(folder, target):
    finished(folder, {"late": np.stack([target[:20]])}, target[:20])
    with pytest.raises(DataFormatError, match="tested on different samples"):
        read_study([folder]).corpora["mosi"].predictions()


def test_regret_to_a_known_bound(folder, target, capsys):
    mask = np.ones((len(target), 1), dtype=bool)
    ids = [f"v$_${index}" for index in range(len(target))]
    write_predicted(folder / "predictions", "mosi", "bound", target[:, None] + 0.25, target[:, None], mask, ids)
    assert main(["benchmark", "report", str(folder), *FEW]) == 0
    text = capsys.readouterr().out
    assert "has mae 0.250" in text
    study = read_study([folder])
    assert f"{study.corpora['mosi'].mean('one', 'mae') - 0.25:.3f} |" in text


def test_the_bound_of_another_world_is_refused(folder, target):
    mask = np.ones((len(target), 1), dtype=bool)
    ids = [f"v$_${index}" for index in range(len(target))]
    write_predicted(folder / "predictions", "mosi", "bound", target[:, None], target[::-1, None], mask, ids)
    with pytest.raises(DataFormatError, match="bound of mosi is of other samples; remove predictions/mosi/bound"):
        compare_models(read_study([folder]).corpora["mosi"], "mae", None, resamples=2)


def test_an_undefined_score_is_the_worst(folder, target):
    record = json.loads((folder / "results.jsonl").read_text().splitlines()[0])
    metrics = {"test": {"mae": None, "corr": None, "acc2_has0": 0.5}, "val": record["metrics"]["val"]}
    ResultsFile(folder).append({**record, "model": "constant", "config_hash": "c", "metrics": metrics})
    study = read_study([folder])
    assert study.corpora["mosi"].best_first()[-1] == "constant"
    assert study.mean_ranks()["constant"] == (4.0, 1)


# ----------------------------------------------------------------------------------------------------------- documents
def test_a_document_is_written_and_checked(folder, tmp_path, capsys):
    document, readme = tmp_path / "docs/results.md", tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    command = ["benchmark", "report", str(folder), *FEW, "--document", str(document), "--readme", str(readme)]
    assert main([*command, "--check"]) == 1
    assert main(command) == 0
    assert main([*command, "--check"]) == 0
    assert (tmp_path / "docs/figures/benchmark_mosi.png").is_file()
    table = readme.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert readme.read_text().startswith("before\n")
    assert table in document.read_text()
    document.write_text(document.read_text().replace("0.", "0,", 1))
    capsys.readouterr()
    assert main([*command, "--check"]) == 1
    assert "is not what the results say (line" in capsys.readouterr().err


def test_a_readme_that_is_not_there_is_one_sentence(folder, capsys):
    assert main(["benchmark", "report", str(folder), *FEW, "--readme", str(folder / "none.md")]) == 2
    assert "none.md cannot be read" in capsys.readouterr().err


def test_a_text_without_markers_has_no_place():
    with pytest.raises(ConfigurationError, match="no place for the table"):
        with_table(f"{END} {BEGIN}", "t", "README.md")


def test_tables_escape_what_their_format_means():
    table = Table("5 %", ["a_b", "n"], [["x|y & <z>", "1 ± 2"]])
    assert "| x\\|y & <z> | 1 ± 2 |" in markdown(table)
    assert r"x|y \& $<$z$>$ & 1 $\pm$ 2 \\" in latex(table)
    assert r"\caption{5 \%}" in latex(table)
    assert "<td>x|y &amp; &lt;z&gt;</td>" in html_table(table)


# ----------------------------------------------------------------------------------------------------------- published
def test_published_rows_name_metrics_of_their_corpus():
    for row in read_published():
        assert row.corpus in CORPORA
        assert row.metrics.keys() <= describe(get_corpus(row.corpus)).keys(), row
        assert all(0 < mean < 2 for mean, _ in row.metrics.values())
        if row.convention.startswith("y < 0 against y >= 0"):
            assert not any("non0" in name for name in row.metrics)


def test_published_numbers_stand_beside_ours_and_say_where_data_differ(folder, target, capsys):
    here = next(row for row in read_published() if row.sha256 and row.model == "mfm" and "MMSA 2.2.1" in row.source)
    own = finished(
        folder.parent / "same", {"mfm": np.stack([target, target + 1])}, target, data_fingerprint=here.sha256
    )
    (table,) = comparison_tables(read_study([own]), read_published())
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == "MFM"]
    assert rows[0]["source"] == "ours, n = 2"
    assert rows[0]["mae"] == "0.500 ± 0.707"
    assert [row["mae"] for row in rows if row["data"] == "same file"] == ["0.917 ± 0.015"]
    assert sum(row["data"].startswith("OTHER DATA") for row in rows) == 4
    assert main(["benchmark", "compare", str(folder), "--output", str(folder / "c.md")]) == 0
    assert (folder / "c.md").read_text() == capsys.readouterr().out
    assert "same file" not in (folder / "c.md").read_text()
