"""A tiny dataset whose answer is known: three groups of taste, and one liked item withheld from each user."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recflow.data.dataset import DataConfig, Dataset
from recflow.data.interactions import Interactions
from recflow.data.splits import Split

NUM_USERS, NUM_ITEMS, NUM_GROUPS = 30, 44, 3
LIKED, DISLIKED = 5.0, 1.0


def taste_groups(seed: int = 0, poison: bool = False) -> tuple[Dataset, Tensor]:
    """Thirty users and forty-four items in three shuffled groups.

    A user rates every item of the own group 5 and half of the others 1. Of the liked items one is withheld for test
    and one for validation; ranking models learn from ratings of 4 and more. For a user the withheld item must come
    first among the unseen ones: the rest are items of other groups.

    Args:
        seed: Shuffles the groups.
        poison: Replace the test rows by others, which must change no score.

    Returns:
        The dataset, and each user's withheld test item, int64, shape ``[30]``.
    """
    random = np.random.default_rng(seed)
    user_group = random.permutation(np.arange(NUM_USERS) % NUM_GROUPS)
    item_group = random.permutation(np.arange(NUM_ITEMS) % NUM_GROUPS)
    rows: dict[str, list[tuple[int, int, float, int]]] = {"train": [], "val": [], "test": []}
    withheld = torch.empty(NUM_USERS, dtype=torch.int64)
    for user in range(NUM_USERS):
        liked = random.permutation(np.flatnonzero(item_group == user_group[user]))
        others = random.permutation(np.flatnonzero(item_group != user_group[user]))
        disliked, unseen = others[: len(others) // 2], others[len(others) // 2 :]
        withheld[user] = int(liked[0])
        rows["test"].append((user, int(unseen[0] if poison else liked[0]), LIKED, 3))
        rows["val"].append((user, int(liked[1]), LIKED, 2))
        rows["train"] += [(user, int(item), LIKED, 1) for item in liked[2:]]
        rows["train"] += [(user, int(item), DISLIKED, 1) for item in disliked]
    schema = {"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32, "time": pl.Int64}
    parts = {part: pl.DataFrame(table, schema=schema, orient="row") for part, table in rows.items()}
    interactions = Interactions(
        name="taste-groups",
        sha256="0" * 64,
        table=pl.concat(parts.values()),
        users=pl.DataFrame({"user_id": [100 + user for user in range(NUM_USERS)]}),
        items=pl.DataFrame(
            {
                "item_id": [1000 + item for item in range(NUM_ITEMS)],
                "title": [f"Group {item_group[item]}, Item {item} (2000)" for item in range(NUM_ITEMS)],
                "year": [2000] * NUM_ITEMS,
                "genres": [[f"Group {item_group[item]}"] for item in range(NUM_ITEMS)],
            }
        ),
        dropped=pl.DataFrame(schema={"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32}),
        rating_scale=(DISLIKED, LIKED),
        filters="none",
    )
    config = DataConfig(name="taste-groups", relevant_from=4.0, batch_size=64)
    return Dataset(interactions, Split(**parts, describe="one liked item withheld per user"), config), withheld
