"""Metrics of the field, each named by its convention.

`functional` holds the definitions, `conventions` says which of them a corpus is reported with, `CorpusMetrics`
computes them all over a stage and any number of processes, `NamedMetric` one of them.
"""

from mfm.metrics.classes import CorpusMetrics, NamedMetric, WeightedMean
from mfm.metrics.collection import describe, metrics_for
from mfm.metrics.conventions import CONVENTIONS, Definition, convention, definitions_for, each_target
from mfm.metrics.functional import UndefinedMetricWarning

__all__ = [
    "CONVENTIONS",
    "CorpusMetrics",
    "Definition",
    "NamedMetric",
    "UndefinedMetricWarning",
    "WeightedMean",
    "convention",
    "definitions_for",
    "describe",
    "each_target",
    "metrics_for",
]
