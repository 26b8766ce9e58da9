"""Draw a run's figures into its directory and its loggers."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure

from mfm.analysis.figures import predicted_against_true, save_figure, training_curves
from mfm.callbacks.predictions import PredictionCollector
from mfm.callbacks.run_logger import RunLogger
from mfm.callbacks.selection import selection_metric
from mfm.corpora import Corpus


class RunFigures(Callback):
    """Training curves and predicted against true, as PNG files in `figures/` and as images in W&B.

    Args:
        run_dir: Directory of the run.
        collector: Where the predictions of the last evaluation are.
    """

    def __init__(self, run_dir: Path, collector: PredictionCollector) -> None:
        self.folder = run_dir / "figures"
        self.collector = collector

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Curves of the whole run, and the last epoch's validation predictions."""
        if not trainer.is_global_zero:
            return
        rows = [row for logger in trainer.loggers if isinstance(logger, RunLogger) for row in logger.rows]
        if any("epoch" in row for row in rows):
            self._keep(trainer, "training_curves", training_curves(rows, *selection_metric(pl_module)))
        self._predictions(trainer, pl_module, "validation")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The test split's predictions."""
        if trainer.is_global_zero:
            self._predictions(trainer, pl_module, "test")

    def _predictions(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        output, corpus = self.collector.collected, getattr(pl_module, "corpus", None)
        if output is None or not isinstance(corpus, Corpus) or output.prediction.shape[1] == 0:
            return
        if bool(output.target_mask.any()):
            missing = list(getattr(getattr(trainer, "datamodule", None), "missing", []))
            title = f"{corpus.title}, {split} split" + (f", without {' and '.join(missing)}" if missing else "")
            figure = predicted_against_true(corpus, output.prediction, output.target, output.target_mask, title)
            name = "_".join([split, "predictions", *(["without", *missing] if missing else [])])
            self._keep(trainer, name, figure)

    def _keep(self, trainer: Trainer, name: str, figure: Figure) -> None:
        path = self.folder / f"{name}.png"
        save_figure(figure, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(key=f"figures/{name}", images=[str(path)])
