"""Where studies are kept."""

import socket
import time

import pytest

from recflow.errors import RecflowError
from recflow.tuning.storage import open_storage, public_form


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me@host/db"),
        ("postgresql://me:se/cret@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql://me:?secret#@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me"),
        ("mysql://me@host/db?passwd=secret&charset=utf8", "mysql://me@host/db?charset=utf8"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dsecret", "mssql+pyodbc:///"),
        ("postgresql://me:se@cret@host/db", "postgresql://…"),
        ("postgresql://m/e:secret@host/db", "postgresql://…"),
        ("postgresql://me:secret@host:port/db", "postgresql://…"),
        ("sqlite:////home/me@work/study.db", "sqlite:////home/me@work/study.db"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("runs/a:b@c/study.log", "runs/a:b@c/study.log"),
    ],
)
def test_a_password_is_shown_nowhere_and_the_rest_stays(where, shown):
    assert public_form(where) == shown


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setattr("recflow.tuning.storage.CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(RecflowError, match=r"postgresql://me@127\.0.* cannot be opened: .*timeout") as told:
            open_storage(f"postgresql://me:secret@127.0.0.1:{silent.getsockname()[1]}/x")
    assert time.monotonic() - started < 20
    assert "secret" not in str(told.value)
