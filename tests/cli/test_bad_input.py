"""What bad input gets: one sentence that names the thing, status 1 or 2, no traceback, nothing half-written."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mfm.cli import main
from mfm.data.synthetic import write_corpus
from mfm.data.unpickle import read_pickle

FAST = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu")
pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A file that trains, as plain dictionaries of arrays that may be changed."""
    path = tmp_path_factory.mktemp("good") / "mosi.pkl"
    write_corpus("mosi", path, samples=(12, 6, 6), seed=5)
    return path


@pytest.fixture
def trained(finished_run):
    """A checkpoint of a model of files like the good one."""
    return finished_run / "checkpoints/best.ckpt"


def content(path):
    """A pickle's content with arrays that may be written to."""

    def own(value):
        if isinstance(value, dict):
            return {key: own(item) for key, item in value.items()}
        if isinstance(value, list):
            return [own(item) for item in value]
        return np.array(value) if isinstance(value, np.ndarray) else value

    return own(read_pickle(path))


def refused(capsys, arguments, *words, status=(1, 2)):
    """Run a command that must be refused in one sentence with these words."""
    capsys.readouterr()
    before = sorted(str(p) for p in Path().rglob("*"))
    assert main([str(a) for a in arguments]) in status
    error = capsys.readouterr().err
    assert "Traceback" not in error
    notes = ("Warning", "left out of the statistics")
    lines = [line for line in error.strip().splitlines() if line.strip() and not any(note in line for note in notes)]
    assert len(lines) == 1, lines
    for word in words:
        assert str(word) in lines[0], lines[0]
    left = [p for p in sorted(str(p) for p in Path().rglob("*")) if p not in before and Path(p).is_file()]
    assert not [p for p in left if p.endswith((".part", ".ckpt", ".csv", ".json", ".h5"))], left


def fit_on(path, *options):
    """A fit command on a file."""
    return ["fit", "--config", "demo.yaml", "--data.path", path, *FAST, *options]


def changed(good, change):
    """Write the good file with a change; returns its path."""
    data = content(good)
    data = change(data) or data
    Path("bad.pkl").write_bytes(pickle.dumps(data, protocol=4))
    return "bad.pkl"


# ------------------------------------------------------------------------------------------------ files


def test_missing_file_says_what_it_is_and_how_to_get_it(capsys):
    refused(capsys, fit_on("nowhere.pkl"), "nowhere.pkl", "CMU-MOSI", "d3994fd25681", "MMSA")


def test_directory_empty_and_truncated_files(good, capsys):
    Path("folder").mkdir()
    refused(capsys, fit_on("folder"), "folder")
    Path("empty.pkl").touch()
    refused(capsys, fit_on("empty.pkl"), "empty.pkl", "empty")
    Path("cut.pkl").write_bytes(good.read_bytes()[:-5000])
    refused(capsys, fit_on("cut.pkl"), "cut.pkl")
    refused(capsys, ["data", "inspect", "cut.pkl"], "cut.pkl")
    refused(capsys, ["data", "convert", "cut.pkl", "--output", "x.h5"], "cut.pkl")


class _Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def test_a_pickle_that_would_run_something(capsys):
    import functools

    marker = Path("executed")
    attacks = {
        "system": _Calls(os.system, f"touch {marker}"),
        "eval": _Calls(eval, f"open({str(marker)!r}, 'w')"),
        "getattr": _Calls(getattr, "x", "upper"),
        "partial": _Calls(functools.partial, print),
        "load": _Calls(np.load, "x.npy"),
        "fromfile": _Calls(np.fromfile, "x.npy"),
    }
    for word, attack in attacks.items():
        Path("evil.pkl").write_bytes(pickle.dumps({"train": attack}))
        refused(capsys, fit_on("evil.pkl"), word)
        assert not marker.exists()


# ------------------------------------------------------------------------------------------------ content


def _drop_split(data):
    del data["valid"]


def _drop_modality(data):
    for split in data.values():
        del split["audio"]


def _unequal(data):
    data["train"]["audio"] = np.asarray(data["train"]["audio"])[:-1]


def _label_shape(data):
    data["train"]["regression_labels"] = np.zeros((12, 2, 2))


def _label_nan(data):
    data["train"]["regression_labels"] = np.full(12, np.nan)


def _nan_feature(data):
    audio = np.array(data["train"]["audio"], dtype=np.float32)
    audio[..., 3] = np.nan
    data["train"]["audio"] = audio


def _empty_split(data):
    data["valid"] = {
        key: value if isinstance(value, dict) else np.asarray(value)[:0] for key, value in data["valid"].items()
    }


