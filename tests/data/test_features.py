"""Tables as numbers: by type, by name, and never by ratings."""

import os
from datetime import date

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer, OneHotEncoder, StandardScaler

from recflow.data.dataset import DataConfig, prepare
from recflow.data.features import CODES, FeatureTable, encode
from recflow.testing.taste_groups import taste_groups

NUMBERS = st.lists(st.integers(-1000, 1000), min_size=2, max_size=20)
LISTS = st.lists(st.lists(st.sampled_from(["Comedy", "Drama", "War"]), unique=True), min_size=2, max_size=12)


def _column(frame: pl.DataFrame, name: str) -> list[float]:
    table = encode(frame)
    assert table is not None
    return table.values[:, table.names.index(name)].tolist()


@given(LISTS)
def test_lists_of_texts_are_as_scikit_learn_encodes_them(lists):
    frame = pl.DataFrame({"genres": pl.Series(lists, dtype=pl.List(pl.String))})
    oracle = MultiLabelBinarizer().fit(lists)
    wanted = oracle.transform(lists)
    varies = wanted.min(axis=0, initial=1) != wanted.max(axis=0, initial=0) if len(oracle.classes_) else []
    table = encode(frame)
    if not np.any(varies):
        assert table is None
        return
    assert table.names == tuple(f"genres={name}" for name in oracle.classes_[varies])
    assert np.array_equal(table.values.numpy(), wanted[:, varies])


@given(NUMBERS)
def test_numbers_are_standardised_as_by_scikit_learn(numbers):
    table = encode(pl.DataFrame({"age": numbers}))
    if len(set(numbers)) == 1:
        assert table is None
        return
    wanted = StandardScaler().fit_transform(np.array(numbers, dtype=np.float64)[:, None])
    np.testing.assert_allclose(table.values.numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_texts_are_one_hot_as_by_scikit_learn():
    texts = ["F", "M", "F", "X"]
    table = encode(pl.DataFrame({"gender": texts}))
    assert table.names == ("gender=F", "gender=M", "gender=X")
    wanted = OneHotEncoder(sparse_output=False).fit_transform(np.array(texts)[:, None])
    assert np.array_equal(table.values.numpy(), wanted)
    categories = pl.DataFrame({"gender": pl.Series(texts, dtype=pl.Categorical)})
    assert torch.equal(encode(categories).values, table.values)


def test_an_unknown_number_is_the_mean_and_says_that_it_is_unknown():
    frame = pl.DataFrame({"year": [1990, None, 2000], "score": [1.0, float("nan"), 2.0]})
    assert encode(frame).names == ("year", "year.missing", "score", "score.missing")
    assert _column(frame, "year") == [-1.0, 0.0, 1.0]
    assert _column(frame, "year.missing") == [0.0, 1.0, 0.0]
    assert _column(frame, "score") == [-1.0, 0.0, 1.0]


def test_an_unknown_text_has_no_one_anywhere():
    assert encode(pl.DataFrame({"gender": ["F", None, "M"]})).values.tolist() == [[1, 0], [0, 0], [0, 1]]


def test_truth_values_are_0_and_1_and_may_be_unknown():
    frame = pl.DataFrame({"colour": [True, False, None]})
    assert _column(frame, "colour") == [1, 0, 0]
    assert _column(frame, "colour.missing") == [0, 0, 1]


def test_a_date_is_a_standardised_year_and_a_month():
    frame = pl.DataFrame({"released": [date(1990, 3, 1), date(2000, 3, 9), date(1995, 12, 31), None]})
    table = encode(frame)
    assert table.names == (
        "released.year",
        "released.year.missing",
        "released.month=3",
        "released.month=12",
    )
    assert _column(frame, "released.month=3") == [1, 1, 0, 0]
    assert _column(frame, "released.month=12") == [0, 0, 1, 0]
    assert _column(frame, "released.year")[3] == 0


def test_whole_numbers_are_codes_only_where_the_name_says_so():
    frame = pl.DataFrame({"age": [1, 18, 25], "Occupation": [0, 7, 7]})
    assert encode(frame).names == ("age", "Occupation=0", "Occupation=7")
    assert "age" not in CODES


def test_columns_that_name_rather_than_describe_are_left_out():
    texts = [f"name {n}" for n in range(65)]
    frame = pl.DataFrame(
        {"user_id": range(65), "nick": texts, "title": texts, "zip_code": texts, "code": [1, 2] * 32 + [1]}
    )
    assert encode(frame).names == ("code",)
    assert len(encode(pl.DataFrame({"nick": texts[:64]})).names) == 64
    assert encode(frame.select("title"), skip=()) is None


def test_a_list_of_too_many_texts_is_left_out():
    many = pl.DataFrame({"tags": [[f"tag {n}" for n in range(1025)], ["tag 0"]]})
    assert encode(many) is None


def test_a_table_that_tells_nothing_apart_gives_no_features():
    assert encode(pl.DataFrame({"user_id": [1, 2]})) is None
    assert (
        encode(
            pl.DataFrame({"year": [2000, 2000], "genres": [[], []]}, schema_overrides={"genres": pl.List(pl.String)})
        )
        is None
    )
    assert encode(pl.DataFrame({"year": pl.Series([None, None], dtype=pl.Int32)})) is None


def test_a_dataset_brings_the_features_of_its_items_and_users_along_to_a_device():
    data, _ = taste_groups()
    assert data.user_features is None
    assert data.item_features.names == ("genres=Group 0", "genres=Group 1", "genres=Group 2")
    moved = data.to("meta")
    assert isinstance(moved.item_features, FeatureTable)
    assert moved.item_features.values.device.type == "meta"


def test_test_rows_change_no_feature():
    plain, poisoned = (taste_groups(poison=poison)[0].item_features for poison in (False, True))
    assert torch.equal(plain.values, poisoned.values)


@pytest.mark.data
def test_movielens_gives_the_features_that_its_readme_names():
    assert "RECFLOW_DATA_DIR" in os.environ
    data = prepare(DataConfig(name="ml-100k"))
    users, items = data.user_features, data.item_features
    assert [name for name in users.names if "=" not in name] == ["age"]
    assert sum(name.startswith("occupation=") for name in users.names) == 21
    assert {"gender=F", "gender=M"} <= set(users.names)
    assert sum(name.startswith("genres=") for name in items.names) == 18
    assert sum(name.startswith("released.month=") for name in items.names) == 12
    assert items.values.shape == (1682, len(items.names))
    assert bool(items.values.isfinite().all())
    of_1m = prepare(DataConfig(name="ml-1m")).user_features
    assert "age" in of_1m.names
    assert sum(name.startswith("occupation=") for name in of_1m.names) == 21
