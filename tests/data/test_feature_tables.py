"""Tables of items and of users: what is recognised, what is kept, and what is refused."""

from datetime import date

import polars as pl
import pytest

from recflow.data.interactions import build_interactions
from recflow.data.tables import Columns
from recflow.errors import RecflowError
from tests.data.own_tables import LINES, parquet


class TestFeatures:
    def features(self, load, tmp_path, content, name="items.csv", use="items", ratings=LINES, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join([*content, ""]).encode())
        return load(ratings, **{use: path}, **options)

    @pytest.fixture
    def items_of(self, load, tmp_path):
        return lambda *arguments, **options: self.features(load, tmp_path, *arguments, **options).items

    @pytest.fixture
    def no_items_of(self, load, tmp_path):
        def message(*arguments, **options):
            with pytest.raises(RecflowError) as caught:
                self.features(load, tmp_path, *arguments, **options)
            return str(caught.value).replace(f"{tmp_path}/", "")

        return message

    def test_titles_years_and_genres_are_recognised_and_the_rest_is_kept(self, items_of):
        header = "genre,movieId,Name,Release Year,budget,length,zip"
        items = items_of([header, "Drama|Crime ,10,Heat,1995,6e7,170,02154", "(no genres listed),77,Up,,,,"])
        assert items.rows(named=True) == [
            {
                "item_id": 10,
                "title": "Heat",
                "year": 1995,
                "genres": ["Drama", "Crime"],
                "budget": 6e7,
                "length": 170,
                "zip": "02154",
            },
            {"item_id": 77, "title": "Up", "year": None, "genres": [], "budget": None, "length": None, "zip": None},
        ]
        assert items.schema["genres"] == pl.List(pl.String)
        assert items.schema["year"] == pl.Int32

    def test_the_year_stands_at_the_titles_end_where_no_column_has_it(self, items_of):
        items = items_of(["10::Heat (1995)::Crime, Drama", "20::2001 (or so)::"], name="movies.dat")
        assert items.rows() == [(10, "Heat (1995)", 1995, ["Crime", "Drama"]), (20, "2001 (or so)", None, [])]

    def test_recboles_lists_stand_between_spaces(self, items_of):
        items = items_of(
            ["item_id:token\tmovie_title:token_seq\tgenre:token_seq", "10\tHeat\tCrime Drama"], name="a.item"
        )
        assert items.rows() == [(10, "Heat", None, ["Crime", "Drama"])]

    def test_parquet_lists_and_dates_are_taken_as_they_are(self, items_of):
        frame = pl.DataFrame(
            {"item": [10], "title": ["Heat"], "released": [date(1995, 12, 15)], "genres": [["Crime", None]]}
        )
        assert items_of(parquet(frame), name="a.parquet").rows() == [(10, "Heat", 1995, ["Crime"])]

    def test_years_that_cannot_be_read_are_counted_in_a_notice(self, load, tmp_path):
        raw = self.features(load, tmp_path, ["item,title,year", "10,a,soon", "20,b,1999-05-01", "30,c,"])
        assert raw.items["year"].to_list() == [None, 1999, None]
        assert raw.notices[-1] == "items.csv: 1 years cannot be read and count as unknown"

    def test_users_have_features_too(self, load, tmp_path):
        raw = self.features(load, tmp_path, ["member,age,job", "2,30,x", "1,,y"], use="users")
        assert raw.users.rows() == [(2, 30, "x"), (1, None, "y")]
        assert build_interactions(raw).users.rows() == [(1, None, "y"), (2, 30, "x")]

    def test_the_id_column_is_the_one_asked_for_else_the_usual_else_the_first(self, items_of):
        ratings = ["user,film", "1,10"]
        assert items_of(["item,film", "3,10"], ratings=ratings, columns=Columns(item="film"))["item_id"].to_list() == [
            10
        ]
        assert items_of(["x,item", "3,10"], ratings=ratings)["item_id"].to_list() == [10]
        assert items_of(["code,colour", "10,red"], ratings=ratings)["item_id"].to_list() == [10]

    def test_ids_take_the_ratings_kind_where_nothing_is_lost(self, items_of, no_items_of):
        assert items_of(parquet(pl.DataFrame({"item": ["10"], "n": [1]})), name="a.parquet")["item_id"].to_list() == [
            10
        ]
        assert items_of(["item,n", "10,1"], ratings=["1,10", "1,x"])["item_id"].to_list() == ["10"]
        message = no_items_of(["item,n", "10,1", "010,2"])
        assert message == "items.csv, line 3: item is '010', expected a whole number, as the ratings' ids are"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (["item,n", "10,1", "20,2", "10,3"], "items.csv, line 4: item is '10', expected each item once"),
            (["item,n", "10,1", ",2"], "items.csv, line 3: item is missing, expected an item id in every row"),
            (["item,n", "-10,1"], "items.csv, line 2: item is '-10', expected an id from 0"),
            (["movie,item_id,n", "10,1,1"], None),
            (["film,title,Title", "10,1,1"], "items.csv: 'title' and 'Title' are the same name but for its spelling"),
            (["1,2,3,4", "1,2,3,4"], "items.csv has no header, its first line is '1,2,3,4'"),
        ],
    )
    def test_bad_tables_are_refused(self, items_of, no_items_of, content, message):
        if message is None:
            assert items_of(content)["item_id"].to_list() == [1]
        else:
            assert no_items_of(content).startswith(message)

    def test_a_feature_in_the_place_of_the_id_is_refused(self, no_items_of):
        message = no_items_of(["film,item_id", "10,1"], ratings=["user,film", "1,10"], columns=Columns(item="film"))
        assert message == "items.csv: 'film' is taken as item_id, so 'item_id' needs another name; rename it"
