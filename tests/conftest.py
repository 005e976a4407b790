"""What all tests share."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, and OpenMP's threads wait by spinning

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Nothing that a test parses or downloads goes into the user's cache."""
    monkeypatch.setenv("RECFLOW_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def pytest_collection_modifyitems(config, items):
    """Tests of real data run where there is some: it may not be passed on, so it does not come with the code."""
    if os.environ.get("RECFLOW_DATA_DIR"):
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("data")])
    items[:] = [item for item in items if not item.get_closest_marker("data")]
