"""The metrics of a corpus, and what their names mean."""

from __future__ import annotations

from mfm.corpora import Corpus
from mfm.metrics.classes import CorpusMetrics
from mfm.metrics.conventions import definitions_for


def metrics_for(corpus: Corpus) -> CorpusMetrics:
    """Collection of all metrics of a corpus, under the names and conventions of the field.

    >>> from mfm.corpora import get_corpus
    >>> list(metrics_for(get_corpus("sims")).definitions)
    ['acc2', 'f1', 'acc3', 'acc5', 'mae', 'corr']

    Raises:
        ConfigurationError: The record names an unknown convention, or one that is not for its task.
    """
    return CorpusMetrics(corpus)


def describe(corpus: Corpus) -> dict[str, str]:
    """Metric name -> its definition in one line, so that tables can say what they show.

    >>> from mfm.corpora import get_corpus
    >>> describe(get_corpus("mmmo"))["acc2"]
    'accuracy of y > 3.5 against y <= 3.5'
    """
    return {name: definition.text for name, definition in definitions_for(corpus).items()}
