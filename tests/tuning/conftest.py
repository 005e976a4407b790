"""What the tests of tuning share."""

import os

import pytest

from tests.tuning import postgres


@pytest.fixture(scope="session")
def database():
    """The URL of a PostgreSQL server of the tests' own."""
    if postgres.binaries() is None and not os.environ.get("RECFLOW_NEEDS_POSTGRESQL"):
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["journal", "postgresql", "sqlite"])
def where(request, tmp_path):
    """Every kind of storage in turn."""
    if request.param == "postgresql":
        return request.getfixturevalue("database")
    return str(tmp_path / "journal.log") if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"