def _doubled(data):
    ids = list(data["train"]["id"])
    ids[1] = ids[0]
    data["train"]["id"] = ids


def _leaked(data):
    ids = list(data["test"]["id"])
    ids[0] = next(iter(data["train"]["id"]))
    data["test"]["id"] = ids


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: [1, 2, 3], ["list"]),
        (_drop_split, ["valid"]),
        (_drop_modality, ["audio"]),
        (_unequal, ["audio", "11", "12"]),
        (_label_shape, ["regression_labels"]),
        (_label_nan, ["label"]),
        (_nan_feature, ["audio", "3"]),
        (_empty_split, ["valid"]),
        (_doubled, ["train"]),
        (_leaked, ["test"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_content_that_cannot_be_trained_on(change, words, good, capsys):
    path = changed(good, change)
    options = ["--data.modalities", "[text, audio]"] if change is _drop_modality else []
    refused(capsys, fit_on(path, *options), *words)


def test_class_out_of_range(capsys):
    import h5py

    write_corpus("youtube", "youtube", samples=(8, 4, 4), seed=0)
    with h5py.File("youtube/y_train.h5", "a") as file:
        del file["d1"]
        file["d1"] = np.full((8,), 7.0)
    refused(capsys, ["fit", "--config", "youtube.yaml", "--data.path", "youtube", *FAST], "7", "youtube")


def test_odd_but_usable_sizes(good):
    """A batch of one, sequences of length 0 and 1, and T over 1,000 train."""

    def odd(data):
        for split in data.values():
            for name in ("text", "audio", "vision"):
                value = np.nan_to_num(np.array(split[name], dtype=np.float32), neginf=0.0, posinf=0.0)
                value[0] = 0.0
                value[1, :-1] = 0.0
                split[name] = np.concatenate(
                    [np.zeros((len(value), 1010 - value.shape[1], value.shape[2]), np.float32), value], 1
                )
            split.pop("text_bert", None)
            split["audio"][2, 0] = 1.0  # one sample of the full 1,010 steps

    path = changed(good, odd)
    assert main(fit_on(path, "--data.batch_size", "1", "--data.limit", "3")) == 0


# ---------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.z_y", "-3"], ["z_y", "-3"]),
        (["--data.batch_size", "0"], ["batch_size", "0"]),
        (["--data.modalities", "[txt]"], ["txt", "text"]),
        (["--model.kernel", "rbff"], ["rbff", "rbf"]),
        (["--model.encoder", "lstn"], ["lstn", "lstm"]),
        (["--model.encoder", "{name: lstm, layer: 2}"], ["layer", "layers"]),
        (["--model.z_yy", "3"], ["z_yy", "model.z_y"]),
        (["--trainer.max_epoch", "3"], ["max_epoch", "max_epochs"]),
        (["--data.mising", "[text]"], ["mising", "missing"]),
        (["--data.missing", "[text, audio, vision]"], ["missing"]),
        (["--data.missing_rate", "1.5"], ["missing_rate", "1.5"]),
        (["--model.optimizer", "adamm"], ["adamm", "adam"]),
        (["--model.z", "{txt: 3, default: 4}"], ["txt", "text"]),
        (["--model.lr", "fast"], ["lr"]),
        (["--model", "MFMModul"], ["MFMModul", "MFMModule"]),
        (["--model.optimizer", "{name: adam, betas: 3}"], ["optimizer adam", "betas"]),
        (
            ["--model.schedule", "{name: plateau, factor: 2}", "--model.warmup_steps", "0"],
            ["schedule plateau", "factor"],
        ),
        (["--model.schedule", "{name: cosine, floor: low}"], ["floor", "'low'"]),
        (["--trainer.strategy", "dpp"], ["strategy", "dpp"]),
        (["--trainer.accelerator", "warp"], ["accelerator", "warp"]),
        (["--data.missing", "text"], ["--data.missing is 'text'", "list[str]", "'[text]'"]),
        (["--data.batch_size", "1.5"], ["--data.batch_size is '1.5'", "int"]),
        (["--trainer.max_epochs", "foo"], ["--trainer.max_epochs is 'foo'", "int"]),
        (["--model.z", "abc"], ["--model.z is 'abc'", "int", "dict[str, int]"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_options_that_cannot_be_used(options, words, good, capsys):
    refused(capsys, fit_on(good, *options), *words, status=(1, 2))


def test_typo_in_a_configuration_file(good, capsys):
    Path("mine.yaml").write_text("model:\n  class_path: MFMModule\n  init_args:\n    wieght_mmd: 2\n")
    refused(capsys, fit_on(good, "--config", "mine.yaml"), "wieght_mmd", "weight_mmd")


def test_unknown_config_and_command(good, capsys):
    refused(capsys, ["fit", "--config", "mosie.yaml"], "mosie.yaml", "mosei.yaml")
    refused(capsys, ["fitt"], "fitt", "fit")


# ------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_untrained_model_is_not_scored(command, good, capsys):
    refused(capsys, [command, "--config", "demo.yaml", "--data.path", good], "--ckpt_path")
    refused(capsys, [command], f"{command} needs --ckpt_path")


def test_demo_where_a_file_is(good, capsys):
    refused(capsys, ["demo", "--output", good], "--output", good)


def test_checkpoints_that_are_not_ours(good, capsys):
    refused(capsys, ["test", "--ckpt_path", "none.ckpt"], "none.ckpt")
    Path("text.ckpt").write_text("hello")
    refused(capsys, ["test", "--ckpt_path", "text.ckpt"], "text.ckpt")
    torch.save({"weights": torch.zeros(3)}, "other.pth")
    refused(capsys, ["test", "--ckpt_path", "other.pth"], "other.pth")
    Path("evil.ckpt").write_bytes(pickle.dumps(_Calls(os.system, "touch executed")))
    refused(capsys, ["test", "--ckpt_path", "evil.ckpt"], "evil.ckpt")
    assert not Path("executed").exists()


def test_validation_every_other_epoch(good):
    options = ["--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs", "3", "--early_stopping.patience", "1"]
    assert main([str(a) for a in fit_on(good, *options)]) == 0


@pytest.mark.parametrize("option", ["--early_stopping.monitor", "--checkpoint.monitor"])
def test_a_metric_that_is_not_logged(option, good, capsys):
    capsys.readouterr()
    assert main([str(a) for a in fit_on(good, option, "val/mea")]) == 2
    error = capsys.readouterr().err
    assert "val/mea" in error
    assert "val/mae" in error


def test_run_directory_that_is_taken(good, trained, capsys):
    refused(capsys, fit_on(good, "--run_dir", trained.parents[1]), "resume it with", "last.ckpt", status=(2,))
    Path("begun").mkdir()
    Path("begun/config.yaml").touch()
    refused(capsys, fit_on(good, "--run_dir", "begun"), "delete it", status=(2,))


def test_run_directory_that_cannot_be_made(good, capsys):
    refused(capsys, fit_on(good, "--run_dir", good / "run"), "--run_dir", good / "run", status=(2,))


def test_unknown_split(trained, capsys):
    refused(capsys, ["predict", "--ckpt_path", trained, "--split", "tset"], "tset", "did you mean 'test'", status=(2,))


def test_file_whose_dimensions_are_not_the_checkpoints(good, trained, capsys):
    def narrow(data):
        for split in data.values():
            split["audio"] = np.array(split["audio"], dtype=np.float32)[..., :4]

    path = changed(good, narrow)
    refused(capsys, ["test", "--ckpt_path", trained, "--data.path", path], "audio", "4", "5")


def test_model_of_another_size_than_the_checkpoints(trained, capsys):
    refused(capsys, ["test", "--ckpt_path", trained, "--model.z_y", "3"], "--ckpt_path", "size mismatch", status=(2,))


def test_file_that_lacks_a_modality_can_be_predicted_without_it(good, trained):
    def no_text_no_labels(data):
        del data["train"], data["valid"]
        for key in ("text", "text_bert", "regression_labels", "classification_labels", "annotations"):
            data["test"].pop(key, None)

    path = changed(good, no_text_no_labels)
    options = ["--data.path", path, "--data.missing", "[text]", "--output", "p.csv"]
    assert main(["predict", "--ckpt_path", str(trained), *options]) == 0
    lines = Path("p.csv").read_text().splitlines()
    assert lines[0] == "id,split,target,prediction"
    assert len(lines) == 7
    assert lines[1].split(",")[2] == ""


def test_full_disk_leaves_nothing(good, trained, capsys, monkeypatch):
    real = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(capsys, ["predict", "--ckpt_path", trained, "--output", "p.csv"], "p.csv", "No space left")
    refused(capsys, ["data", "convert", good, "--output", "x.h5"], "x.h5", "No space left")
    refused(capsys, ["data", "generate", "--corpus", "mosi", "--output", "y.pkl"], "y.pkl", "No space left")
    refused(capsys, fit_on(good, "--run_dir", "run"), "No space left")
    monkeypatch.setattr(os, "fsync", real)
