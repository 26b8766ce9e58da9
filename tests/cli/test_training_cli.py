"""The training commands, as a user runs them: every shipped configuration, options, results."""

import csv
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from training_runs import fit, metrics

from mfm.cli import main
from mfm.cli.configs import shipped_configs
from mfm.corpora import get_corpus
from mfm.data.readers import read_corpus
from mfm.data.synthetic import write_corpus

CORPORA = ("mosi", "mosei", "sims", "iemocap", "pom", "mmmo", "youtube", "moud")


KINDS = ("mosi", "iemocap", "pom", "youtube")  # one label, several binary ones, several ratings, classes


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


def test_test_scores_equal_scores_computed_from_the_predictions(run):
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


def test_validation_scores_of_the_best_checkpoint_are_those_of_training(run):
    assert main(["validate", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--output", "v.json"]) == 0
    assert metrics("v.json")["val/mae"] == pytest.approx(metrics(run / "metrics_fit.json")["best/val/mae"], abs=1e-6)


def test_missing_modality_is_never_read(run):
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best, "--data.missing", "[text]"]) == 0
    assert "test/reconstruction/text" not in metrics(run / "metrics_test_without_text.json")
    without = metrics(run / "metrics_test_without_text.json")
    assert main(["test", "--ckpt_path", best]) == 0
    assert without["missing"] == "text"
    assert without["test/mae"] != metrics(run / "metrics_test.json")["test/mae"]


@pytest.mark.slow
def test_other_evaluations_leave_the_plain_one_alone(corpus_file, run):
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


def test_store_and_pickle_give_the_same_scores(corpus_file, run):
    assert main(["data", "convert", str(corpus_file), "--output", "store.h5"]) == 0
    best = str(run / "checkpoints/best.ckpt")
    assert main(["test", "--ckpt_path", best, "--output", "a.json"]) == 0
    assert main(["test", "--ckpt_path", best, "--data.path", "store.h5", "--output", "b.json"]) == 0
    assert metrics("a.json")["test/mae"] == metrics("b.json")["test/mae"]


def test_two_runs_with_one_seed_are_equal_and_seeds_differ(corpus_file, finished_run, workplace):
    second, third = fit(corpus_file, run_dir="b"), fit(corpus_file, "--seed_everything", "2", run_dir="c")
    scores = [metrics(run / "metrics_fit.json")["val/mae"] for run in (finished_run, second, third)]
    assert scores[0] == scores[1] != scores[2]


def test_generative_run_without_labels(corpus_file, workplace):
    run = fit(corpus_file, "--data.labels", "false")
    assert "best/val/loss" in metrics(run / "metrics_fit.json")
    assert main(["predict", "--ckpt_path", str(run / "checkpoints/best.ckpt"), "--output", "p.csv"]) == 0
    assert Path("p.csv").read_text().splitlines()[0] == "id,split"  # nothing taught the head anything


@pytest.mark.parametrize("modalities", ["[text]", "[audio, vision]"])
def test_any_subset_of_modalities(modalities, corpus_file, workplace):
    run = fit(corpus_file, "--data.modalities", modalities, "--trainer.max_epochs", "1", config="mosi.yaml")
    assert main(["test", "--ckpt_path", str(run / "checkpoints/best.ckpt")]) == 0


# parts, objective, optimiser and data of other kinds than `demo.yaml` has, as many in one run as go together
OPTIONS = {
    "transformers, cosine": ["--model.encoder", "{name: transformer, layers: 1}", "--model.fusion", "transformer",
                             "--model.optimizer", "{name: adamw, betas: [0.8, 0.9]}",
                             "--model.schedule", "cosine", "--model.warmup_steps", "3"],
    "recurrent, marginals": ["--model.encoder", "gru", "--model.fusion", "concat_lstm", "--model.decoder", "mlp",
                             "--model.mmd_on", "marginals", "--model.kernel", "original", "--model.unbiased", "true"],
    "means, plateau": ["--model.encoder", "mean", "--model.decoder", "teacher_forced", "--model.kernel", "imq",
                       "--model.schedule", "{name: plateau, patience: 1}", "--model.warmup_steps", "0",
                       "--trainer.accumulate_grad_batches", "2"],
    "16 bits, missing": ["--trainer.precision", "bf16-mixed", "--data.missing_rate", "0.3"],
    "one by one": ["--data.bucketing", "false", "--data.normalize", "none", "--data.train_fraction", "0.5",
                   "--data.batch_size", "1"],
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_from_the_command_line(name, corpus_file, workplace):
    run = fit(corpus_file, *OPTIONS[name])
    assert math.isfinite(metrics(run / "metrics_fit.json")["val/loss"])
    assert main(["test", "--ckpt_path", str(run / "checkpoints/last.ckpt")]) == 0
