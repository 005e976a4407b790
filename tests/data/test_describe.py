"""The numbers and pictures that describe a dataset, against plain loops and cases counted by hand."""

import json
import os
import statistics
import warnings
from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recflow.data.describe import describe, describe_source, quartiles, top_share, utc_date
from recflow.data.interactions import RawData, build_interactions
from recflow.data.splits import Split, split
from recflow.data_plots import plot_data

DAY = 86_400


def make_raw(rows, items=None, users=None, **kwargs):
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "time": pl.Int64}
    ratings = pl.DataFrame(rows, schema=schema, orient="row")
    items = ratings.select(pl.col("item_id").unique().sort()) if items is None else items
    users = ratings.select(pl.col("user_id").unique().sort()) if users is None else users
    return RawData(kwargs.pop("name", "tiny"), "0" * 64, ratings, items, users, **kwargs)


def described(raw, *, drop_below=None, relevant_from=None, parts=None):
    interactions = build_interactions(raw, drop_below=drop_below)
    parts = parts or split(interactions, "ratio")
    return describe(interactions, parts, relevant_from)


ROWS = [(1, 10, 5.0, 0), (1, 20, 3.0, DAY), (1, 30, 1.0, 2 * DAY), (2, 10, 4.0, 3 * DAY), (3, 10, 4.0, 9 * DAY)]
ITEMS = pl.DataFrame(
    {
        "item_id": [10, 20, 30, 40],
        "title": ["a", "b", "c", "d"],
        "year": [1990, 2000, None, 2010],
        "genres": [["Drama", "War"], ["Drama"], [], ["War"]],
    },
    schema_overrides={"year": pl.Int32},
)


class TestCounts:
    def test_sizes_density_and_spread(self):
        found = described(make_raw(ROWS, ITEMS))
        assert (found["ratings"], found["users"], found["items"]) == (5, 3, 3)
        assert found["density"] == 5 / 9
        assert found["ratings_per_user"] == {"mean": 5 / 3, "min": 1, "q1": 1, "median": 1, "q3": 2, "max": 3}
        assert found["ratings_per_item"]["max"] == 3
        assert found["time"] == {"first": "1970-01-01", "last": "1970-01-10", "days": 9}

    def test_the_rating_scale_is_told_as_the_file_writes_it(self):
        rating = described(make_raw([(1, 1, 4.1, 0), (1, 2, 4.1, 0), (2, 1, 0.7, 0)]))["rating"]
        assert (rating["min"], rating["median"], rating["max"], rating["distinct"]) == (0.7, 4.1, 4.1, 2)
        assert rating["distribution"] == [
            {"from": 0.7, "to": 0.7, "ratings": 1},
            {"from": 4.1, "to": 4.1, "ratings": 2},
        ]

    def test_many_distinct_ratings_are_counted_in_bins_that_hold_every_one(self):
        rows = [(user, item, user * 7 + item / 3, 0) for user in range(9) for item in range(9)]
        bars = described(make_raw(rows))["rating"]["distribution"]
        assert len(bars) == 20
        assert sum(bar["ratings"] for bar in bars) == 81
        assert all(bar["to"] == after["from"] for bar, after in pairwise(bars))

    def test_genres_count_items_and_their_ratings(self):
        found = described(make_raw(ROWS, ITEMS))
        assert found["genres"] == [
            {"genre": "Drama", "items": 2, "ratings": 4},
            {"genre": "War", "items": 1, "ratings": 3},
        ]
        assert found["items_without_genre"] == 1
        assert found["years"] == {"known": 2, "min": 1990, "q1": 1992.5, "median": 1995, "q3": 1997.5, "max": 2000}

    def test_what_a_dataset_has_not_is_none_and_not_invented(self):
        found = described(make_raw([(1, 1, 1.0, 0), (2, 2, 1.0, 0)], has_ratings=False, has_times=False))
        assert found["rating"] is None
        assert found["time"] is None
        assert found["years"] is None
        assert found["genres"] == []
        assert found["user_features"] == {}

    def test_filters_are_in_force(self):
        found = described(make_raw(ROWS, ITEMS), drop_below=4)
        assert (found["ratings"], found["items"]) == (3, 1)
        assert found["filter"] == "rating >= 4, 0 duplicates"

    def test_the_source_is_counted_before_the_filters_duplicates_among_it(self):
        raw = make_raw([*ROWS, (1, 10, 2.0, 99), (1, 10, 2.5, 98)], ITEMS)
        assert describe_source(raw) == {
            "ratings": 7,
            "users": 3,
            "items": 3,
            "duplicates": 2,
            "items_listed": 4,
            "tags": 0,
        }

    def test_all_of_it_is_json(self):
        users = pl.DataFrame({"user_id": [1, 2, 3], "age": [20, None, 31], "member": [True, False, True]})
        found = described(make_raw(ROWS, ITEMS, users), relevant_from=4)
        assert json.loads(json.dumps(found, allow_nan=False)) == found


