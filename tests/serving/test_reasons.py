"""A service can only give reasons if they are quick: factor models find them in closed form."""

import pytest
import torch

from recflow.ranking.rankers import FactorRanker, Ranker

NUM_ITEMS, DIM = 50, 8


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("length", [0, 1, 2, 30])
@pytest.mark.parametrize("rated", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        {"reg": 0.1},
        {"reg": 0.1, "reg_bias": 0.5, "reg_exponent": 1.0, "mean": 3.5, "item_bias": "random"},
        {"reg": 0.3, "reg_exponent": 0.5},
        {"fold_in": "propagate", "fold_in_factors": "random"},
    ],
)
def test_closed_form_reasons_are_the_falls_of_the_score(kind, rated, length, generator):
    shapes = {"item_bias": (NUM_ITEMS,), "fold_in_factors": (NUM_ITEMS, DIM)}
    given = {
        name: torch.randn(shapes[name], generator=generator) if value == "random" else value
        for name, value in kind.items()
    }
    ranker = FactorRanker(
        user_factors=torch.zeros(1, DIM), item_factors=torch.randn(NUM_ITEMS, DIM, generator=generator), **given
    )
    items = torch.randperm(NUM_ITEMS, generator=generator)[:length]
    ratings = torch.randint(1, 6, (length,), generator=generator).float() if rated else None
    torch.testing.assert_close(
        ranker.explain(items, ratings, 7), Ranker.explain(ranker, items, ratings, 7), rtol=1e-4, atol=1e-5
    )
