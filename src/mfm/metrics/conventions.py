"""Which metrics a corpus is reported with: one registered builder a convention.

A convention turns a `Corpus` record into named definitions. To add one, decorate a builder in a module of your own
and name it in the record:

    @convention("mine", tasks=("regression",))
    def mine(corpus: Corpus) -> dict[str, Definition]:
        return each_target(corpus, {"mae": Definition(functional.mae, "mean absolute error", higher_is_better=False)})

    register(Corpus(name="my_corpus", convention="mine", monitor="val/mae", ...))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mfm.corpora import Corpus
from mfm.errors import ConfigurationError, nearest
from mfm.metrics import functional

Score = Callable[[Tensor, Tensor, Tensor], Tensor]


class Definition(NamedTuple):
    """One metric.

    Attributes:
        score: Predictions, target and target mask of all samples -> 0-d tensor. It must be a module-level function,
            or `functools.partial` of one, where processes are started by spawning (lambdas cannot be pickled).
        text: The definition in one line, with its inequality.
        higher_is_better: Whether a larger value is a better one.
    """

    score: Score
    text: str
    higher_is_better: bool = True


Builder = Callable[[Corpus], dict[str, Definition]]


class _Registered(NamedTuple):
    build: Builder
    tasks: tuple[str, ...]


CONVENTIONS: dict[str, _Registered] = {}


def convention(name: str, tasks: Sequence[str]) -> Callable[[Builder], Builder]:
    """Register the decorated builder as the convention `name`, for corpora whose task is one of `tasks`.

    Raises:
        ConfigurationError: The name is taken.
    """

    def keep(build: Builder) -> Builder:
        if name in CONVENTIONS:
            raise ConfigurationError(f"metric convention {name!r} is registered already; choose another name")
        CONVENTIONS[name] = _Registered(build, tuple(tasks))
        return build

    return keep


def definitions_for(corpus: Corpus) -> dict[str, Definition]:
    """Name (without the stage, e.g. `acc2_has0`) -> definition of every metric of a corpus.

    Raises:
        ConfigurationError: The record names an unknown convention, or one that is not for its task.
    """
    if corpus.convention not in CONVENTIONS:
        raise ConfigurationError(
            f"corpus {corpus.name!r} has the unknown metric convention {corpus.convention!r}: "
            f"{nearest(corpus.convention, CONVENTIONS)}"
        )
    registered = CONVENTIONS[corpus.convention]
    if corpus.task not in registered.tasks:
        raise ConfigurationError(
            f"corpus {corpus.name!r} is a {corpus.task} task, and its metric convention {corpus.convention!r} is for "
            f"{' or '.join(registered.tasks)}; change one of the two in its record"
        )
    return registered.build(corpus)


def each_target(
    corpus: Corpus, definitions: Mapping[str, Definition], *, always_named: bool = False
) -> dict[str, Definition]:
    """Apply definitions of one output to every target of a corpus.

    With one target the names stay as they are. With several, each target has `<target>/<name>`, and `<name>_mean` is
    the plain mean over targets; a mean is NaN when one of its targets is.

    Args:
        corpus: The record, for `targets`.
        definitions: Name -> definition on (N,) predictions, target and mask.
        always_named: Name targets and means even when there is only one.
    """
    if len(corpus.targets) == 1 and not always_named:
        return {name: one._replace(score=partial(_column, one.score, 0)) for name, one in definitions.items()}
    columns = range(len(corpus.targets))
    named = {
        f"{corpus.targets[column]}/{name}": one._replace(
            score=partial(_column, one.score, column), text=f"{corpus.targets[column]}: {one.text}"
        )
        for column in columns
        for name, one in definitions.items()
    }
    means = {
        f"{name}_mean": one._replace(
            score=partial(_mean_over_columns, one.score, len(columns)),
            text=f"mean over {len(columns)} targets of: {one.text}",
        )
        for name, one in definitions.items()
    }
    return named | means


def _column(score: Score, column: int, preds: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return score(preds[:, column], target[:, column], mask[:, column])


def _mean_over_columns(score: Score, columns: int, preds: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([_column(score, column, preds, target, mask) for column in range(columns)]).mean()


_MAE = Definition(functional.mae, "mean absolute error", higher_is_better=False)
_CORR = Definition(functional.pearson, "Pearson's r")
_MOSI = {
    "acc2_has0": Definition(functional.accuracy2_has0, "accuracy of y < 0 against y >= 0, all samples"),
    "acc2_non0": Definition(functional.accuracy2_non0, "accuracy of y < 0 against y > 0, samples labelled 0 dropped"),
    "f1_has0": Definition(functional.f1_has0, "F1 of y < 0 and y >= 0 weighted by support, all samples"),
    "f1_non0": Definition(functional.f1_non0, "F1 of y < 0 and y > 0 weighted by support, samples labelled 0 dropped"),
    "acc3": Definition(functional.accuracy3, "equality after clipping to [-1, 1] and rounding half to even"),
    "acc5": Definition(functional.accuracy5, "equality after clipping to [-2, 2] and rounding half to even"),
    "acc7": Definition(functional.accuracy7, "equality after clipping to [-3, 3] and rounding half to even"),
    "mae": _MAE,
    "corr": _CORR,
}
_AWAY = Definition(
    functional.accuracy7_away, "equality after rounding away from zero (-1 <= y < 0 is -1), clipped to 3"
)


@convention("mosi", tasks=("regression",))
def mosi(corpus: Corpus) -> dict[str, Definition]:
    """Sentiment in [-3, 3] as MulT and MMSA report it."""
    return each_target(corpus, _MOSI)


@convention("mosei", tasks=("regression",))
def mosei(corpus: Corpus) -> dict[str, Definition]:
    """As `mosi`, with MOSEI's own rule for seven classes beside the usual one."""
    return each_target(corpus, {**_MOSI, "acc7_away": _AWAY})


