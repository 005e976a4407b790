"""The table, its vocabulary, and what the filters take."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.interactions import RawData, build_interactions
from recflow.errors import RecflowError


def raw_data(rows, *, items=None, users=None, id_type=pl.Int64):
    schema = {"user_id": id_type, "item_id": id_type, "rating": pl.Float32, "time": pl.Int64}
    ratings = pl.DataFrame(rows, schema=schema, orient="row")
    return RawData(
        "tiny",
        "0" * 64,
        ratings,
        items if items is not None else pl.DataFrame({"item_id": ratings["item_id"].unique()}),
        users if users is not None else pl.DataFrame({"user_id": ratings["user_id"].unique()}),
    )


def test_indices_follow_the_sorted_ids_and_lead_back_to_them():
    raw = raw_data([(30, 7, 5, 1), (10, 9, 4, 2), (30, 8, 3, 3)])
    data = build_interactions(raw)
    assert data.users["user_id"].to_list() == [10, 30]
    assert data.items["item_id"].to_list() == [7, 8, 9]
    assert data.table.rows() == [(0, 2, 4.0, 2), (1, 0, 5.0, 1), (1, 1, 3.0, 3)]
    assert data.table.schema == {"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32, "time": pl.Int64}
    assert (data.num_users, data.num_items, data.filters, data.notices) == (2, 3, "none", ())


def test_ids_may_be_text():
    data = build_interactions(raw_data([("b", "y", 5, 1), ("a", "x", 4, 2)], id_type=pl.String))
    assert data.users["user_id"].to_list() == ["a", "b"]
    assert data.table.rows() == [(0, 0, 4.0, 2), (1, 1, 5.0, 1)]


def test_a_users_rows_keep_the_order_of_the_file():
    data = build_interactions(raw_data([(2, 3, 5, 9), (1, 3, 5, 1), (2, 1, 5, 5), (2, 2, 5, 7)]))
    assert data.table.filter(pl.col("user") == 1)["item"].to_list() == [2, 0, 1]


def test_the_latest_of_duplicated_rows_is_kept_and_told():
    raw = raw_data([(1, 1, 5, 10), (1, 1, 2, 30), (1, 1, 4, 20), (1, 2, 1, 5), (1, 2, 3, 5)])
    data = build_interactions(raw)
    assert data.table.select("item", "rating").rows() == [(0, 2.0), (1, 3.0)]  # of equal times the last in the file
    assert data.filters == "3 duplicates"
    assert "3 duplicated" in data.notices[0]


def test_a_withdrawn_opinion_does_not_survive_drop_below():
    raw = raw_data([(1, 1, 5, 10), (1, 1, 1, 20), (1, 2, 4, 5), (2, 1, 4, 0)])
    data = build_interactions(raw, drop_below=3)
    assert data.table.select("user", "item").rows() == [(0, 1), (1, 0)]
    assert data.dropped.rows() == [(0, 0, 1.0)]
    assert data.filters == "rating >= 3, 1 duplicates"


def test_drop_below_keeps_its_own_value_and_remembers_only_pairs_that_remain_in_the_vocabulary():
    raw = raw_data([(1, 1, 3, 0), (1, 2, 2, 0), (2, 2, 5, 0), (2, 3, 1, 0), (3, 1, 1, 0)])
    data = build_interactions(raw, drop_below=3)
    assert data.table["rating"].to_list() == [3.0, 5.0]
    assert data.users["user_id"].to_list() == [1, 2]
    assert data.items["item_id"].to_list() == [1, 2]
    assert data.dropped.rows() == [(0, 1, 2.0)]  # item 3 and user 3 are gone, (1, 2) is not
    assert data.dropped.schema == {"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32}
    assert data.rating_scale == (1.0, 5.0)  # what a new user may still give


def test_the_threshold_is_compared_in_the_precision_of_the_ratings():
    data = build_interactions(raw_data([(1, 1, 4.1, 0), (1, 2, 4.0, 0)]), drop_below=4.1)
    assert data.table.height == 1


def test_k_core_reaches_its_fixed_point():
    # user 3 falls first, item 3 with him, then user 2 who needed item 3
    rows = [(1, 1, 5, 0), (1, 2, 5, 0), (4, 1, 5, 0), (4, 2, 5, 0), (2, 1, 5, 0), (2, 3, 5, 0), (3, 3, 5, 0)]
    data = build_interactions(raw_data(rows), k_core=2)
    assert data.users["user_id"].to_list() == [1, 4]
    assert data.table.height == 4
    assert data.filters == "2-core, 0 duplicates"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(0, 3)), min_size=1),
    st.integers(0, 4),
    st.sampled_from([None, 1, 2, 3]),
)
def test_any_result_satisfies_its_filters_and_loses_no_row_that_does(rows, k_core, drop_below):
    latest = {}
    for user, item, rating, time in rows:
        if (user, item) not in latest or time >= latest[user, item][1]:
            latest[user, item] = (rating, time)
    alive = {pair for pair, (rating, _) in latest.items() if drop_below is None or rating >= drop_below}
    while True:
        users, items = ([pair[axis] for pair in alive] for axis in (0, 1))
        rest = {p for p in alive if users.count(p[0]) >= k_core and items.count(p[1]) >= k_core}
        if rest == alive:
            break
        alive = rest
    try:
        data = build_interactions(raw_data(rows), k_core=k_core, drop_below=drop_below)
    except RecflowError:
        assert not alive or (drop_below is not None and drop_below > max(row[2] for row in rows))
        return
    found = {
        (data.users["user_id"][user], data.items["item_id"][item]): (rating, time)
        for user, item, rating, time in data.table.rows()
    }
    assert found == {pair: latest[pair] for pair in alive}
    gone = {(data.users["user_id"][user], data.items["item_id"][item]) for user, item, _ in data.dropped.rows()}
    remain = {user for user, _ in alive}, {item for _, item in alive}
    assert gone == {pair for pair in latest if pair not in alive and pair[0] in remain[0] and pair[1] in remain[1]}
    assert np.bincount(data.table["user"]).min() >= max(1, k_core)


def test_items_are_described_and_those_unknown_to_the_catalogue_named_by_their_id():
    items = pl.DataFrame(
        {"item_id": [2, 5], "title": ["Two (1999)", "Five"], "year": [1999, None], "genres": [["War"], []]}
    )
    data = build_interactions(raw_data([(1, 9, 5, 0), (1, 2, 5, 0)], items=items))
    assert data.items.rows() == [(2, "Two (1999)", 1999, ["War"]), (9, "9", None, [])]
    assert data.items.columns == ["item_id", "title", "year", "genres"]


def test_users_keep_their_features_beside_their_index():
    users = pl.DataFrame({"age": [30, 40, 50], "user_id": [3, 2, 1]})
    data = build_interactions(raw_data([(3, 1, 5, 0), (1, 1, 5, 0)], users=users))
    assert data.users.rows() == [(1, 50), (3, 30)]


def test_given_folds_travel_with_their_rows():
    raw = raw_data([(2, 1, 5, 0), (1, 1, 5, 0), (1, 2, 1, 0)])
    raw = RawData("t", "", raw.ratings.with_columns(pl.Series("fold", [3, 1, 2], dtype=pl.Int8)), raw.items, raw.users)
    assert build_interactions(raw, drop_below=2).table["fold"].to_list() == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k_core": -1}, "k_core is -1"),
        ({"drop_below": 5.5}, "drop_below is 5.5, expected at most tiny's highest rating, 5"),
        ({"drop_below": float("nan")}, "drop_below is nan"),
        ({"drop_below": 4, "k_core": 3}, r"no ratings are left of 2 \(rating >= 4 took 1, 3-core took 1\)"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(RecflowError, match=message):
        build_interactions(raw_data([(1, 1, 5, 0), (1, 2, 3, 0)]), **arguments)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [1.0]}), "lack the columns time"),
        (pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [float("nan")], "time": [0]}), "not a finite number"),
        (
            pl.DataFrame({"user_id": [1, None], "item_id": [1, 2], "rating": [1.0, 2], "time": [0, 0]}),
            "1 rows have no user_id",
        ),
        (pl.DataFrame({"user_id": [], "item_id": [], "rating": [], "time": []}), "no ratings in it"),
    ],
)
def test_unusable_ratings_are_refused(ratings, message):
    nothing = pl.DataFrame()
    with pytest.raises(RecflowError, match=message):
        build_interactions(RawData("tiny", "", ratings, nothing, nothing))


def test_a_catalogue_with_ids_of_another_type_is_refused():
    with pytest.raises(RecflowError, match="item_id is String among features"):
        build_interactions(raw_data([(1, 1, 5, 0)], items=pl.DataFrame({"item_id": ["1"]})))


# items 3 and 4 are without genre, 2 and 4 of unknown year, and the catalogue does not know items from 5 on
CATALOGUE = {0: (1985, ["War"]), 1: (1995, ["War", "Noir"]), 2: (None, ["Noir"]), 3: (1990, []), 4: (None, None)}


def with_catalogue(rows, catalogue=CATALOGUE, negatives=()):
    columns = {
        "item_id": list(catalogue),
        "title": [f"Film {item}" for item in catalogue],
        "year": pl.Series([year for year, _ in catalogue.values()], dtype=pl.Int32),
        "genres": pl.Series([genres for _, genres in catalogue.values()], dtype=pl.List(pl.String)),
    }
    pairs = pl.DataFrame(list(negatives), schema={"user_id": pl.Int64, "item_id": pl.Int64}, orient="row")
    return replace(raw_data(rows, items=pl.DataFrame(columns)), negatives=pairs)


def ids_of(data, pairs):
    return {(data.users["user_id"][row[0]], data.items["item_id"][row[1]]) for row in pairs.rows()}


def filtered(rows, *, require_genre=False, years=None, drop_below=None, min_item_ratings=0, k_core=0):
    """The rules one at a time in their order; the pairs that are left, and those that there were."""
    latest = {}
    for user, item, rating, time in rows:
        if (user, item) not in latest or time >= latest[user, item][1]:
            latest[user, item] = (rating, time)
    alive = set(latest)
    if require_genre:
        alive = {pair for pair in alive if CATALOGUE.get(pair[1], (None, None))[1]}
    if years is not None:
        released = {item: year for item, (year, _) in CATALOGUE.items() if year is not None}
        alive = {pair for pair in alive if pair[1] in released and years[0] <= released[pair[1]] <= years[1]}
    if drop_below is not None:
        alive = {pair for pair in alive if latest[pair][0] >= drop_below}
    items = [item for _, item in alive]
    alive = {pair for pair in alive if items.count(pair[1]) >= min_item_ratings}
    while True:
        users, items = ([pair[axis] for pair in alive] for axis in (0, 1))
        rest = {pair for pair in alive if users.count(pair[0]) >= k_core and items.count(pair[1]) >= k_core}
        if rest == alive:
            return alive, set(latest)
        alive = rest


class TestItemRules:
    rows = st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=60
    )
    rules = st.fixed_dictionaries(
        {},
        optional={
            "require_genre": st.booleans(),
            "years": st.sampled_from([None, (1985, 1990), (1990, 1995), [1980, 2000]]),
            "drop_below": st.sampled_from([None, 1, 2, 3]),
            "min_item_ratings": st.integers(0, 4),
            "k_core": st.integers(0, 3),
        },
    )

    @settings(max_examples=150, deadline=None)
    @given(rows, rules, st.sets(st.tuples(st.integers(0, 7), st.integers(0, 8))))
    def test_take_what_they_say_and_no_more_whatever_they_are_combined_with(self, rows, rules, negatives):
        rows = [*rows, (0, 1, 5, 9)]  # no threshold lies above every rating
        alive, given_pairs = filtered(rows, **rules)
        raw = with_catalogue(rows, negatives=negatives)
        if not alive:
            with pytest.raises(RecflowError, match=f"tiny: no ratings are left of {len(rows)} "):
                build_interactions(raw, **rules)
            return
        data = build_interactions(raw, **rules)
        assert ids_of(data, data.table) == alive
        users, items = {user for user, _ in alive}, {item for _, item in alive}
        assert (set(data.users["user_id"]), set(data.items["item_id"])) == (users, items)
        assert ids_of(data, data.dropped) == {
            pair for pair in given_pairs - alive if pair[0] in users and pair[1] in items
        }
        assert ids_of(data, data.negatives) == {pair for pair in negatives if pair[0] in users and pair[1] in items}
        assert data.negatives.rows() == sorted(set(data.negatives.rows()))
        assert data.negatives.schema == {"user": pl.Int32, "item": pl.Int32}

    def test_keep_items_with_a_genre_and_not_those_that_nothing_is_known_of(self):
        data = build_interactions(with_catalogue([(1, item, 5, 0) for item in range(7)]), require_genre=True)
        assert data.items["item_id"].to_list() == [0, 1, 2]
        assert data.filters == "items with a genre, 0 duplicates"

    def test_keep_the_first_and_the_last_year_and_not_items_of_unknown_year(self):
        data = build_interactions(with_catalogue([(1, item, 5, 0) for item in range(7)]), years=(1985, 1990))
        assert data.items["item_id"].to_list() == [0, 3]
        assert data.items["year"].to_list() == [1985, 1990]
        assert data.filters == "released 1985 to 1990, 0 duplicates"

    def test_count_an_items_ratings_after_drop_below_and_not_again_after_the_k_core(self):
        # item 0 has three ratings, one of them low; item 1 keeps three, until the 2-core takes user 9
        rows = [(1, 0, 5, 0), (2, 0, 5, 0), (3, 0, 1, 0), (1, 1, 5, 0), (2, 1, 5, 0), (9, 1, 5, 0)]
        rows += [(user, 2, 5, 0) for user in (1, 2, 3)] + [(3, 6, 4, 0)]
        data = build_interactions(with_catalogue(rows), drop_below=2, min_item_ratings=3, k_core=2)
        assert data.users["user_id"].to_list() == [1, 2]
        assert data.items["item_id"].to_list() == [1, 2]
        assert data.table.height == 4
        assert data.filters == "rating >= 2, items with 3 ratings or more, 2-core, 0 duplicates"

    def test_are_named_in_the_order_in_which_they_are_applied(self):
        rows = [(user, item, 5, 0) for user in range(3) for item in range(4)] + [(0, 1, 4, 1)]
        data = build_interactions(
            with_catalogue(rows), k_core=2, min_item_ratings=2, drop_below=1.5, years=[1985, 1995], require_genre=True
        )
        assert data.filters == (
            "items with a genre, released 1985 to 1995, rating >= 1.5, items with 2 ratings or more, 2-core, "
            "1 duplicates"
        )

    def test_that_ask_for_nothing_are_not_named(self):
        raw = with_catalogue([(1, 0, 5, 0)])
        assert build_interactions(raw, require_genre=False, years=None, min_item_ratings=1, k_core=1).filters == "none"

    def test_number_what_negatives_are_left_anew_and_each_once(self):
        rows = [(10, 0, 5, 0), (10, 1, 5, 0), (20, 1, 5, 0), (20, 3, 5, 0), (30, 3, 5, 0)]
        negatives = [(20, 1), (20, 0), (20, 0), (20, 3), (30, 1), (10, 99), (99, 1), (10, 1)]
        data = build_interactions(with_catalogue(rows, negatives=negatives), require_genre=True)
        assert data.users["user_id"].to_list() == [10, 20]
        assert data.items["item_id"].to_list() == [0, 1]
        assert data.negatives.rows() == [(0, 1), (1, 0), (1, 1)]
        assert build_interactions(with_catalogue(rows)).negatives.schema == {"user": pl.Int32, "item": pl.Int32}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"require_genre": True}, "require_genre is set, yet these data name no genres"),
            ({"years": (1990, 1999)}, "years is set, yet these data name no year of release"),
        ],
    )
    def test_on_what_the_data_do_not_say_are_refused(self, arguments, message):
        with pytest.raises(RecflowError, match=message):
            build_interactions(raw_data([(1, 1, 5, 0)]), **arguments)
        with pytest.raises(RecflowError, match=message):
            build_interactions(replace(raw_data([(1, 1, 5, 0)]), items=pl.DataFrame()), **arguments)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"years": (1999, 1990)}, r"years is \[1999, 1990\], expected the first and the last year"),
            ({"years": (1990,)}, r"years is \[1990\], expected"),
            ({"years": ()}, r"years is \[\], expected"),
            ({"years": (1990, 1995, 1999)}, r"years is \[1990, 1995, 1999\], expected"),
            ({"min_item_ratings": -1}, r"min_item_ratings is -1, expected 0 \(no such filter\) or"),
            ({"years": (2001, 2002)}, r"no ratings are left of 3 \(released 2001 to 2002 took 3\); loosen"),
            (
                {"require_genre": True, "years": (1980, 1989), "min_item_ratings": 3},
                r"no ratings are left of 3 \(items with a genre took 1, released 1980 to 1989 took 1, "
                r"items with 3 ratings or more took 1\); loosen these filters",
            ),
        ],
    )
    def test_that_cannot_be_or_leave_nothing_are_refused(self, arguments, message):
        with pytest.raises(RecflowError, match=message) as error:
            build_interactions(with_catalogue([(1, 0, 5, 0), (1, 1, 5, 0), (1, 3, 5, 0)]), **arguments)
        assert "\n" not in str(error.value)


def test_what_the_data_say_of_their_ratings_and_times_travels_with_them():
    raw = raw_data([(1, 1, 1, 0)])
    for has_ratings, has_times in ((True, False), (False, True)):
        data = build_interactions(replace(raw, has_ratings=has_ratings, has_times=has_times))
        assert (data.has_ratings, data.has_times) == (has_ratings, has_times)
