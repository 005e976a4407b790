import sqlite3
from array import array
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.errors import RecflowError, UnknownItemError, UnknownUserError
from recflow.ranking import catalog as catalogs
from recflow.ranking.catalog import Catalog, Item, title_key, write_catalog

TITLES = [
    "Matrix, The (1999)",
    "Matrix Reloaded, The (2003)",
    "Heat (1995)",
    "Heat (1986)",
    "Ring (1998)",
    "Ring, The (2002)",
    "100% Wolf (2020)",
    "100 Wolf (2020)",
    "under_score (2001)",
    "underXscore (2001)",
    "Ocean's Eleven (2001)",
    'Say "Cheese" (2010)',
    "Amélie (2001)",
    "千と千尋の神隠し (2001)",
    "Back\\slash (2005)",
    "'; DROP TABLE items; -- (1970)",
    "Misérables, Les (1995)",
    "Bug's Life, A (1998)",
    "1984",
    "No Year At All",
    "Straße (1950)",
]


def build(path, titles=TITLES, item_ids=None, user_ids=(7, 3, 900)) -> Catalog:
    ids = item_ids or [100 + item for item in range(len(titles))]
    items = [
        Item(item, item_id, title, None if "(" not in title else 1999, ("Drama", "Sci-Fi"), popularity=item)
        for item, (item_id, title) in enumerate(zip(ids, titles, strict=True))
    ]
    write_catalog(path, items, user_ids)
    return Catalog(path)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    return build(tmp_path / "catalog.sqlite")


def found(catalog: Catalog, text) -> str:
    return catalog.find(text).title


class TestTitles:
    @pytest.mark.parametrize("title", TITLES)
    def test_every_title_finds_itself(self, catalog, title):
        assert found(catalog, title) == title

    @pytest.mark.parametrize("title", TITLES)
    @pytest.mark.parametrize("change", [str.upper, str.lower, lambda text: f"  {text.replace(' ', '   ')} "])
    def test_case_and_spaces_do_not_matter(self, catalog, title, change):
        assert found(catalog, change(title)) == title

    @pytest.mark.parametrize(
        "text",
        ["The Matrix (1999)", "the matrix", "Matrix, The", "matrix, the (1999)", "matrix", "Matrix (1999)", "MATRIX"],
    )
    def test_a_trailing_article_may_stand_in_front_or_nowhere(self, catalog, text):
        assert found(catalog, text) == "Matrix, The (1999)"

    @pytest.mark.parametrize(
        ("text", "title"),
        [
            ("les misérables", "Misérables, Les (1995)"),
            ("misérables", "Misérables, Les (1995)"),
            ("a bug's life (1998)", "Bug's Life, A (1998)"),
            ("the matrix reloaded", "Matrix Reloaded, The (2003)"),
            ("the amélie", "Amélie (2001)"),
        ],
    )
    def test_so_may_others(self, catalog, text, title):
        assert found(catalog, text) == title

    def test_an_article_that_is_given_tells_titles_apart(self, catalog):
        assert found(catalog, "ring") == "Ring (1998)"
        assert found(catalog, "the ring") == "Ring, The (2002)"

    @pytest.mark.parametrize(
        ("text", "title"),
        [
            ("100% wolf", "100% Wolf (2020)"),
            ("100 wolf", "100 Wolf (2020)"),
            ("under_score", "under_score (2001)"),
            ("ocean's eleven", "Ocean's Eleven (2001)"),
            ('say "cheese"', 'Say "Cheese" (2010)'),
            ("back\\slash", "Back\\slash (2005)"),
            ("'; drop table items; --", "'; DROP TABLE items; -- (1970)"),
            ("千と千尋の神隠し", "千と千尋の神隠し (2001)"),
            ("STRASSE", "Straße (1950)"),
            ("Ame\u0301lie", "Amélie (2001)"),  # the accent as a sign of its own, as macOS writes it
        ],
    )
    def test_wildcards_quotes_and_other_alphabets_mean_themselves(self, catalog, text, title):
        assert found(catalog, text) == title

    @pytest.mark.parametrize(
        "text", ["%", "_", "100_ wolf", "underscore_", "%matrix%", "", "   ", "(1999)", ".*", "the"]
    )
    def test_wildcards_match_nothing_else(self, catalog, text):
        with pytest.raises(UnknownItemError, match="There is no item"):
            catalog.find(text)

    def test_a_title_that_fits_several_lists_them_with_their_ids_best_known_first(self, catalog):
        with pytest.raises(UnknownItemError) as refused:
            catalog.find("heat")
        assert str(refused.value) == (
            "'heat' could be any of: Heat (1986) (id 103); Heat (1995) (id 102); give the id or the whole title."
        )

    def test_two_items_of_one_title_are_told_apart_by_id_alone(self, tmp_path):
        catalog = build(tmp_path / "twins.sqlite", ["Twins (1988)", "Twins (1988)"])
        with pytest.raises(UnknownItemError, match=r"id 100.*id 101"):
            catalog.find("Twins (1988)")
        assert catalog.find(101).item == 1

    @pytest.mark.parametrize(
        ("text", "close"),
        [
            ("The Matrx (1999)", "Matrix, The (1999)"),
            ("ocean eleven", "Ocean's Eleven (2001)"),
            ("amelie", "Amélie (2001)"),
            ("reloaded", "Matrix Reloaded, The (2003)"),
        ],
    )
    def test_a_misspelt_title_is_answered_with_a_close_one(self, catalog, text, close):
        with pytest.raises(UnknownItemError, match="did you mean") as refused:
            catalog.find(text)
        assert repr(close) in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_many_titles_without_their_article_cost_no_more_than_one(self, catalog):
        asked = []
        catalog._connection.set_trace_callback(asked.append)
        for _ in range(20):
            assert found(catalog, "Misérables") == "Misérables, Les (1995)"
            assert found(catalog, "the heat (1995)") == "Heat (1995)"
        assert sum("FROM items ORDER BY" in query for query in asked) == 1  # which reads all of them

    def test_while_one_guesses_the_others_go_without(self, catalog):
        with catalog._guessing, pytest.raises(UnknownItemError, match="check the spelling"):
            catalog.find("ocean eleven")
        with pytest.raises(UnknownItemError, match="did you mean"):
            catalog.find("ocean eleven")

    def test_a_title_like_no_other_gets_no_guess(self, catalog):
        with pytest.raises(
            UnknownItemError, match="There is no item 'qqqqqqqq' in this run's data; check the spelling"
        ):
            catalog.find("qqqqqqqq")

    def test_keys_have_the_article_in_front(self):
        assert title_key("Matrix,  The (1999)") == title_key("THE matrix (1999)") == "the matrix (1999)"
        assert title_key("Thematrix") == "thematrix"


