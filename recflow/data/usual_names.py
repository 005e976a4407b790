"""What columns are usually called, in tables of ratings, of items and of users."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from recflow.data.sniffing import plain_name
from recflow.data.table_files import TableFile
from recflow.errors import RecflowError

Role = Literal["user", "item", "rating", "time"]

#: What columns are usually called, best first, each as `plain_name` gives it.
NAMES: dict[Role, tuple[str, ...]] = {
    "user": (
        *("userid", "user", "uid", "memberid", "member", "customerid", "customer", "reviewerid", "reviewer"),
        *("readerid", "reader", "visitorid", "username", "sessionid", "session"),
    ),
    "item": (
        *("itemid", "item", "iid", "movieid", "movie", "filmid", "film", "productid", "product", "parentasin", "asin"),
        *("bookid", "book", "isbn", "trackid", "track", "songid", "song", "artistid", "artist", "articleid", "article"),
        *("gameid", "game", "businessid", "poiid", "venueid"),
    ),
    "rating": ("rating", "rate", "score", "stars", "star", "overall", "preference", "bookrating"),
    "time": (
        *("timestamp", "time", "datetime", "date", "ts", "unixreviewtime", "unixtime", "when"),
        *("createdat", "ratedat", "eventtime"),
    ),
}

#: Likewise for what is recognised of items, and of users.
TITLES = ("title", "itemtitle", "movietitle", "filmtitle", "booktitle", "productname", "itemname", "name")
YEARS = ("year", "releaseyear", "released", "releasedate", "yearofrelease")
GENRES = ("genres", "genre", "categories", "category", "tags")
ITEM_FEATURES = (*TITLES, *YEARS, *GENRES)
USER_FEATURES = ("age", "gender", "sex", "occupation", "country", "zipcode")


def find_column(table: TableFile, words: Sequence[str], taken: Collection[str] = ()) -> str | None:
    """Find the column that has the best of some usual names.

    Args:
        table: The table.
        words: The names, best first, each as `plain_name` gives it.
        taken: Columns that are something else already.

    Returns:
        The column as the table calls it; None where it has none of the names.

    Raises:
        RecflowError: If two columns have one name but for its spelling.
    """
    for word in words:
        found = [name for name in table.names if plain_name(name) == word and name not in taken]
        if len(found) > 1:
            raise RecflowError(
                f"{table.path}: {' and '.join(map(repr, found))} are the same name but for its spelling, expected one "
                "such column; rename the other"
            )
        if found:
            return found[0]
    return None
