import pytest
import torch

from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker
from recflow.ranking.recommender import Recommender

NUM_USERS, NUM_ITEMS = 20, 60


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """Users 1 to 20 and items 100 to 159, of a factor model that nobody trained."""
    folder = tmp_path_factory.mktemp("run") / "bundle"
    generator = torch.Generator().manual_seed(0)
    users = torch.arange(NUM_USERS).repeat_interleave(5)
    items = torch.randint(NUM_ITEMS, (len(users),), generator=generator)
    save_bundle(
        folder,
        plugin="lightgcn",
        ranker=FactorRanker(
            user_factors=torch.randn(NUM_USERS, 8, generator=generator),
            item_factors=torch.randn(NUM_ITEMS, 8, generator=generator),
            reg=0.1,
        ),
        histories=Histories.from_pairs(
            users, items, NUM_USERS, NUM_ITEMS, torch.randint(1, 6, (len(users),), generator=generator).float()
        ),
        items=[
            Item(item, 100 + item, f"Movie {item} <&> (19{item + 40})", 1940 + item, ("Drama",), NUM_ITEMS - item)
            for item in range(NUM_ITEMS)
        ],
        user_ids=range(1, NUM_USERS + 1),
        about={
            "task": "ranking",
            "rating_scale": [1.0, 5.0],
            "relevant_from": 4.0,
            "header": {"dataset": "made-up"},
            "metrics": {},
        },
    )
    return folder


@pytest.fixture(scope="session")
def recommender(bundle):
    return Recommender.load(bundle)
