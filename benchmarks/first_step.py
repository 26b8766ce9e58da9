"""A callback that tells when the first training step was done: `--trainer.callbacks first_step.FirstStep`."""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback


class FirstStep(Callback):
    """Writes the time of the first step's end to the file that FIRST_STEP names."""

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the optimiser's first step."""
        if trainer.global_step == 1:
            Path(os.environ["FIRST_STEP"]).write_text(str(time.time()))