class TestIds:
    def test_whole_numbers_are_found_as_numbers_and_as_text(self, catalog):
        assert catalog.item(102) == catalog.item("102") == catalog.find("102") == catalog.find(102)
        assert catalog.item(102) == Item(2, 102, "Heat (1995)", 1999, ("Drama", "Sci-Fi"), 2)
        assert (catalog.user(3), catalog.user("3"), catalog.user_id(1)) == (1, 1, 3)

    def test_an_id_goes_before_a_title_of_the_same_digits(self, tmp_path):
        catalog = build(tmp_path / "digits.sqlite", ["300", "Other"], item_ids=[5, 300])
        assert found(catalog, "300") == "Other"
        assert found(catalog, "5") == "300"

    def test_text_ids_stay_text(self, tmp_path):
        ids = ["tt0133093", "007", "7", "O'Hara", "ключ"]
        catalog = build(tmp_path / "text.sqlite", list("abcde"), item_ids=ids, user_ids=["u-1", "1", "01"])
        assert [catalog.item(item_id).item for item_id in ids] == [0, 1, 2, 3, 4]
        assert catalog.item(7).item == 2
        assert [catalog.user(user_id) for user_id in ("u-1", "1", "01", 1)] == [0, 1, 2, 1]
        assert catalog.item("007").item_id == "007"

    @pytest.mark.parametrize(
        "user_id", [4, "4", "nobody", "", "3.0", 2**70, -(2**70), "9" * 5000, "3; DROP TABLE users"]
    )
    def test_an_unknown_user_is_refused_and_examples_are_given(self, catalog, user_id):
        with pytest.raises(UnknownUserError, match="it has 3 users, such as 7, 3, 900") as refused:
            catalog.user(user_id)
        assert f"There is no user {user_id!r}" in str(refused.value)

    @pytest.mark.parametrize("item_id", [99, "99", "matrix", 2**63, "1" * 30])
    def test_an_unknown_item_id_is_refused(self, catalog, item_id):
        with pytest.raises(UnknownItemError, match="There is no item with the id"):
            catalog.item(item_id)

    def test_the_refusals_are_recflow_errors(self):
        assert issubclass(UnknownUserError, RecflowError)
        assert issubclass(UnknownItemError, RecflowError)

    def test_two_items_of_one_id_are_not_written(self, tmp_path):
        with pytest.raises(sqlite3.IntegrityError):
            build(tmp_path / "twice.sqlite", ["a", "b"], item_ids=[1, 1])

    def test_a_catalogue_without_users_is_refused(self, tmp_path):
        with pytest.raises(RecflowError, match="holds no users"):
            build(tmp_path / "nobody.sqlite", user_ids=())


