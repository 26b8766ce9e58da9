"""Where a test's pickle is written."""

import pytest


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pkl"
