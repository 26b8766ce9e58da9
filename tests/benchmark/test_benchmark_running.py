"""Cells that train nothing (`fake_cells.cell`), in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cells import suite

from mfm.benchmark.executors import dask, processes
from mfm.benchmark.isolation import Task, run_isolated
from mfm.benchmark.records import ResultsFile, read_records
from mfm.benchmark.running import Command, Settings, carry_out, chosen_cells, plan
from mfm.errors import ConfigurationError

HERE = Path(__file__).parent
FUNCTION = "fake_cells:cell"


def planned(found, folder, config_hash="h", **settings):
    cells = found.cells()
    commands = {cell: Command(("--a", "b"), config_hash, "mfm fit --a b") for cell in cells}
    return plan(found, cells, Settings(folder, FUNCTION, **settings), commands)


def task(folder, model):
    found = suite(models={model: "m.yaml"}, seeds=[1])
    return planned(found, folder).tasks[0]


def run(found, folder, jobs=2, **settings):
    told = []
    failures = carry_out(
        planned(found, folder, **settings),
        folder,
        processes(jobs, ("numpy", "pytest")),
        lambda *one: told.append(one[:2]),
    )
    return failures, told


# -------------------------------------------------------------------------------------------------- what is to be done
def test_finished_cells_are_kept_failed_ones_too_unless_asked(tmp_path):
    results = ResultsFile(tmp_path)
    first, second = suite().cells()[:2]
    results.append({**first._asdict(), "config_hash": "h", "status": "ok"})
    results.append({**second._asdict(), "config_hash": "h", "status": "failed"})
    todo = planned(suite(), tmp_path)
    assert (todo.kept, todo.failed, len(todo.tasks)) == ((first,), (second,), 2)
    again = planned(suite(), tmp_path, retry=True)
    assert (again.kept, again.failed, len(again.tasks)) == ((first,), (), 3)


def test_a_cell_whose_settings_changed_is_run_again(tmp_path):
    ResultsFile(tmp_path).append({**suite().cells()[0]._asdict(), "config_hash": "other", "status": "ok"})
    assert len(planned(suite(), tmp_path).tasks) == 4


def test_choosing_cells():
    found = suite(corpora={"mosi": "a", "mmmo": "b"})
    assert {cell.model for cell in chosen_cells(found, ["one"], [])} == {"one"}
    assert {cell.corpus for cell in chosen_cells(found, ["one"], [])} == {"mosi", "mmmo"}
    assert [cell.key for cell in chosen_cells(found, ["mmmo", "two"], [7])] == ["mmmo/two/seed_7"]
    with pytest.raises(ConfigurationError, match="--only tow: did you mean 'two'"):
        chosen_cells(found, ["tow"], [])


# ----------------------------------------------------------------------------------------------------------- processes
def test_failures_are_recorded_and_the_others_go_on(tmp_path):
    found = suite(models=dict.fromkeys(["one", "wrong", "bug", "segfault", "exits"], "m.yaml"), seeds=[1])
    failures, told = run(found, tmp_path)
    assert failures == 4
    assert [number for number, _ in told] == [1, 2, 3, 4, 5]
    records = {record["model"]: record for record in read_records(tmp_path)}
    assert records["one"]["status"] == "ok"
    assert records["wrong"]["error"] == "the file is wrong"
    assert records["bug"]["error"] == "ZeroDivisionError: division by zero"
    assert records["segfault"]["signal"] == "SIGSEGV"
    assert "SIGSEGV" in records["segfault"]["error"]
    assert records["exits"]["error"] == "SystemExit: 3"
    assert all(record["seconds"] >= 0 and record["config_hash"] == "h" for record in records.values())
    log = (tmp_path / "runs/mosi/bug/seed_1/log.txt").read_text()
    assert "working on bug" in log
    assert "Traceback" in log
    assert run(found, tmp_path) == (0, [])  # failures of before are kept


def test_a_run_beyond_its_budget_is_killed_and_said_to_be(tmp_path):
    record = run_isolated(replace(task(tmp_path, "slow"), kill_after=0.5))
    assert (record["status"], record["error"]) == ("failed", "killed: it took more than 0.5 s")


def test_what_a_half_done_run_left_is_removed(tmp_path):
    left = tmp_path / "runs/mosi/one/seed_1/checkpoints/last.ckpt"
    left.parent.mkdir(parents=True)
    left.touch()
    assert run_isolated(task(tmp_path, "one"))["status"] == "ok"
    assert not left.exists()


def test_a_process_that_dies_early_does_not_answer_with_an_old_record(tmp_path):
    one = task(tmp_path, "one")
    assert run_isolated(one)["status"] == "ok"
    record = run_isolated(replace(one, lock=str(tmp_path)))  # a folder cannot be locked as a file
    assert record["status"] == "failed"
    assert "ended with status 1" in record["error"]


DRIVER = """\
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_benchmark_running import run, suite
if __name__ == "__main__":
    run(suite(), Path(sys.argv[1]), jobs=2)
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(HERE)))
    folder = tmp_path / "killed"
    environment = {**os.environ, "FAKE_SECONDS": "0.3"}
    process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment)
    results = folder / "results.jsonl"
    deadline = time.monotonic() + 60
    while not (results.is_file() and results.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with results.open("ab") as file:
        file.write(b'{"corpus": "mosi", "mod')
    finished = len(read_records(folder))
    assert 1 <= finished < 4
    _, told = run(suite(), folder)
    assert len(told) == 4 - finished
    found = {(r["model"], r["seed"]): (r["status"], r["metrics"]["test"]["mae"]) for r in read_records(folder)}
    assert found == {(m, s): ("ok", np.random.default_rng(s).random()) for m in ("one", "two") for s in (1, 2)}
    assert len(read_records(folder)) == 4


def test_cells_of_a_killed_suite_end_with_it(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(here=str(HERE)).replace("run(suite()", "run(suite(models={'slow': 'm'})"))
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    log = tmp_path / "runs/mosi/slow/seed_1/log.txt"
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # the lock of a run is held until its process ends: a run that waits for it for less than the minute it sleeps
    begin = time.monotonic()
    assert (
        run_isolated(replace(task(tmp_path, "one"), lock=str(tmp_path / ".locks/mosi-slow-seed_1")))["status"] == "ok"
    )
    assert time.monotonic() - begin < 30


# ---------------------------------------------------------------------------------------------------------------- dask
@pytest.mark.slow
def test_a_lost_worker_costs_nothing(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    found = suite(seeds=[1, 2, 3, 4])
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        execute = dask(2, cluster.scheduler_address)
        folder = tmp_path / "dask"
        victim = next(iter(cluster.workers.values())).pid

        def tell(number, total, record):
            if number == 1:
                os.kill(victim, signal.SIGKILL)

        assert carry_out(planned(found, folder), folder, execute, tell) == 0
    run(found, tmp_path / "pool")
    one, other = (
        {(r["model"], r["seed"]): (r["status"], r["metrics"]) for r in read_records(where)}
        for where in (folder, tmp_path / "pool")
    )
    assert len(one) == 8
    assert one == other


@pytest.mark.slow
def test_no_scheduler_is_one_sentence():
    pytest.importorskip("distributed")
    with pytest.raises(ConfigurationError, match="no scheduler answers at tcp://127"):
        next(dask(1, "tcp://127.0.0.1:1")([]))


def test_a_task_is_plain_values(tmp_path):
    from dataclasses import asdict

    one = task(tmp_path, "one")
    back = json.loads(json.dumps(asdict(one)))
    assert Task(**{**back, "arguments": tuple(back["arguments"])}) == one
