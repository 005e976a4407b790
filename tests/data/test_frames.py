"""Frames of Polars and pandas, kept as files and read like them."""

import numpy as np
import polars as pl
import pytest

from recflow.data.frames import keep_frame
from recflow.data.tables import load_table
from recflow.errors import RecflowError
from tests.data.own_tables import HEADER, ROWS

FRAME = pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row")


class PandasLikeColumn:
    """What `keep_frame` uses of a pandas Series."""

    def __init__(self, values, dtype):
        self.values = np.array(values, dtype=dtype)
        self.dtype = self.values.dtype

    def isna(self):
        return np.array([value is None or value != value for value in self.values])

    def to_numpy(self, dtype=None, na_value=None):
        return self.values if dtype is None else self.values.astype(dtype)

    def astype(self, dtype):
        return self.values.astype(dtype)


class PandasLikeFrame:
    """What `keep_frame` uses of a pandas DataFrame."""

    iloc = dtypes = None

    def __init__(self, columns):
        self.data = {name: PandasLikeColumn(*column) for name, column in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name):
        return self.data[name]


class TestFrames:
    @pytest.mark.parametrize("frame", [FRAME, FRAME.lazy()])
    def test_a_polars_frame_is_kept_and_read_like_a_file(self, tmp_path, frame):
        path = keep_frame(frame, tmp_path)
        raw = load_table(path, cache_dir=tmp_path)
        assert raw.ratings.rows() == ROWS
        assert raw.name == "frame"

    def test_the_same_contents_give_the_same_file(self, tmp_path):
        path = keep_frame(FRAME, tmp_path)
        assert keep_frame(FRAME.lazy(), tmp_path) == path
        assert keep_frame(FRAME.head(2), tmp_path) != path
        path.write_bytes(b"lost")
        assert pl.read_parquet(keep_frame(FRAME, tmp_path)).equals(FRAME)
        assert not list(tmp_path.glob("frames/.new-*"))

    def test_a_pandas_like_frame_is_kept_and_read_like_a_file(self, tmp_path):
        frame = PandasLikeFrame(
            {
                "user": ((1, 2), "int32"),
                "item": (("a", "b"), object),
                "rating": ((5.0, 3.5), "float64"),
                "time": (("2000-12-31", "2001-01-01"), "datetime64[ns]"),
                "fold": ((1.0, np.nan), "float64"),
            }
        )
        raw = load_table(keep_frame(frame, tmp_path), cache_dir=tmp_path)
        assert raw.ratings.rows() == [(1, "a", 5.0, 978220800, 1), (2, "b", 3.5, 978307200, None)]

    def test_pandas_frames_of_every_kind_of_column_are_kept(self, tmp_path):
        import pandas as pd

        frame = pd.DataFrame(
            {
                "user": pd.array([1, 2, 3], dtype="Int64"),
                "item": pd.Categorical(["a", "b", "a"]),
                "rating": [5.0, 3.5, 1.0],
                "time": pd.to_datetime(["2000-12-31", "2001-01-01", "2001-01-02"]).tz_localize("Europe/Berlin"),
                "fold": [None, 1, 2],
                "genres": [["x"], ["y", "z"], []],
                "note": ["a", None, "c"],
            },
            index=[7, 8, 9],
        )
        kept = keep_frame(frame, tmp_path)
        assert pl.read_parquet(kept)["genres"].to_list() == [["x"], ["y", "z"], []]
        assert pl.read_parquet(kept)["note"].to_list() == ["a", None, "c"]
        raw = load_table(kept, cache_dir=tmp_path)
        assert raw.ratings.rows() == [
            (1, "a", 5.0, 978217200, None),
            (2, "b", 3.5, 978303600, 1),
            (3, "a", 1.0, 978390000, 2),
        ]

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            ([1, 2], "list given, expected a Polars or pandas DataFrame"),
            (PandasLikeFrame({"a": ((1, "x"), object)}), "column 'a' holds int and str, expected one kind of value"),
            (pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}), "column 'a' holds Python objects"),
        ],
    )
    def test_other_things_are_refused(self, tmp_path, frame, message):
        with pytest.raises(RecflowError, match=message):
            keep_frame(frame, tmp_path)
