"""Titles and raw ids of a bundle, in a small SQLite file: nothing but the standard library reads it."""

from __future__ import annotations

import difflib
import json
import re
import sqlite3
import threading
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from recflow.errors import RecflowError, UnknownItemError, UnknownUserError

Id = int | str

_SCHEMA = """
CREATE TABLE items (item INTEGER PRIMARY KEY, item_id NOT NULL, title TEXT NOT NULL, year INTEGER,
                    genres TEXT NOT NULL, popularity INTEGER NOT NULL, key TEXT NOT NULL);
CREATE TABLE users (user INTEGER PRIMARY KEY, user_id NOT NULL);
"""
_INDICES = """
CREATE UNIQUE INDEX items_by_id ON items (item_id);
CREATE INDEX items_by_key ON items (key);
CREATE UNIQUE INDEX users_by_id ON users (user_id);
"""
_BATCH = 20_000  # ids asked for by one query
_ARTICLES = "the|a|an|la|le|les|il|el|das|der|die"


@dataclass(frozen=True)
class Item:
    """What is known of an item beside its ratings."""

    item: int
    item_id: Id
    title: str
    year: int | None
    genres: tuple[str, ...]
    popularity: int


def write_catalog(path: Path, items: Iterable[Item], user_ids: Iterable[Id]) -> None:
    """Write titles and ids to a new SQLite file."""
    with sqlite3.connect(path) as connection:
        connection.executescript(_SCHEMA)
        connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (i.item, i.item_id, i.title, i.year, json.dumps(i.genres), i.popularity, title_key(i.title))
                for i in items
            ),
        )
        connection.executemany("INSERT INTO users VALUES (?, ?)", enumerate(user_ids))
        connection.executescript(_INDICES)
    connection.close()


