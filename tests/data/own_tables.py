"""Three ratings as rows, as lines of a table, and any frame as the bytes of a Parquet file."""

import io

import polars as pl

ROWS = [(1, 10, 5.0, 100), (1, 20, 3.5, 101), (2, 10, 4.0, 102)]
LINES = [f"{user},{item},{rating},{time}" for user, item, rating, time in ROWS]
HEADER = "user_id,item_id,rating,timestamp"


def parquet(frame: pl.DataFrame) -> bytes:
    packed = io.BytesIO()
    frame.write_parquet(packed)
    return packed.getvalue()
