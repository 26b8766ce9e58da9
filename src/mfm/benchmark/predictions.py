"""Predictions of test splits, small enough to keep: what intervals and tests are made from.

`<corpus>/targets_<hash>.npz` has ids, targets and masks once for all runs on the same samples;
`<corpus>/<model>_<seed>.npz` has a run's predictions and the name of that file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfm.errors import DataFormatError
from mfm.files import whole_file

Array = NDArray[np.generic]


class Predicted(NamedTuple):
    """What was predicted, and what was true.

    Attributes:
        prediction: (N, output_dim) float32, raw output.
        target: (N, K), or (N,) for classes.
        mask: As `target`, False where a label is missing.
        ids: (N,) names of the samples.
        targets: Name of the file of targets: equal names mean equal samples.
    """

    prediction: NDArray[np.float32]
    target: Array
    mask: NDArray[np.bool_]
    ids: NDArray[np.str_]
    targets: str


def write_predicted(
    folder: Path, corpus: str, run: str, prediction: Array, target: Array, mask: Array, ids: Sequence[str]
) -> str:
    """Write the predictions of a run on the test split.

    Args:
        folder: Folder of all predictions.
        corpus: Label of the corpus.
        run: Name of the run, e.g. `mfm_1`.
        prediction: (N, output_dim).
        target: (N, K) or (N,).
        mask: As `target`.
        ids: N names.

    Returns:
        Path of the file within `folder`.
    """
    names = np.asarray(ids, dtype=np.str_)
    digest = hashlib.sha256()
    for part in (names, target, mask):
        digest.update(np.ascontiguousarray(part).tobytes())
    truth = f"{corpus}/targets_{digest.hexdigest()[:12]}.npz"
    if not (folder / truth).is_file():
        _write(folder / truth, target=target, mask=mask, ids=names)
    path = f"{corpus}/{run}.npz"
    _write(folder / path, prediction=prediction.astype(np.float32), targets=np.asarray(truth))
    return path


def _write(path: Path, **arrays: Array) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getvalue())


def read_predicted(folder: Path, path: str) -> Predicted:
    """Read the predictions of a run.

    Raises:
        DataFormatError: A file is missing or damaged.
    """
    try:
        with np.load(folder / path) as own:
            prediction, truth = own["prediction"], str(own["targets"])
        with np.load(folder / truth) as shared:
            return Predicted(prediction, shared["target"], shared["mask"], shared["ids"], truth)
    except (OSError, KeyError, ValueError) as error:
        raise DataFormatError(
            f"{folder / path}: the run's predictions cannot be read ({error}); intervals and tests need them"
        ) from error
