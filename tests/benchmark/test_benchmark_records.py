import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfm.benchmark.records import ResultsFile, exclusive, newest, read_records
from mfm.errors import ConfigurationError, DataFormatError

RECORD = {"corpus": "c", "model": "m", "seed": 1, "status": "ok"}


def test_a_line_a_record_and_nan_is_null(tmp_path):
    results = ResultsFile(tmp_path)
    results.append({**RECORD, "metrics": {"mae": float("nan")}})
    results.append({**RECORD, "seed": 2})
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [1, 2]
    assert json.loads(lines[0])["metrics"]["mae"] is None


@settings(max_examples=20)
@given(st.data())
def test_a_torn_last_line_is_dropped_wherever_it_is_torn(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("torn")
    results = ResultsFile(folder)
    for seed in (1, 2, 3):
        results.append({**RECORD, "seed": seed, "error": "é"})
    path = folder / "results.jsonl"
    whole = path.read_bytes()
    kept = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:kept])
    expected = [json.loads(line) for line in whole[:kept].split(b"\n")[:-1]]
    assert read_records(folder) == expected
    again = ResultsFile(folder)
    again.append({**RECORD, "seed": 9})
    assert [one["seed"] for one in read_records(folder)] == [*(one["seed"] for one in expected), 9]


def test_a_damaged_line_within_is_told(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(RECORD) + "\n{]\n" + json.dumps(RECORD) + "\n")
    with pytest.raises(DataFormatError, match="line 2 is no record"):
        read_records(tmp_path)


def test_no_results_say_who_writes_them(tmp_path):
    with pytest.raises(DataFormatError, match="mfm benchmark run"):
        read_records(tmp_path)


def test_the_last_record_of_a_cell_counts():
    found = newest([{**RECORD, "status": "failed"}, {**RECORD, "seed": 2}, RECORD])
    assert found == {("c", "m", 1): RECORD, ("c", "m", 2): {**RECORD, "seed": 2}}


def test_one_run_at_a_time_holds_a_folder(tmp_path):
    with exclusive(tmp_path), pytest.raises(ConfigurationError, match="in use by another"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"), exclusive(tmp_path / "file"):
        pass