class Catalog:
    """Reads what :func:`write_catalog` wrote. Safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
        self._user_type = self._type_of("user_id", "users")
        self._item_type = self._type_of("item_id", "items")
        self._guessing = threading.Lock()

    def user(self, user_id: Id) -> int:
        """The index of a user.

        Raises:
            UnknownUserError: If no such user was in the data.
        """
        row = self._one("SELECT user FROM users WHERE user_id = ?", _typed(user_id, self._user_type))
        if row is None:
            raise UnknownUserError(f"There is no user {user_id!r} in this run's data; {self._example_user()}")
        return int(row[0])

    def user_id(self, user: int) -> Id:
        """The raw id of a user index."""
        return self._one("SELECT user_id FROM users WHERE user = ?", user)[0]  # type: ignore[index]

    def users(self, user_ids: Iterable[Id]) -> array[int]:
        """The indices of many users, in the order given; the ids are read a few at a time.

        Raises:
            UnknownUserError: If any was not in the data; the message names the first and counts the others.
        """
        # json_each keeps the order, and a LEFT JOIN the place of those that are not there
        query = "SELECT user FROM json_each(?) AS given LEFT JOIN users ON user_id = given.value ORDER BY given.key"
        found, unknown, total, first = array("q"), 0, 0, None
        for batch in _batches(user_ids):
            typed = [_typed(user_id, self._user_type) for user_id in batch]
            rows = self._connection.execute(query, [json.dumps(typed)]).fetchall()
            missing = [place for place, (user,) in enumerate(rows) if user is None]
            if missing and first is None:
                first = batch[missing[0]]
            total, unknown = total + len(batch), unknown + len(missing)
            found.extend(user for (user,) in rows if user is not None)
        if first is not None:
            others = f", nor {unknown - 1:,} more of the {total:,} given" if unknown > 1 else ""
            raise UnknownUserError(f"There is no user {first!r} in this run's data{others}; {self._example_user()}")
        return found

    def user_ids(self, users: Sequence[int] | None = None) -> list[Id]:
        """The raw ids of many user indices, in the order given; of all users, by index, if None."""
        if users is None:
            return [row[0] for row in self._connection.execute("SELECT user_id FROM users ORDER BY user")]
        query = "SELECT user_id FROM json_each(?) AS given JOIN users ON user = given.value ORDER BY given.key"
        rows = (self._connection.execute(query, [json.dumps(batch)]) for batch in _batches(users))
        return [user_id for batch in rows for (user_id,) in batch]

    def item_ids(self) -> list[Id]:
        """The raw id of every item, by item index."""
        return [row[0] for row in self._connection.execute("SELECT item_id FROM items ORDER BY item")]

    def items(self, items: Sequence[int]) -> list[Item]:
        """What is known of some items, in the order given."""
        # one array, not one parameter each: SQLite allows only so many of those
        query = "SELECT * FROM items WHERE item IN (SELECT value FROM json_each(?))"
        rows = self._connection.execute(query, [json.dumps(list(items))]).fetchall()
        found = {row[0]: _item(row) for row in rows}
        return [found[item] for item in items]

    def years_and_genres(self) -> Iterator[tuple[int | None, tuple[str, ...]]]:
        """The year and the genres of every item, by item index."""
        read: dict[str, tuple[str, ...]] = {}  # there are few combinations
        for year, text in self._connection.execute("SELECT year, genres FROM items ORDER BY item"):
            if text not in read:
                read[text] = tuple(json.loads(text))
            yield year, read[text]

    def titles(self) -> list[tuple[int, str]]:
        """Index and title of every item, the most popular first."""
        return self._connection.execute("SELECT item, title FROM items ORDER BY popularity DESC, item").fetchall()

    def item(self, item_id: Id) -> Item:
        """The item with a raw id.

        Raises:
            UnknownItemError: If no such item was in the data.
        """
        row = self._one("SELECT * FROM items WHERE item_id = ?", _typed(item_id, self._item_type))
        if row is None:
            raise UnknownItemError(f"There is no item with the id {item_id!r} in this run's data.")
        return _item(row)

    def find(self, text: Id) -> Item:
        """The item that a person means by an id or a title.

        A title is matched without regard to case, to where its article stands (``The Matrix`` is ``Matrix, The``),
        and, if that leaves no doubt, to the year; if nothing fits so, without regard to the article at all.

        Raises:
            UnknownItemError: If nothing, or more than one item, fits.
        """
        by_id = self._one("SELECT * FROM items WHERE item_id = ?", _typed(text, self._item_type))
        if by_id is not None:
            return _item(by_id)
        key = title_key(str(text))
        rows = self._connection.execute("SELECT * FROM items WHERE key = ?", [key]).fetchall()
        if not rows:
            prefix = re.sub(r"([\\%_])", r"\\\1", key)
            rows = self._connection.execute(
                # the two bounds are what lets SQLite use its index: a LIKE alone reads all titles
                "SELECT * FROM items WHERE key >= ? AND key < ? AND key LIKE ? ESCAPE '\\' ORDER BY popularity DESC",
                [f"{key} (", f"{key} )", f"{prefix} (____)"],
            ).fetchall()
        rows = rows or self._but_for_the_article(key)
        if len(rows) == 1:
            return _item(rows[0])
        if rows:
            listed = "; ".join(f"{row[2]} (id {row[1]})" for row in rows[:5])
            raise UnknownItemError(f"{text!r} could be any of: {listed}; give the id or the whole title.")
        close = self._close_titles(key)
        hint = f"did you mean {' or '.join(repr(title) for title in close)}?" if close else "check the spelling."
        raise UnknownItemError(f"There is no item {text!r} in this run's data; {hint}")

    def popularity(self) -> list[int]:
        """The number of known interactions of each item, by item index."""
        return [row[0] for row in self._connection.execute("SELECT popularity FROM items ORDER BY item")]

    def _but_for_the_article(self, key: str) -> list[tuple[Any, ...]]:
        bare = re.sub(rf"^({_ARTICLES}) ", "", key)
        alike = re.compile(rf"(({_ARTICLES}) )?{re.escape(bare)}( \(\d{{4}}\))?")
        fitting = [item for item, known in self._by_core.get(_core(key), ()) if alike.fullmatch(known)]
        return [
            row for item in fitting for row in self._connection.execute("SELECT * FROM items WHERE item = ?", [item])
        ]

    @cached_property
    def _by_core(self) -> dict[str, list[tuple[int, str]]]:
        """Items and keys, best known first, by what a title is called without article and year."""
        # Kept, since it takes all titles: a history of a thousand would read them a thousand times.
        found = defaultdict(list)
        for item, key in self._connection.execute("SELECT item, key FROM items ORDER BY popularity DESC"):
            found[_core(key)].append((item, key))
        return dict(found)

    def _close_titles(self, key: str) -> list[str]:
        # Comparing with all titles takes long (60,000: half a second). One at a time, lest a few callers who cannot
        # spell, or will not, take a whole service; the others go without a hint.
        if not self._guessing.acquire(blocking=False):
            return []
        try:
            return self._closest(key)
        finally:
            self._guessing.release()

    def _closest(self, key: str) -> list[str]:
        titles = dict(self._connection.execute("SELECT key, title FROM items ORDER BY popularity"))
        without_year: dict[str, str] = {re.sub(r" \(\d{4}\)$", "", known): known for known in titles}
        inside = [known for known in titles if len(key) > 3 and key in known]
        close = difflib.get_close_matches(key, titles, n=2) or difflib.get_close_matches(key, without_year, n=2)
        return [titles[without_year.get(match, match)] for match in (inside[-2:] or close)]

    def _example_user(self) -> str:
        rows = [row[0] for row in self._connection.execute("SELECT user_id FROM users ORDER BY user LIMIT 3")]
        count = self._one("SELECT count(*) FROM users")
        return f"it has {count[0] if count else 0:,} users, such as {', '.join(map(repr, rows))}."

    def _type_of(self, column: str, table: str) -> type:
        row = self._one(f"SELECT {column} FROM {table} LIMIT 1")
        if row is None:
            raise RecflowError(f"The bundle's catalogue holds no {table}.")
        return type(row[0])

    def _one(self, query: str, *values: Id | None) -> tuple[Id, ...] | None:
        row: tuple[Id, ...] | None = self._connection.execute(query, values).fetchone()
        return row


def title_key(title: str) -> str:
    """The form in which titles are compared: lower case, article in front.

    >>> title_key("Matrix, The (1999)"), title_key("the matrix (1999)")
    ('the matrix (1999)', 'the matrix (1999)')
    """
    key = " ".join(unicodedata.normalize("NFC", title).casefold().split())
    moved = re.fullmatch(rf"(.*), ({_ARTICLES})( \(\d{{4}}\))?", key)
    return f"{moved[2]} {moved[1]}{moved[3] or ''}" if moved else key


def _core(key: str) -> str:
    """A key without its articles and its year.

    >>> _core("the matrix (1999)"), _core("matrix"), _core("the the")
    ('matrix', 'matrix', 'the')
    """
    return re.sub(rf"^(?:(?:{_ARTICLES}) )*(.*?)(?: \(\d{{4}}\))?$", r"\1", key)


def _typed(value: Id, kind: type[Id]) -> Id | None:
    """A raw id as the data holds it: the command line and URLs know only text; None fits no row."""
    if kind is str:
        return str(value)
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?[0-9]{1,30}\s*", value):
        return None  # Python would take 1_0 for 10, and other alphabets' digits
    number = int(value)
    return number if abs(number) < 2**63 else None


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(values)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _item(row: Sequence[Any]) -> Item:
    item, item_id, title, year, genres, popularity = row[:6]
    return Item(
        int(item),
        item_id,
        str(title),
        None if year is None else int(year),
        tuple(json.loads(str(genres))),
        int(popularity),
    )