@convention("sims", tasks=("regression",))
def sims(corpus: Corpus) -> dict[str, Definition]:
    """Sentiment in [-1, 1] as CH-SIMS and MMSA report it."""
    return each_target(
        corpus,
        {
            "acc2": Definition(functional.sims_accuracy2, "accuracy of y <= 0 against y > 0, all samples"),
            "f1": Definition(functional.sims_f1, "F1 of y <= 0 and y > 0 weighted by support, all samples"),
            "acc3": Definition(functional.sims_accuracy3, "accuracy of three classes divided at -0.1 < y <= 0.1"),
            "acc5": Definition(
                functional.sims_accuracy5, "accuracy of five right-closed classes divided at -0.7, -0.1, 0.1, 0.7"
            ),
            "mae": _MAE._replace(score=functional.sims_mae, text="mean absolute error after clipping to [-1, 1]"),
            "corr": Definition(functional.sims_pearson, "Pearson's r after clipping to [-1, 1]"),
        },
    )


@convention("threshold", tasks=("regression",))
def threshold(corpus: Corpus) -> dict[str, Definition]:
    """Scores that count as positive above the record's `threshold`."""
    if corpus.threshold is None:
        raise ConfigurationError(f"corpus {corpus.name!r} has the convention 'threshold' and no threshold; give one")
    rule = f"y > {corpus.threshold:g} against y <= {corpus.threshold:g}"
    return each_target(
        corpus,
        {
            "acc2": Definition(
                partial(functional.threshold_accuracy, threshold=corpus.threshold), f"accuracy of {rule}"
            ),
            "f1": Definition(
                partial(functional.threshold_f1, threshold=corpus.threshold), f"F1 of {rule} weighted by support"
            ),
            "mae": _MAE,
            "corr": _CORR,
        },
    )


@convention("classes", tasks=("binary", "multiclass"))
def classes(corpus: Corpus) -> dict[str, Definition]:
    """One of several classes, or yes and no."""
    if corpus.task == "binary":
        return each_target(
            corpus,
            {
                "acc": Definition(functional.binary_accuracy, "accuracy of 2 classes, 1 when logit > 0"),
                "f1": Definition(functional.binary_f1, "F1 of 2 classes (logit > 0) weighted by support"),
            },
        )
    count = len(corpus.classes)
    return {
        "acc": Definition(functional.class_accuracy, f"accuracy of {count} classes, every sample weighing the same"),
        "f1": Definition(functional.class_f1, f"F1 of {count} classes weighted by support"),
    }


@convention("emotions", tasks=("multilabel",))
def emotions(corpus: Corpus) -> dict[str, Definition]:
    """Several yes-or-no labels, each scored as two classes."""
    return each_target(
        corpus,
        {
            "acc": Definition(functional.binary_accuracy, "accuracy of absent against present (logit > 0)"),
            "f1": Definition(functional.binary_f1, "F1 of absent and present (logit > 0) weighted by support"),
        },
        always_named=True,
    )


@convention("traits", tasks=("regression",))
def traits(corpus: Corpus) -> dict[str, Definition]:
    """Ratings in [1, 7] of several traits of a speaker, as POM is reported."""
    rule = "equality after clipping to [1, 7] and rounding half to even"
    return each_target(
        corpus,
        {"mae": _MAE, "corr": _CORR, "acc7": Definition(functional.trait_accuracy7, rule)},
        always_named=True,
    )
