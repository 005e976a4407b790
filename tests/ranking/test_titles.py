"""Titles are found by the beginnings of their words, quickly, whatever people leave out."""

import time

import pytest

from recflow.ranking.catalog import Catalog, Item, write_catalog
from recflow.ranking.titles import TitleIndex

TITLES = [
    "Toy Story (1995)",
    "Story of Us, The (1999)",
    "Amélie (2001)",
    "Spider-Man (2002)",
    "History of Violence, A (2005)",
    "Ocean's Eleven (2001)",
    "Short Story About Us, A (1994)",
    "Smørrebrød (1990)",
]


def index_of(folder, titles):
    items = [Item(n, n + 1, title, None, (), len(titles) - n) for n, title in enumerate(titles)]
    write_catalog(folder / "catalog.sqlite", items, [1])
    return TitleIndex(Catalog(folder / "catalog.sqlite"))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return index_of(tmp_path_factory.mktemp("titles"), TITLES)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("stor", [0, 1, 6]),  # not History: a word begins so; popular ones first
        ("the stor", [1]),
        ("story us", [1, 6]),
        ("us STORY", [1, 6]),
        ("amelie", [2]),
        ("AMÉ", [2]),
        ("spider man", [3]),
        ("man spi", [3]),
        ("oceans 2001", [5]),
        ("ocean's", [5]),
        ("smorreb", [7]),
        ("a short", [6]),
        ("199", [0, 1, 6, 7]),
        ("storyx", []),
        ("", []),
        ("!?", []),
    ],
)
def test_what_is_typed_finds(index, typed, found):
    assert index.search(typed) == found


def test_titles_that_begin_so_come_before_more_popular_ones(tmp_path):
    index = index_of(tmp_path, ["Us and It (2000)", "Bit by It (2001)", "It (2017)"])
    assert index.search("it") == [2, 0, 1]
    assert index.search("it", 2) == [2, 0]


def test_sixty_thousand_titles_are_searched_between_two_keystrokes(tmp_path):
    index = index_of(tmp_path, [f"The {'abcdefgh'[n % 8]}word{n} of Things ({1950 + n % 70})" for n in range(60_000)])
    assert len(index.search("t", 10)) == 10
    started = time.perf_counter()
    for typed in ("t", "th", "the", "things of", "the aword5", "19") * 5:
        index.search(typed, 10)
    assert (time.perf_counter() - started) / 30 < 0.05  # about one thousandth on a quiet core