class TestUserFeatures:
    def test_values_are_counted_commonest_first(self):
        users = pl.DataFrame({"user_id": [1, 2, 3], "job": ["cook", "pilot", "pilot"], "town": [None, None, "Ulm"]})
        features = described(make_raw(ROWS, users=users))["user_features"]
        assert list(features["job"]["values"].items()) == [("pilot", 2), ("cook", 1)]
        assert features["town"] == {"known": 1, "distinct": 1, "values": {"Ulm": 1}}

    def test_a_number_of_many_values_is_told_by_quartiles(self):
        rows = [(user, 1, 3.0, 0) for user in range(20)]
        users = pl.DataFrame({"user_id": range(20), "age": [*range(20, 39), None], "score": [float("nan")] * 20})
        features = described(make_raw(rows, users=users))["user_features"]
        assert features["age"]["known"] == 19
        assert features["age"]["median"] == 29
        assert features["score"]["distinct"] == 0

    def test_lists_are_counted_by_entry(self):
        users = pl.DataFrame({"user_id": [1, 2, 3], "likes": [["a", "b"], ["b"], None]})
        assert described(make_raw(ROWS, users=users))["user_features"]["likes"]["values"] == {"b": 2, "a": 1}

    def test_ml_1m_codes_are_read_by_its_readme_and_nobody_elses(self):
        users = pl.DataFrame({"user_id": [1, 2, 3], "age": [56, 1, 56], "occupation": [12, 0, 20]})
        features = described(make_raw(ROWS, users=users, name="ml-1m"))["user_features"]
        assert list(features["age"]["values"].items()) == [("under 18", 1), ("56 and over", 2)]
        assert list(features["occupation"]["values"]) == ["other", "programmer", "writer"]
        assert list(described(make_raw(ROWS, users=users))["user_features"]["age"]["values"]) == ["1", "56"]


class TestColdStart:
    def test_cold_users_and_items_of_a_part_are_those_without_a_training_row(self):
        interactions = build_interactions(make_raw(ROWS))
        table = interactions.table
        parts = Split(train=table[:2], val=table[2:3], test=table[3:], describe="by hand")
        found = describe(interactions, parts, 4.0)["split"]["parts"]
        assert found["val"]["cold_users"] == {"count": 0, "share": 0, "rows": 0, "share_of_rows": 0}
        assert found["val"]["cold_items"] == {"count": 1, "share": 1, "rows": 1, "share_of_rows": 1}
        assert found["test"]["cold_users"] == {"count": 2, "share": 1, "rows": 2, "share_of_rows": 1}
        assert found["test"]["cold_items"]["count"] == 0
        assert [found[part]["relevant"] for part in ("train", "val", "test")] == [1, 0, 2]

    def test_an_empty_part_has_no_cold_users(self):
        interactions = build_interactions(make_raw(ROWS))
        parts = Split(train=interactions.table, val=interactions.table[:0], test=interactions.table[:0], describe="all")
        val = describe(interactions, parts)["split"]["parts"]["val"]
        assert (val["rows"], val["share"], val["cold_users"]["share"]) == (0, 0, 0)

    def test_relevance_is_compared_as_the_ratings_are_stored(self):
        interactions = build_interactions(make_raw([(1, 1, 4.1, 0), (2, 1, 4.0, 0)]))
        parts = Split(interactions.table, interactions.table[:0], interactions.table[:0], "all")
        assert describe(interactions, parts, 4.1)["split"]["parts"]["train"]["relevant"] == 1


pairs = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.5, 1.0, 3.5, 5.0]), st.integers(0, 10**9)),
    min_size=2,
    max_size=60,
)


