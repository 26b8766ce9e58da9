"""What all modules share."""

import torch

from mfm.data.batch import AffectBatch
from mfm.modules.base import AffectModule, StepOutput


class Diverged(AffectModule):
    """A loss that is NaN for the first batch."""

    batches = 0

    def step(self, batch):
        self.batches += 1
        loss = torch.tensor(float("nan") if self.batches == 1 else 1.0)
        return StepOutput(loss, {}, torch.zeros(len(batch.ids), 1))


def test_a_diverged_batch_shows_in_the_validation_loss():
    module = Diverged(feature_dims={"text": 2}, corpus="mosi")
    one = torch.ones(1, dtype=torch.bool)
    batch = AffectBatch(
        {"text": torch.zeros(1, 1, 2)}, {"text": one.long()}, {"text": one}, torch.zeros(1, 1), one[:, None], ["a"]
    )
    for index in range(2):
        module._evaluate("val", batch, index)
    assert module.stage_losses["val"]["val/loss"].compute().isnan()