class TestManyUsers:
    """What one query finds for many users is what `user` and `user_id` find for each."""

    @pytest.mark.parametrize("user_ids", [range(1000, 1050), [f"u-{number:02d}" for number in range(50)]])
    @pytest.mark.parametrize("batch", [1, 7, 50, 20_000])
    def test_ids_and_indices_go_both_ways_in_the_order_given(self, tmp_path, monkeypatch, user_ids, batch):
        monkeypatch.setattr(catalogs, "_BATCH", batch)
        catalog = build(tmp_path / "catalog.sqlite", user_ids=user_ids)
        asked = [17, 3, 3, 49, 0, *range(20, 40)]
        ids = [user_ids[user] for user in asked]
        assert catalog.user_ids(asked) == ids == [catalog.user_id(user) for user in asked]
        assert catalog.users(ids) == array("q", asked)
        assert catalog.users(iter(map(str, ids))) == array("q", [catalog.user(str(user_id)) for user_id in ids])
        assert catalog.user_ids() == list(user_ids)

    @settings(max_examples=15, deadline=None)
    @given(user_ids=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), unique=True))
    def test_any_text_is_an_id(self, tmp_path_factory, user_ids):
        user_ids = ["somebody else", *(user_id for user_id in user_ids if user_id != "somebody else")]
        catalog = build(tmp_path_factory.mktemp("text") / "catalog.sqlite", ["Heat"], user_ids=user_ids)
        assert list(catalog.users(reversed(user_ids))) == list(reversed(range(len(user_ids))))
        assert catalog.user_ids(range(len(user_ids))) == user_ids

    def test_large_and_negative_numbers_and_numpy_s_own_are_found(self, tmp_path):
        user_ids = [2**63 - 1, -(2**63) + 1, 0, -5]
        catalog = build(tmp_path / "large.sqlite", user_ids=user_ids)
        assert list(catalog.users([np.int64(2**63 - 1), "-5", 0, str(user_ids[1])])) == [0, 3, 2, 1]
        assert catalog.user_ids([1, 0]) == [user_ids[1], user_ids[0]]

    @pytest.mark.parametrize("batch", [1, 2, 100])
    def test_the_first_unknown_one_is_named_and_the_others_are_counted(self, catalog, monkeypatch, batch):
        monkeypatch.setattr(catalogs, "_BATCH", batch)
        with pytest.raises(UnknownUserError) as refused:
            catalog.users([7, "nobody", 3, 4, 2**70])
        assert str(refused.value) == (
            "There is no user 'nobody' in this run's data, nor 2 more of the 5 given; "
            "it has 3 users, such as 7, 3, 900."
        )
        with pytest.raises(UnknownUserError, match=r"There is no user 8 in this run's data; it has 3"):
            catalog.users([8])

    def test_nobody_is_nobody(self, catalog):
        assert len(catalog.users([])) == 0
        assert catalog.user_ids([]) == []


class TestLists:
    def test_item_ids_are_by_index(self, catalog, tmp_path):
        assert catalog.item_ids() == [100 + item for item in range(len(TITLES))]
        assert build(tmp_path / "text.sqlite", ["x", "y"], item_ids=["b", "a"]).item_ids() == ["b", "a"]

    def test_items_come_in_the_order_asked_for(self, catalog):
        assert [item.title for item in catalog.items([4, 0, 4, 2])] == [TITLES[index] for index in (4, 0, 4, 2)]
        assert catalog.items([]) == []

    def test_a_list_may_be_longer_than_sqlite_allows_parameters(self, catalog):
        catalog._connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 5)  # 32,766 unless it was built otherwise
        assert [item.item for item in catalog.items(range(len(TITLES)))] == list(range(len(TITLES)))

    def test_popularity_is_by_index(self, catalog):
        assert catalog.popularity() == list(range(len(TITLES)))

    def test_an_item_without_a_year_has_none(self, catalog):
        assert catalog.find("No Year At All").year is None


def test_a_path_may_hold_any_sign(tmp_path):
    folder = tmp_path / "a #1? 50% ü"
    folder.mkdir()
    assert found(build(folder / "catalog.sqlite"), "matrix") == "Matrix, The (1999)"


def test_threads_share_a_catalogue(catalog):
    with ThreadPoolExecutor(8) as pool:
        titles = list(pool.map(lambda number: found(catalog, 100 + number % len(TITLES)), range(2000)))
    assert titles == [TITLES[number % len(TITLES)] for number in range(2000)]


def test_a_catalogue_is_never_written_to(catalog):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        catalog._connection.execute("DELETE FROM items")
