"""Whether texts and intervals of a file of words belong together row by row, and moving them where they do not.

The texts of a published file may be a row late: row r holds the word that was said in the interval of row r - 1. Long
words take longer, so the durations that fit the lengths of the words best tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfm.data.alignment.csd import Intervals
from mfm.data.records import BoolArray

LAGS = (-2, -1, 0, 1, 2)
_LEAST_WORDS = 20
_LEAST_FIT, _BETTER = 0.3, 0.2  # Pearson's r of the best rows, and by how much it exceeds that of the words' own
_SHORTEST = 0.01  # seconds that are added to durations before the logarithm


@dataclass(frozen=True)
class RowFit:
    """How well words fit the intervals of other rows.

    Attributes:
        lag: The text of row r seems to belong to the interval of row r + lag.
        fits: Lag, as text -> Pearson's r of the words' characters and the logarithm of those intervals' durations.
    """

    lag: int
    fits: dict[str, float]


def shift_rows(intervals: Intervals, rows: int) -> Intervals:
    """Give row r the interval of row r + `rows`; NaN where there is none.

    >>> shift_rows(np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]), -1).tolist()
    [[nan, nan], [0.0, 1.0], [1.0, 2.0]]
    """
    shifted = np.full_like(intervals, np.nan)
    there = np.arange(len(intervals)) + rows
    inside = (there >= 0) & (there < len(intervals))
    shifted[inside] = intervals[there[inside]]
    return shifted


def fit_rows(intervals: Intervals, texts: Sequence[str], spoken: BoolArray) -> RowFit | None:
    """Compare the lengths of words with the durations of their own and of neighbouring rows.

    Args:
        intervals: (n, 2), in the order of the file.
        texts: n texts.
        spoken: (n,) False for pauses and invalid rows.

    Returns:
        The fit; None with fewer than 20 words, or where all are of one length or duration.
    """
    characters = np.array([len(text) for text in texts], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        durations = np.log(np.maximum(intervals[:, 1] - intervals[:, 0], 0) + _SHORTEST)
    rows = np.flatnonzero(spoken)
    rows = rows[(rows >= -min(LAGS)) & (rows < len(texts) - max(LAGS))]
    rows = rows[np.all([np.isfinite(durations[rows + lag]) for lag in LAGS], axis=0)]
    if len(rows) < _LEAST_WORDS or not np.ptp(characters[rows]):
        return None
    if not all(np.ptp(durations[rows + lag]) for lag in LAGS):
        return None
    fits = {lag: float(np.corrcoef(characters[rows], durations[rows + lag])[0, 1]) for lag in LAGS}
    best = max(LAGS, key=lambda lag: (fits[lag], -abs(lag)))
    clear = fits[best] >= _LEAST_FIT and fits[best] >= fits[0] + _BETTER
    return RowFit(best if clear else 0, {str(lag): round(fit, 3) for lag, fit in fits.items()})
