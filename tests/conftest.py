"""What all tests share."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side, and OpenMP's threads wait by spinning

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Nothing that a test parses or downloads goes into the user's cache."""
    monkeypatch.setenv("RECFLOW_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
