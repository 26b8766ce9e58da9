"""A run logged to W&B, and one without the package."""

import pytest
from training_runs import FAST, fit, run_mfm


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
