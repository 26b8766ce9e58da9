"""CONTRIBUTING's model: one file and one configuration, as they are shown there, trained and tested."""

import json
import re
import sys
from pathlib import Path

import torch

from mfm.cli import main
from mfm.data.synthetic import write_corpus

GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def test_one_file_and_one_configuration_are_a_model(tmp_path, monkeypatch, capsys):
    guide = GUIDE.read_text(encoding="utf-8").partition("## Add a model\n")[2]
    (network,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    (config,) = re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL)
    (tmp_path / "my_net.py").write_text(network, encoding="utf-8")
    (tmp_path / "my_net.yaml").write_text(config, encoding="utf-8")
    write_corpus("mosi", tmp_path / "mosi.pkl", samples=(24, 12, 13), seed=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    short = ("--trainer.max_epochs", "2", "--trainer.accelerator", "cpu")
    try:
        fit = ["fit", "--config", "my_net.yaml", "--data.path", "mosi.pkl", "--run_dir", "mine", *short]
        assert main(fit) == 0
        assert main(["test", "--ckpt_path", "mine/checkpoints/best.ckpt"]) == 0
        scores = json.loads((tmp_path / "mine" / "metrics_test.json").read_text())
        assert {"test/mae", "test/corr", "test/acc2_has0", "test/loss"} <= scores.keys()
        assert scores["samples"] == 13

        model = sys.modules["my_net"].MeanPooling({"a": 3, "b": 2}, 1, True, hidden=4).eval()
        features = {"a": torch.randn(2, 5, 3), "b": torch.randn(2, 4, 2)}
        lengths = {"a": torch.tensor([5, 2]), "b": torch.tensor([3, 4])}
        present = {"a": torch.tensor([True, True]), "b": torch.tensor([True, False])}
        before = model(features, lengths, present)
        features["a"][1, 2:], features["b"][0, 3:], features["b"][1] = torch.nan, torch.nan, torch.nan
        assert torch.equal(before, model(features, lengths, present))
    finally:
        sys.modules.pop("my_net", None)