@given(pairs, st.integers(0, 3))
def test_every_count_equals_a_plain_loop(rows, seed):
    raw = make_raw(rows)
    interactions = build_interactions(raw)
    parts = split(interactions, "ratio", ratios=(0.5, 0.25, 0.25), seed=seed)
    found = describe(interactions, parts)
    kept = {(user, item): rating for user, item, rating, _ in sorted(rows, key=lambda row: row[3])}
    per_user = Counter(user for user, _ in kept)
    assert describe_source(raw)["duplicates"] == len(rows) - len(kept)
    assert found["ratings_per_user"]["median"] == statistics.median(per_user.values())
    assert found["ratings_per_user"]["max"] == max(per_user.values())
    stars = sorted(kept.values())
    assert found["rating"]["mean"] == pytest.approx(statistics.mean(stars), rel=1e-12)
    assert found["rating"]["sd"] == pytest.approx(statistics.pstdev(stars), rel=1e-9, abs=1e-12)
    middle = [found["rating"][name] for name in ("q1", "median", "q3")]
    assert middle == np.quantile(stars, [0.25, 0.5, 0.75], method="inverted_cdf").tolist()
    for side in ("user", "item"):
        trained = set(parts.train[side].to_list())
        for name in ("val", "test"):
            held_out = getattr(parts, name)[side].to_list()
            cold = found["split"]["parts"][name][f"cold_{side}s"]
            assert cold["count"] == len(set(held_out) - trained)
            assert cold["rows"] == sum(index not in trained for index in held_out)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.sampled_from([0.01, 0.1, 0.3, 1.0]))
def test_the_top_share_equals_a_sorted_sum(counts, fraction):
    ordered = sorted(counts, reverse=True)
    size = next(size for size in range(1, len(counts) + 1) if size >= fraction * len(counts) - 1e-9)
    assert top_share(np.array(counts), fraction) == sum(ordered[:size]) / sum(ordered)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40))
def test_quartiles_interpolate_as_the_standard_library_does(values):
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    expected = {"min": min(values), "q1": q1, "median": median, "q3": q3, "max": max(values)}
    assert quartiles(np.array(values)) == pytest.approx(expected)


def test_dates_beyond_the_calendar_of_datetime_are_told_too():
    assert utc_date(-1) == "1969-12-31"
    assert utc_date(10**12) == "33658-09-27"


class TestPictures:
    def draw(self, raw, folder):
        interactions = build_interactions(raw)
        description = describe(interactions, split(interactions, "ratio"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            paths = plot_data(folder, description, interactions)
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
        assert set(paths) == set(folder.iterdir())
        return [path.name for path in paths]

    def test_each_is_drawn_where_the_data_have_it(self, tmp_path):
        users = pl.DataFrame({"user_id": [1, 2, 3], "age": [20, None, 31]})
        names = self.draw(make_raw(ROWS, ITEMS, users), tmp_path)
        assert names == ["ratings.png", "skew.png", "genres.png", "years.png", "ages.png", "time.png"]

    def test_bare_interactions_have_their_skew_alone(self, tmp_path):
        bare = make_raw([(1, 1, 1.0, 0), (2, 1, 1.0, 0), (2, 2, 1.0, 0)], has_ratings=False, has_times=False)
        assert self.draw(bare, tmp_path) == ["skew.png"]

    @pytest.mark.parametrize("days", [0, 0.01, 1, 80, 500, 1100, 5000, 50_000])
    def test_any_span_of_time_can_be_drawn(self, tmp_path, days):
        assert "time.png" in self.draw(make_raw([(1, 1, 4.0, 0), (2, 1, 4.0, int(days * DAY))]), tmp_path)

    def test_odd_values_do_not_break_them(self, tmp_path):
        rows = [(user, user % 3, user / 7, 10**12) for user in range(40)]
        items = pl.DataFrame(
            {"item_id": [0, 1, 2], "year": [-500, 1999, 9999], "genres": [[r"$\oops$", "long" * 9], ["a"], []]},
            schema_overrides={"year": pl.Int32},
        )
        users = pl.DataFrame({"user_id": range(40), "age": [-(10**6), *range(38), 10**6]})
        names = self.draw(make_raw(rows, items, users), tmp_path)
        assert names == ["ratings.png", "skew.png", "genres.png", "years.png", "ages.png"]


@pytest.mark.data
def test_ml_100k_is_what_its_readme_says():
    from recflow.data.catalog import load_raw

    raw = load_raw("ml-100k")
    found = described(raw)
    with open(os.path.join(os.environ["RECFLOW_DATA_DIR"], "ml-100k", "u.info"), encoding="ascii") as stream:
        published = [int(line.split()[0]) for line in stream]
    assert [found[name] for name in ("users", "items", "ratings")] == published
    assert (found["ratings_per_user"]["min"], found["time"]["first"], found["time"]["last"]) == (
        20,
        "1997-09-20",
        "1998-04-22",
    )
    with open(os.path.join(os.environ["RECFLOW_DATA_DIR"], "ml-100k", "u.occupation"), encoding="ascii") as stream:
        assert set(found["user_features"]["occupation"]["values"]) == set(stream.read().split())
