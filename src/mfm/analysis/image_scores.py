"""An independent reader of generated images: a small convolutional classifier that has seen real images only."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfm.data.records import FloatArray, IntArray

_EPOCHS, _UPDATES = 15, 1000  # at least so many of each
_BATCH = 64
_STEP = 2e-3
_WIDTHS = (24, 48)


class ImageClassifier:
    """Two convolutions with pooling and two linear layers; shares nothing with the model that generates.

    While training, images are moved, blurred and bleached at random: what is asked of it is the digit, and generated
    images are softer than real ones and may have colours between theirs.

    Args:
        images: (N, C, H, W) real training images in [0, 1].
        labels: (N,) classes, 0 to K - 1.
        classes: K.
        seed: Seed of weights, order and shifts; the global generators are left alone.
    """

    def __init__(self, images: FloatArray, labels: IntArray, classes: int, *, seed: int = 0) -> None:
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.network = _network(x.shape[1], x.shape[2], x.shape[3], classes)
            self._fit(x, y)

    def _fit(self, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=_STEP, weight_decay=1e-2)
        batches = math.ceil(len(x) / _BATCH)
        epochs = max(_EPOCHS, math.ceil(_UPDATES / batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _STEP, total_steps=epochs * batches)
        self.network.train()
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(x)), _BATCH):
                loss = F.cross_entropy(self.network(_softened(_shifted(x[rows]))), y[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
        self.network.eval()

    @torch.inference_mode()
    def read(self, images: FloatArray) -> IntArray:
        """Classes (N,) of images (N, C, H, W) in [0, 1]."""
        logits = torch.cat([self.network(part) for part in torch.split(torch.from_numpy(images), 512)])
        read: IntArray = logits.argmax(dim=1).numpy()
        return read

    def accuracy(self, images: FloatArray, labels: IntArray) -> float:
        """Share of images in which the label is read; NaN without images."""
        return float((self.read(images) == labels).mean()) if len(images) else math.nan


def _network(channels: int, height: int, width: int, classes: int) -> nn.Sequential:
    first, second = _WIDTHS
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(second * (height // 4) * (width // 4), 96), nn.ReLU(),
        nn.Linear(96, classes),
    )  # fmt: skip


def _shifted(x: Tensor) -> Tensor:
    """The batch moved by up to a sixteenth of a side each way, at least one pixel, edges repeated."""
    most = max(1, x.shape[2] // 16)
    padded = F.pad(x, (most, most, most, most), mode="replicate")
    down, right = (int(shift) for shift in torch.randint(2 * most + 1, (2,)))
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def _softened(x: Tensor) -> Tensor:
    """Each image mixed at random with its blur (3 x 3 mean) and with its mean over channels."""
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    x = torch.lerp(x, blurred, torch.rand(len(x), 1, 1, 1))
    return torch.lerp(x, x.mean(dim=1, keepdim=True).expand_as(x), torch.rand(len(x), 1, 1, 1))
