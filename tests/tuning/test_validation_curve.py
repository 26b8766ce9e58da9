"""Which epoch of a trial counts, and when it ends."""

from types import SimpleNamespace

import pytest
import torch

from mfm.errors import ConfigurationError, MFMError
from mfm.tuning.curve import ValidationCurve

NAN = float("nan")


def followed(values, monitor=("val/mae", "min"), every=1, world=1, **options):
    curve = ValidationCurve(monitor, **options)
    trainer = SimpleNamespace(
        world_size=world, check_val_every_n_epoch=every, current_epoch=0, should_stop=False, callback_metrics={}
    )
    curve.setup(trainer, None, "fit")
    for epoch, value in enumerate(values):
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/mae": torch.tensor(value)}
        curve.on_train_epoch_end(trainer, None)
        if trainer.should_stop:
            break
    return curve


@pytest.mark.parametrize(
    ("values", "mode", "min_delta", "best"),
    [
        ([3.0, 1.0, 2.0], "min", 0.0, 1),
        ([3.0, 1.0, 2.0], "max", 0.0, 0),
        ([2.0, 1.75, 1.5], "min", 0.375, 2),  # 1.75 is not better by enough, 1.5 is
        ([2.0, 1.75, 1.625], "min", 0.375, 0),
        ([1.0, 1.0], "min", 0.0, 0),
        ([2.0, NAN, 1.0], "min", 0.0, 0),  # training ends at NaN
    ],
)
def test_epoch_that_counts(values, mode, min_delta, best):
    curve = followed(values, ("val/mae", mode), min_delta=min_delta)
    assert curve.best == (best, values[best])


def test_pruned_when_it_may_not_go_on():
    curve = followed([3.0, 2.0, 1.0], go_on=lambda epoch, value: value > 2)
    assert curve.pruned
    assert curve.values == {0: 3.0, 1: 2.0}


def test_epochs_without_validation_are_left_out():
    assert list(followed([4.0, 3.0, 2.0, 1.0], every=2).values) == [1, 3]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(MFMError, match="not a number after 1 epochs"):
        _ = followed([NAN]).best
    with pytest.raises(ConfigurationError, match="did you mean 'val/mae'"):
        followed([1.0], ("val/mea", "min"))
    with pytest.raises(ConfigurationError, match="compared on validation"):
        followed([1.0], ("test/mae", "min"))
    with pytest.raises(ConfigurationError, match="on one device"):
        followed([1.0], world=2)
