"""Where studies are kept."""

import pytest

from recflow.tuning.storage import public_form


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
