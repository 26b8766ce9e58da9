"""Which epoch is kept as the best."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from mfm.callbacks.selection import BestCheckpoint
from mfm.errors import ConfigurationError


class Scripted(LightningModule):
    """Logs one given value an epoch."""

    def __init__(self, values):
        super().__init__()
        self.values = values
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        self.log("value", self.values[self.current_epoch], on_epoch=True, on_step=False)
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("values", "mode", "min_delta", "kept"),
    [
        ([3.0, 2.0, 1.9, 1.8, 1.6], "min", 0.0, 1.6),
        ([3.0, 2.0, 1.9, 1.8, 1.6], "min", 0.3, 1.6),  # by .4 better than the 2.0 that was kept
        ([3.0, 2.0, 1.9, 1.8, 1.75], "min", 0.3, 2.0),
        ([0.5, float("nan"), 0.6, 0.65], "max", 0.08, 0.6),
    ],
)
def test_the_earliest_of_what_is_as_good_is_kept(values, mode, min_delta, kept, tmp_path):
    best = BestCheckpoint(monitor="value", mode=mode, min_delta=min_delta)
    best.dirpath = str(tmp_path)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    Trainer(max_epochs=len(values), callbacks=[best], **quiet).fit(Scripted(values), DataLoader([0]))
    assert float(best.best_model_score) == pytest.approx(kept)


@pytest.mark.parametrize("settings", [{"min_delta": -0.1}, {"min_delta": 0.1, "save_top_k": 2}])
def test_what_makes_no_sense_is_one_sentence(settings):
    with pytest.raises(ConfigurationError, match="min_delta"):
        BestCheckpoint(**settings)
