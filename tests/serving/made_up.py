"""A model that nobody trained, of users 1 to 20 and items 100 to 159."""

import torch

from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker

NUM_USERS, NUM_ITEMS = 20, 60
GENRES = [("Drama",), ("Comedy",), ("Comedy", "Drama"), ("Sci-Fi",), ()]
HEADER = {
    "dataset": "made-up",
    "sha256": "0" * 64,
    "users": NUM_USERS,
    "items": NUM_ITEMS,
    "interactions": {"train": 80, "val": 10, "test": 10},
    "filter": "none",
    "split": "ratio 8:1:1 per user, random, seed 42",
    "relevance": "rating >= 4",
    "candidates": "full ranking",
    "seed": 42,
    "device": "cpu",
    "versions": {"recflow": "0.1.0"},
}


def make_bundle(folder, seed, plugin="lightgcn", ranker=None, untrained=None):
    generator = torch.Generator().manual_seed(seed)
    users = torch.arange(NUM_USERS).repeat_interleave(5)
    items = torch.randint(NUM_ITEMS, (len(users),), generator=generator)
    save_bundle(
        folder,
        plugin=plugin,
        ranker=ranker
        or FactorRanker(
            user_factors=torch.randn(NUM_USERS, 8, generator=generator),
            item_factors=torch.randn(NUM_ITEMS, 8, generator=generator),
            reg=0.1,
        ),
        histories=Histories.from_pairs(
            users, items, NUM_USERS, NUM_ITEMS, torch.randint(1, 6, (len(users),), generator=generator).float()
        ),
        items=[
            Item(item, 100 + item, f"Movie {item} <&> (19{item + 40})", 1940 + item, GENRES[item % 5], NUM_ITEMS - item)
            for item in range(NUM_ITEMS)
        ],
        user_ids=range(1, NUM_USERS + 1),
        untrained=untrained,
        about={
            "task": "ranking",
            "rating_scale": [1.0, 5.0],
            "relevant_from": 4.0,
            "header": HEADER,
            "metrics": {"ndcg@10": 0.25},
        },
    )
    return folder
