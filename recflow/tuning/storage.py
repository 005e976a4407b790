"""Where a study is kept: a journal file by default, any database by URL, or memory."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock

from recflow.errors import RecflowError

MEMORY = "memory"
CONNECT_SECONDS = 10  # to a host that says nothing at all
_SECRET = re.compile(r"pass|pwd|secret|token|odbc_connect", re.IGNORECASE)


def open_storage(where: str) -> BaseStorage:
    """Open a storage, which is made where there is none yet.

    Args:
        where: A database's URL, such as ``postgresql://user@host/name``; ``memory``; or the path of a journal file.

    Raises:
        RecflowError: If it cannot be opened.
    """
    if where == MEMORY:
        return InMemoryStorage()
    if "://" in where:
        return _database(where)
    path = Path(where)
    if not path.parent.is_dir():
        raise RecflowError(f"The journal {path} cannot be opened: there is no folder {path.parent}.")
    try:
        return JournalStorage(_journal(path))
    except (OSError, ValueError, KeyError) as error:
        raise RecflowError(f"The journal {path} cannot be opened: {' '.join(str(error).split())}") from error


def check_storage(where: str) -> None:
    """Refuse what could never be opened, before anything is written.

    Raises:
        RecflowError: If the text is neither a URL that SQLAlchemy knows, nor ``memory``, nor a journal's path.
    """
    if where == MEMORY:
        return
    if "://" not in where:
        if not re.search(r"\.(log|journal)$", where):
            raise RecflowError(
                f"--storage expects a database's URL, such as postgresql://user@host/name, a journal file that ends "
                f"in .log, or {MEMORY}; got {where!r}."
            )
        return
    with_driver(where)


def public_form(where: str) -> str:
    """A storage's name without its passwords, which belong into no file; what cannot be read shows its kind alone.

    >>> public_form("postgresql://me:se/cret@host/db?sslmode=require&password=secret")
    'postgresql://me@host/db?sslmode=require'
    >>> public_form("postgresql://me:s@cret@host/db")
    'postgresql://…'
    """
    if "://" not in where:
        return where
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    hidden = f"{where.partition('://')[0]}://…"
    try:
        made = make_url(where)
    except (ArgumentError, ValueError):
        return hidden
    if made.host and "@" in f"{made.host}{made.database}":  # a part of the password was taken for something else
        return hidden
    secret = [name for name in made.query if _SECRET.search(name)]
    if made.password is None and not secret:
        return where
    return made.difference_update_query(secret)._replace(password=None).render_as_string(hide_password=True)


def with_driver(url: str) -> str:
    """A database's URL as SQLAlchemy and optuna-dashboard want it; PostgreSQL's names the driver that we bring.

    Raises:
        RecflowError: If it is none.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    spelt = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    try:
        made = make_url(spelt)
        made.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise RecflowError(
            f"--storage {public_form(url)!r} is no database's URL; one reads postgresql://user@host/name or "
            "sqlite:///file.db."
        ) from None
    except ModuleNotFoundError as error:
        raise RecflowError(_missing_driver(url, str(error.name))) from None
    return spelt


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna tells of every trial, and that parts of it are young; both are for others."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message=".*Fixed parameter .* is out of range.*")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _database(url: str) -> BaseStorage:
    from sqlalchemy.exc import SQLAlchemyError

    parsed = with_driver(url)
    try:
        # pre-ping: a connection that idled through a long trial may have been closed
        engine: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.startswith("sqlite"):
            engine = {"connect_args": {"timeout": 60}}
        elif parsed.startswith("postgresql+psycopg:") and "connect_timeout" not in parsed:
            engine["connect_args"] = {"connect_timeout": CONNECT_SECONDS}
        return optuna.storages.get_storage(RDBStorage(parsed, engine_kwargs=engine))
    except ModuleNotFoundError as error:
        raise RecflowError(_missing_driver(url, str(error.name))) from None
    except ImportError as error:  # Optuna's own words for a missing driver
        raise RecflowError(_missing_driver(url, " ".join(str(error).split()))) from None
    except (SQLAlchemyError, RuntimeError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        reason = re.sub(r"\w[\w+]*://\S+", lambda found: public_form(found[0]), reason)
        raise RecflowError(f"The storage {public_form(url)} cannot be opened: {reason}") from None


def _missing_driver(url: str, name: str) -> str:
    advice = "pip install 'recflow[postgres]'" if url.startswith("postgres") else "install it"
    return f"The storage {public_form(url)} needs a driver that is not installed ({name}): {advice}."


def _journal(path: Path) -> BaseJournalBackend:
    if os.name == "nt":
        return JournalFileBackend(str(path))
    return JournalFileBackend(str(path), _KernelLock(path))


class _KernelLock(BaseJournalFileLock):
    """A lock that the kernel lets go of when its process is killed; Optuna's own would keep the others for 30 s.

    Whoever gets it takes a line off that a killed process, or a full disk, left without its end.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock, self._held = path, path.with_name(f".{path.name}.lock"), -1

    def acquire(self) -> bool:
        """See Optuna."""
        import fcntl

        held = os.open(self._lock, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(held, fcntl.LOCK_EX)
        self._held = held
        self._mend()
        return True

    def release(self) -> None:
        """See Optuna."""
        os.close(self._held)

    def _mend(self) -> None:
        with open(self._path, "r+b") as journal:
            size = journal.seek(0, os.SEEK_END)
            if size == 0:
                return
            journal.seek(size - 1)
            if journal.read(1) == b"\n":
                return
            back = min(size, 1 << 20)
            journal.seek(size - back)
            journal.truncate(size - back + journal.read(back).rfind(b"\n") + 1)
