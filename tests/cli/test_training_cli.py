"""The training commands, as a user runs them: every shipped configuration, resuming, results, refusals."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.corpora import get_corpus
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus

CORPORA = ("mosi", "mosei", "sims", "iemocap", "pom", "mmmo", "youtube", "moud")
KINDS = ("mosi", "iemocap", "pom", "youtube")  # one label, several binary ones, several ratings, classes
FAST = ("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu")


def run_mfm(*arguments, cwd, check=True, **environment):
    """`mfm` in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "mfm", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    if check:
        assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def wandb_records(path):
    """Records of an offline run: a LevelDB log (blocks of 32 KiB; parts of CRC, length, kind, bytes) of protobufs."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts = (parts if kind in (3, 4) else b"") + data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    """A small file with the structure of MMSA's MOSI."""
    path = tmp_path_factory.mktemp("data") / "mosi.pkl"
    write_corpus("mosi", path, samples=(24, 12, 13), seed=3)
    return path


def fit(path, *options, config="demo.yaml", run_dir="run"):
    """Fit in this process; returns the run directory."""
    assert main(["fit", "--config", config, "--data.path", str(path), "--run_dir", run_dir, *FAST, *options]) == 0
    return Path(run_dir)


def metrics(path):
    """Read a metrics file."""
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in KINDS else [pytest.mark.slow]) for name in CORPORA]
)
def test_every_corpus_from_file_to_predictions(name, workplace, capsys):
    path = workplace / name
    write_corpus(name, path, samples=(10, 5, 5), seed=1)
    path = next(p for p in (path, path.with_suffix(".pkl")) if p.exists())
    small = [] if name not in ("sims", "mosei") else ["--data.max_lengths", "12"]
    run = fit(path, *small, "--trainer.max_epochs", "1", config=f"{name}.yaml")
    corpus = get_corpus(name)
    assert (run / "config.yaml").is_file()
    last_line = capsys.readouterr().out.strip().splitlines()[-1]
    assert last_line == f"mfm test --ckpt_path {run / 'checkpoints' / 'best.ckpt'}"
    assert main(last_line.split()[1:]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(run / "metrics_test.json")
    scores = metrics(run / "metrics_test.json")
    assert corpus.monitor.replace("val/", "test/") in scores
    assert scores["samples"] == 5
    assert scores["seed"] == 1
    assert (
        main(["predict", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--output", "p.csv", "--factors", "f.h5"])
        == 0
    )
    rows = list(csv.DictReader(Path("p.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == list(read_corpus(path).splits["test"].ids)
    assert {row["split"] for row in rows} == {"test"}
    with h5py.File("f.h5") as file:
        assert file["z/y"].shape[0] == 5
        assert set(file["f"]) == {"y", *read_corpus(path).splits["test"].sequences}


def test_every_shipped_config_is_listed_and_complete(capsys):
    assert main(["configs"]) == 0
    listed = capsys.readouterr().out
    overlays = {"wandb.yaml", "gpu.yaml", "ddp.yaml"}
    for name, path in shipped_configs().items():
        assert name in listed
        content = yaml.safe_load(path.read_text())
        if name not in overlays and "/" not in name and not name.startswith("align-"):
            assert isinstance(content["seed_everything"], int)
            assert {"model", "data", "trainer"} <= set(content)


def test_original_padding_and_later_flags_win(corpus_file, workplace):
    run = fit(corpus_file, "--model.z_y", "7", config="mosi_original.yaml")
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    recorded = yaml.safe_load(checkpoint["mfm_config"])
    assert recorded["model"]["init_args"]["z_y"] == 7
    assert recorded["data"]["init_args"]["padding"] == "original"
    assert Path(recorded["data"]["init_args"]["path"]).is_absolute()


def test_test_scores_equal_scores_computed_from_the_predictions(corpus_file, workplace):
    run = fit(corpus_file)
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best]) == 0
    assert main(["predict", "--ckpt_path", best, "--split", "test"]) == 0
    rows = list(csv.DictReader((run / "predictions.csv").open()))
    target = np.array([float(row["target"]) for row in rows])
    guess = np.array([float(row["prediction"]) for row in rows])
    scores = metrics(run / "metrics_test.json")
    assert scores["test/mae"] == pytest.approx(np.abs(target - guess).mean(), abs=1e-5)
    assert scores["test/acc2_has0"] == pytest.approx(((target >= 0) == (guess >= 0)).mean(), abs=1e-6)
    assert scores["test/corr"] == pytest.approx(np.corrcoef(target, guess)[0, 1], abs=1e-4)
    assert scores["data_fingerprint"]


def test_validation_scores_of_the_best_checkpoint_are_those_of_training(corpus_file, workplace):
    run = fit(corpus_file)
    assert main(["validate", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--output", "v.json"]) == 0
    assert metrics("v.json")["val/mae"] == pytest.approx(metrics(run / "metrics_fit.json")["best/val/mae"], abs=1e-6)


def test_missing_modality_is_never_read(corpus_file, workplace):
    run = fit(corpus_file)
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best, "--data.missing", "[text]"]) == 0
    assert "test/reconstruction/text" not in metrics(run / "metrics_test_without_text.json")
    without = metrics(run / "metrics_test_without_text.json")
    assert main(["test", "--ckpt_path", best]) == 0
    assert without["missing"] == "text"
    assert without["test/mae"] != metrics(run / "metrics_test.json")["test/mae"]


@pytest.mark.slow
def test_other_evaluations_leave_the_plain_one_alone(corpus_file, workplace):
    run = fit(corpus_file)
    best, last = (str(run / "checkpoints" / name) for name in ("best.ckpt", "last.ckpt"))
    assert main(["test", "--ckpt_path", best]) == 0
    plain = (run / "metrics_test.json").read_bytes()
    Path("other.pkl").write_bytes(corpus_file.read_bytes())
    assert main(["test", "--ckpt_path", best, "--data.path", "other.pkl"]) == 0
    assert main(["test", "--ckpt_path", best, "--data.limit", "4"]) == 0
    assert main(["test", "--ckpt_path", last]) == 0
    assert (run / "metrics_test.json").read_bytes() == plain
    names = {path.name for path in run.glob("metrics_test*")}
    assert names == {f"metrics_test{end}.json" for end in ("", "_on_other", "_limit_4", "_last")}


def test_store_and_pickle_give_the_same_scores(corpus_file, workplace):
    assert main(["data", "convert", str(corpus_file), "--output", "store.h5"]) == 0
    run = fit(corpus_file)
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best, "--output", "a.json"]) == 0
    assert main(["test", "--ckpt_path", best, "--data.path", "store.h5", "--output", "b.json"]) == 0
    assert metrics("a.json")["test/mae"] == metrics("b.json")["test/mae"]


def test_two_runs_with_one_seed_are_equal_and_seeds_differ(corpus_file, workplace):
    first, second = fit(corpus_file, run_dir="a"), fit(corpus_file, run_dir="b")
    third = fit(corpus_file, "--seed_everything", "2", run_dir="c")
    scores = [metrics(run / "metrics_fit.json")["val/mae"] for run in (first, second, third)]
    assert scores[0] == scores[1] != scores[2]


def test_generative_run_without_labels(corpus_file, workplace):
    run = fit(corpus_file, "--data.labels", "false")
    assert "best/val/loss" in metrics(run / "metrics_fit.json")
    assert main(["predict", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--output", "p.csv"]) == 0
    assert Path("p.csv").read_text().splitlines()[0] == "id,split"  # nothing taught the head anything


@pytest.mark.parametrize("modalities", ["[text]", "[audio]", "[audio, vision]"])
def test_any_subset_of_modalities(modalities, corpus_file, workplace):
    run = fit(corpus_file, "--data.modalities", modalities, "--trainer.max_epochs", "1", config="mosi.yaml")
    assert main(["test", "--ckpt_path", str(run / "checkpoints/best.ckpt")]) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--model.encoder", "{name: transformer, layers: 1}", "--model.fusion", "transformer"],
        ["--model.encoder", "gru", "--model.fusion", "concat_lstm", "--model.decoder", "mlp"],
        ["--model.encoder", "mean", "--model.decoder", "teacher_forced", "--model.kernel", "imq"],
        ["--model.mmd_on", "marginals", "--model.kernel", "original", "--model.unbiased", "true"],
        [
            "--model.optimizer",
            "{name: adamw, betas: [0.8, 0.9]}",
            "--model.schedule",
            "cosine",
            "--model.warmup_steps",
            "3",
        ],
        [
            "--model.schedule",
            "{name: plateau, patience: 1}",
            "--model.warmup_steps",
            "0",
            "--trainer.accumulate_grad_batches",
            "2",
        ],
        ["--trainer.precision", "bf16-mixed", "--data.missing_rate", "0.3"],
        [
            "--data.bucketing",
            "false",
            "--data.normalize",
            "none",
            "--data.train_fraction",
            "0.5",
            "--data.batch_size",
            "1",
        ],
    ],
)
def test_options_from_the_command_line(options, corpus_file, workplace):
    run = fit(corpus_file, *options)
    assert math.isfinite(metrics(run / "metrics_fit.json")["val/loss"])
    assert main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0


def test_resuming_continues_in_place_and_refuses_another_model(corpus_file, workplace, capsys):
    run = fit(corpus_file)
    last = str(run / "checkpoints/last.ckpt")
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "3"]) == 0
    assert metrics(run / "metrics_fit.json")["epochs"] == 3
    epochs = [row["epoch"] for row in csv.DictReader((run / "metrics.csv").open())]
    assert sorted({int(float(epoch)) for epoch in epochs}) == [0, 1, 2]
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", last, "--model.lr", "0.5"]) == 2
    assert "--model.lr" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(corpus_file, workplace):
    options = (
        "--config",
        "demo.yaml",
        "--data.path",
        corpus_file,
        "--trainer.max_epochs",
        "4",
        "--model.dropout",
        "0.5",
    )
    run_mfm("fit", *options, "--run_dir", "whole", cwd=workplace)
    killed = subprocess.Popen(
        [sys.executable, "-m", "mfm", "fit", *map(str, options), "--run_dir", "cut"],
        cwd=workplace,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = workplace / "cut/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    run_mfm("fit", "--ckpt_path", last, cwd=workplace)
    whole, cut = (metrics(workplace / name / "metrics_fit.json") for name in ("whole", "cut"))
    compared = [key for key in whole if key.startswith(("val/", "train/", "best/", "epochs"))]
    assert len(compared) > 8
    assert {key: whole[key] for key in compared} == {key: cut[key] for key in compared}
    weights = [
        torch.load(workplace / n / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for n in ("whole", "cut")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_run_killed_before_its_reports_gets_them(corpus_file, workplace):
    run = fit(corpus_file)
    before = metrics(run / "metrics_fit.json")
    (run / "metrics_fit.json").unlink()
    (run / "figures/.training_curves.png.abc.part").touch()
    assert main(["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
    after = metrics(run / "metrics_fit.json")
    compared = [key for key in before if "/" in key or key == "epochs"]
    assert {key: after[key] for key in compared} == {key: before[key] for key in compared}
    assert not list(run.rglob(".*.part"))


def test_the_last_epoch_is_kept_even_if_it_is_not_the_best(corpus_file, workplace):
    run = fit(corpus_file, "--model.lr", "1e-12", "--trainer.max_epochs", "3")  # nothing improves after the first
    epochs = {n: torch.load(run / f"checkpoints/{n}.ckpt", weights_only=True)["epoch"] for n in ("best", "last")}
    assert epochs["best"] < epochs["last"] == 2


def test_ctrl_c_ends_with_130_and_leaves_a_checkpoint(corpus_file, workplace):
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mfm", "fit", "--config", "demo.yaml", "--data.path", str(corpus_file)),
            *("--run_dir", "run", "--trainer.max_epochs", "500", "--early_stopping.patience", "null"),
        ],
        cwd=workplace,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    last = workplace / "run/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert "state_dict" in torch.load(last, weights_only=True)


@pytest.mark.slow
def test_two_processes_score_like_one(corpus_file, workplace):
    run = fit(corpus_file)
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best, "--output", "one.json"]) == 0
    two = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu")
    run_mfm("test", "--ckpt_path", best, "--output", "two.json", *two, cwd=workplace)
    one, both = metrics("one.json"), metrics("two.json")
    # MMD is a property of a batch, and two processes cut the batches differently
    scores = [key for key in one if key.startswith("test/") and key not in ("test/loss", "test/mmd")]
    assert len(scores) == 13
    assert both["samples"] == 13
    for key in scores:
        assert both[key] == pytest.approx(one[key], abs=1e-6), key


@pytest.mark.slow
def test_training_on_two_processes(corpus_file, workplace):
    run_mfm(
        *(
            "fit",
            "--config",
            "demo.yaml",
            "--config",
            "ddp.yaml",
            "--data.path",
            corpus_file,
            "--run_dir",
            "run",
            *FAST,
        ),
        cwd=workplace,
    )
    assert (workplace / "run/checkpoints/best.ckpt").is_file()
    run_mfm("test", "--ckpt_path", "run/checkpoints/best.ckpt", "--trainer.devices", "1", cwd=workplace)


@pytest.mark.slow
def test_training_under_torchrun(corpus_file, workplace):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "mfm",
        "fit",
    ]
    command += [
        "--config",
        "demo.yaml",
        "--config",
        "ddp.yaml",
        "--data.path",
        str(corpus_file),
        *FAST,
    ]
    finished = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    (run,) = Path(workplace, "runs/mosi").iterdir()  # one, not one a process
    assert (run / "checkpoints/best.ckpt").is_file()


@pytest.mark.slow
def test_wandb_offline_run_holds_config_metrics_and_figures(corpus_file, workplace):
    pytest.importorskip("wandb")
    fit(corpus_file, "--config", "wandb.yaml")
    config, logged, tags, files = set(), set(), set(), set()
    (log,) = workplace.glob("**/*.wandb")
    for record in wandb_records(log):
        tags |= set(record.run.tags)
        updates = [*record.config.update, *record.run.config.update]
        config |= {item.key or "/".join(item.nested_key) for item in updates}
        logged |= {item.key or "/".join(item.nested_key) for item in record.history.item}
        files |= {file.path for file in record.files.files}
    assert "mosi" in tags
    assert "MFMModule" in tags
    assert any("model" in key for key in config)
    text = " ".join(logged)
    for name in (
        "train/loss",
        "train/prediction",
        "train/mmd",
        "val/mae",
        "val/corr",
        "lr-Adam",
        "figures/training_curves",
    ):
        assert name in text, (name, sorted(logged))
    assert any("validation_predictions" in path for path in files)


@pytest.mark.slow
def test_without_wandb_one_sentence_with_the_pip_line(corpus_file, workplace):
    (workplace / "sitecustomize.py").write_text("import sys\nsys.modules['wandb'] = None\n")
    finished = run_mfm(
        *("fit", "--config", "demo.yaml", "--config", "wandb.yaml", "--data.path", corpus_file, *FAST),
        cwd=workplace,
        check=False,
        PYTHONPATH=str(workplace),
    )
    assert finished.returncode == 1
    assert "pip install" in finished.stderr
    assert "Traceback" not in finished.stderr
