"""torchmetrics classes over the definitions: exact over any batching and any number of processes.

The field's metrics are not means of batch values (weighted F1, Pearson's r, accuracies over kept samples), so the
classes keep all predictions and labels of a stage, some kilobytes, and apply the definition once, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mfm.corpora import Corpus
from mfm.errors import ConfigurationError, nearest
from mfm.metrics.conventions import Definition, definitions_for


class StoredPredictions(Metric):
    """Keeps predictions, labels and label masks of all samples; subclasses say what to compute from them.

    Args:
        corpus: Record that gives the shapes.
        **kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False
    preds: list[Tensor] | Tensor
    target: list[Tensor] | Tensor
    target_mask: list[Tensor] | Tensor

    def __init__(self, corpus: Corpus, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.corpus = corpus
        for state in ("preds", "target", "target_mask"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor, target_mask: Tensor | None = None) -> None:
        """Add a batch; B may be 0.

        Args:
            preds: (B, output_dim), the head's raw output: values, or logits. Any float dtype.
            target: (B, K), or (B,) class indices for `multiclass`, as in `AffectBatch`.
            target_mask: Same shape as `target`, bool, False where the label is missing; None when none is.

        Raises:
            ValueError: A shape is not the corpus'.
        """
        if target_mask is None:
            target_mask = torch.ones_like(target, dtype=torch.bool)
        shapes = (preds.shape[1:], target.shape[1:], target_mask.shape)
        if shapes != (*self._sample_shapes(), target.shape) or preds.shape[:1] != target.shape[:1]:
            (width,), labels = self._sample_shapes()
            raise ValueError(
                f"metrics of corpus {self.corpus.name!r} need preds (B, {width}) and target and target_mask "
                f"{('B', *labels)}, got {tuple(preds.shape)}, {tuple(target.shape)} and {tuple(target_mask.shape)}"
            )
        real = _real(preds.device)
        for states, batch in zip(self._lists(), (preds.to(real), target.to(real), target_mask.bool()), strict=True):
            states.append(batch.detach())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the samples of all processes.

        torchmetrics sends a 1-d float32 placeholder for a process without samples, which the others, with states of
        another rank and dtype, cannot receive; so such a process contributes empty states of the right kind.
        """
        if not self._is_synced:
            (width,), labels = self._sample_shapes()
            real = _real(self.device)
            empty = (
                torch.zeros(0, width, dtype=real, device=self.device),
                torch.zeros(0, *labels, dtype=real, device=self.device),
                torch.zeros(0, *labels, dtype=torch.bool, device=self.device),
            )
            for states, none in zip(self._lists(), empty, strict=True):
                if not states:
                    states.append(none)
        super().sync(*args, **kwargs)

    def stored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions, target and mask of all samples so far, on the CPU in float64 (mask: bool)."""
        (width,), labels = self._sample_shapes()
        parts: list[Tensor] = []
        for state, shape in ((self.preds, (width,)), (self.target, labels), (self.target_mask, labels)):
            whole = state if isinstance(state, Tensor) else torch.cat([torch.zeros(0, *shape), *_cpu(state)])
            parts.append(whole.cpu())
        return parts[0].double(), parts[1].double(), parts[2].bool()

    def _sample_shapes(self) -> tuple[tuple[int], tuple[int, ...]]:
        return (self.corpus.output_dim,), (() if self.corpus.task == "multiclass" else (len(self.corpus.targets),))

    def _lists(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        states = (self.preds, self.target, self.target_mask)
        if any(isinstance(state, Tensor) for state in states):
            raise RuntimeError("the states are gathered from all processes at the moment: unsync before updating")
        return states  # type: ignore[return-value]


class CorpusMetrics(StoredPredictions):
    """All metrics of a corpus at once: one store, one gathering, a dictionary of values.

    Lightning's `self.log` takes a metric object only when its value is a single number, so log the values, once a
    stage:

        self.metrics.update(preds, batch.target, batch.target_mask)             # in the step
        for name, value in self.metrics.compute().items():                      # at the end of the epoch, all processes
            self.log(f"val/{name}", value)
        self.metrics.reset()

    `compute` gathers from all processes, so every process must call it, and have moved the metrics to its device.
    All processes then hold the same values. A single metric that `self.log` accepts is `NamedMetric`.

    Args:
        corpus: Record that names the convention and gives the shapes.
        **kwargs: Passed on to `torchmetrics.Metric`.

    Attributes:
        definitions: Metric name -> definition, in the order of a table.

    >>> import torch
    >>> from mfm.corpora import get_corpus
    >>> metrics = CorpusMetrics(get_corpus("mmmo"))
    >>> metrics.update(torch.tensor([[3.0], [4.0]]), torch.tensor([[2.0], [5.0]]))
    >>> {name: round(value.item(), 3) for name, value in metrics.compute().items()}
    {'acc2': 1.0, 'f1': 1.0, 'mae': 1.0, 'corr': 1.0}
    """

    higher_is_better = None  # differs from metric to metric: see `definitions`

    def __init__(self, corpus: Corpus, **kwargs: Any) -> None:
        super().__init__(corpus, **kwargs)
        self.definitions: Mapping[str, Definition] = definitions_for(corpus)

    def compute(self) -> dict[str, Tensor]:
        """Metric name -> 0-d tensor in float64, NaN where undefined."""
        stored = self.stored()
        real = _real(self.device)
        return {name: one.score(*stored).to(self.device, real) for name, one in self.definitions.items()}


class WeightedMean(Metric):
    """Mean of batch values weighted by what each is a mean over, across all batches and processes.

    A NaN makes it NaN. (torchmetrics' `MeanMetric` leaves NaN out, or, with `nan_strategy="disable"`, the weights.)

    >>> import torch
    >>> mean = WeightedMean()
    >>> mean.update(torch.tensor(1.0), 3)
    >>> mean.update(torch.tensor(2.0), 1)
    >>> mean.compute()
    tensor(1.2500, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for state in ("total", "weight"):
            self.add_state(state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: Tensor | float) -> None:
        """Add a batch: its value (a scalar) and its weight (>= 0; 0 leaves the batch out)."""
        real = _real(value.device)
        share = torch.as_tensor(weight, dtype=real, device=value.device)
        self.total = self.total.to(real) + torch.where(share > 0, value.detach().to(real) * share, 0.0)
        self.weight = self.weight.to(real) + share

    def compute(self) -> Tensor:
        """The mean, NaN where all weights are 0."""
        return self.total / self.weight


class NamedMetric(StoredPredictions):
    """One metric of a corpus, for `self.log("val/mae", metric)` and wherever a single number is wanted.

    Args:
        corpus: Record that names the convention and gives the shapes.
        name: Which metric, e.g. `acc2_has0` or `happy/f1`.
        **kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        ConfigurationError: The corpus has no metric of that name; the nearest one is named.

    >>> import torch
    >>> from mfm.corpora import get_corpus
    >>> metric = NamedMetric(get_corpus("mosi"), "mae")
    >>> metric(torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [0.0]]))
    tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self, corpus: Corpus, name: str, **kwargs: Any) -> None:
        super().__init__(corpus, **kwargs)
        definitions = definitions_for(corpus)
        if name not in definitions:
            raise ConfigurationError(f"corpus {corpus.name!r} has no metric {name!r}: {nearest(name, definitions)}")
        self.definition = definitions[name]

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether a larger value is a better one."""
        return self.definition.higher_is_better

    def compute(self) -> Tensor:
        """0-d tensor in float64, NaN where undefined."""
        return self.definition.score(*self.stored()).to(self.device, _real(self.device))


def _real(device: torch.device) -> torch.dtype:
    """Float64, except on devices that have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _cpu(states: list[Tensor]) -> list[Tensor]:
    return [state.cpu() for state in states]
