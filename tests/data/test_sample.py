"""The sample: repeatable, MovieLens-shaped, and with something in it to learn."""

import datetime

import numpy as np
import polars as pl
import pytest

from recflow.data import sample
from recflow.data.interactions import build_interactions
from recflow.data.splits import split
from recflow.errors import RecflowError


@pytest.fixture(scope="module")
def raw():
    return sample.generate()


def test_equal_arguments_give_equal_data_and_others_other_data(raw):
    again, other = sample.generate(), sample.generate(seed=8)
    for table in ("ratings", "items", "users"):
        assert getattr(raw, table).equals(getattr(again, table))
    assert not raw.ratings.equals(other.ratings)
    assert len({raw.sha256, other.sha256, sample.generate(500).sha256}) == 3
    assert raw.sha256 == again.sha256 == sample.content_hash(40_000)


def test_the_shape_is_that_of_movielens(raw):
    ratings = raw.ratings
    assert ratings.schema == {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "time": pl.Int64}
    assert ratings.height == 40_000
    assert 550 <= raw.users.height <= 650
    assert raw.items.height == 900
    assert ratings.select(pl.struct("user_id", "item_id").n_unique()).item() == 40_000
    assert ratings["user_id"].value_counts()["count"].min() >= 20
    assert set(ratings["rating"].unique()) == {half / 2 for half in range(1, 11)}
    assert 3.3 < ratings["rating"].mean() < 3.7
    popular = ratings["item_id"].value_counts()["count"].sort(descending=True)
    assert 0.25 < popular.head(90).sum() / 40_000 < 0.6  # a tenth of the films has a good part of the ratings
    active = ratings["user_id"].value_counts()["count"]
    assert active.mean() > 1.1 * active.median()


def test_films_have_titles_years_and_genres(raw):
    items = raw.items
    assert items["title"].n_unique() == items.height
    assert items["title"].str.extract(r"\((\d{4})\)$").cast(pl.Int32).equals(items["year"], check_names=False)
    assert items["year"].is_between(1920, 2018).all()
    assert items["genres"].list.len().is_between(1, 3).all()
    assert items["genres"].explode().n_unique() == 18
    # the noun names the genre: nobody is shown a Western called "The Starship"
    assert items.filter(pl.col("title").str.contains("Starship"))["genres"].list.contains("Sci-Fi").all()


def test_nobody_rates_a_film_before_its_year_and_ratings_come_in_sessions(raw):
    rated = raw.ratings.join(raw.items, on="item_id").with_columns(
        pl.from_epoch("time").dt.year().alias("rated"), pl.from_epoch("time").alias("moment")
    )
    assert (rated["rated"] >= rated["year"]).all()
    assert rated["moment"].min() >= datetime.datetime(1996, 1, 1)
    assert rated["moment"].max() < datetime.datetime(2019, 1, 1)
    gaps = raw.ratings.select(pl.col("time").sort().diff().over("user_id")).to_series().drop_nulls()
    assert (gaps < 60).mean() > 0.9


def test_ratings_follow_the_user_the_film_and_their_taste(raw):
    rating = raw.ratings["rating"].to_numpy().astype(np.float64)
    user = raw.ratings["user_id"].to_numpy() - 1
    item = raw.ratings["item_id"].to_numpy() - 1
    by_user, by_item = np.zeros(user.max() + 1), np.zeros(item.max() + 1)
    rest = rating - rating.mean()
    for _ in range(10):
        by_user = np.bincount(user, rest - by_item[item]) / (np.bincount(user) + 3)
        by_item = np.bincount(item, rest - by_user[user]) / (np.bincount(item) + 3)
    residual = rest - by_user[user] - by_item[item]
    assert by_user[user].var() > 0.1
    assert by_item[item].var() > 0.1
    # what is left still leans to the films that a user's fellows like: one genre's mean tells something about it
    genre = raw.items["genres"].list.first().to_numpy()[item]
    shared = 0.0
    for name in np.unique(genre):
        rows = genre == name
        total = np.bincount(user[rows], residual[rows])
        count = np.bincount(user[rows])
        many = count >= 5
        shared += (total[many] ** 2 / count[many]).sum() - residual[rows].var() * many.sum()
    assert shared / (residual**2).sum() > 0.01


def test_a_good_model_beats_popularity_clearly(raw):
    data = build_interactions(raw)
    parts = split(data, "ratio")
    shape = (data.num_users, data.num_items)
    seen, known, wanted = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for matrix, tables in ((seen, [parts.train]), (known, [parts.train, parts.val]), (wanted, [parts.test])):
        for table in tables:
            matrix[table["user"].to_numpy(), table["item"].to_numpy()] = 1

    def recall_at_10(scores):
        top = np.argsort(-np.where(known > 0, -np.inf, scores), axis=1)[:, :10]
        relevant = wanted.sum(axis=1)
        hits = np.take_along_axis(wanted, top, axis=1).sum(axis=1)
        return (hits[relevant > 0] / relevant[relevant > 0]).mean()

    inverse = np.linalg.inv(seen.T @ seen + 100 * np.eye(data.num_items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    ease, popularity = recall_at_10(seen @ weights), recall_at_10(np.tile(seen.sum(axis=0), (data.num_users, 1)))
    assert 0.06 < popularity < 0.13  # measured .091
    assert ease > 1.6 * popularity  # measured 2.0 times, .179


@pytest.mark.parametrize("ratings", [1, 19, 20, 39, 59, 100, 1234, 200_000])
def test_any_number_of_ratings_is_exactly_met(ratings):
    raw = sample.generate(ratings)
    assert raw.ratings.height == ratings
    assert raw.ratings.select(pl.struct("user_id", "item_id").n_unique()).item() == ratings
    assert raw.ratings["user_id"].n_unique() == raw.users.height
    assert raw.items["title"].n_unique() == raw.items.height


def test_the_block_size_bounds_memory_and_leaves_the_shape(monkeypatch):
    monkeypatch.setattr(sample, "_BLOCK", 5_000)
    raw = sample.generate(40_000)
    assert raw.ratings.height == 40_000
    assert raw.ratings["user_id"].is_sorted()
    assert raw.ratings["user_id"].unique().to_list() == raw.users["user_id"].to_list()


@pytest.mark.parametrize(("arguments", "message"), [({"ratings": 0}, "ratings is 0"), ({"seed": -1}, "seed is -1")])
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(RecflowError, match=message):
        sample.generate(**arguments)
