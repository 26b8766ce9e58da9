"""What all tests share: a quiet, deterministic environment, and the place of published files."""

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path

# before anything heavy is imported, and inherited by the commands that tests start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "agg"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import pytest
import torch
from hypothesis import HealthCheck, settings

# doctests would import both as the module `conftest`
collect_ignore = ["conftest.py", "cli/conftest.py"]

torch.set_num_threads(1)

settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish() -> None:
    """What was imported by now stays: let nobody look through it for garbage again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("realdata") and not os.environ.get("MFM_DATA"):
        pytest.skip("needs published files: set MFM_DATA to the folder that holds mosi/, mfn/, csd/ and folds/")


@pytest.fixture(autouse=True)
def _process_left_as_found() -> Iterator[None]:
    """Undo what the command line sets for its own process, which a test that runs it in-process would hand on.

    It flushes denormal numbers to zero for speed, and quietens loggers, Lightning's and its own.
    """
    yield
    torch.set_flush_denormal(False)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.INFO)  # what importing Lightning sets
    logging.getLogger("mfm").handlers.clear()
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == "mfm":
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of published files; for tests marked `realdata`."""
    if not os.environ.get("MFM_DATA"):
        pytest.skip("needs published files: set MFM_DATA")
    root = Path(os.environ["MFM_DATA"])
    if not root.is_dir():
        pytest.fail(f"MFM_DATA={root} is not a folder")
    return root
