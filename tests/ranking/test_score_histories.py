"""Many histories folded in at once, beside one at a time."""

import pytest
import torch

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker

NUM_USERS, NUM_ITEMS, NUM_ROWS, DIM = 7, 11, 9, 3


@pytest.fixture
def random():
    return torch.Generator().manual_seed(3)


def factors(random, **settings) -> FactorRanker:
    user_factors, item_factors = (torch.randn(size, DIM, generator=random) for size in (NUM_USERS, NUM_ITEMS))
    return FactorRanker(
        user_factors, item_factors, item_bias=torch.randn(NUM_ITEMS, generator=random), mean=3.5, **settings
    )


@pytest.fixture
def histories(random):
    known = torch.rand(NUM_ROWS, NUM_ITEMS, generator=random) < 0.4
    known[0] = known[5] = known[-1] = False  # empty ones first, in the middle and last
    known[3] = True
    users, items = known.nonzero(as_tuple=True)
    stars = torch.randint(1, 11, (len(users),), generator=random) / 2
    return Histories.from_pairs(users, items, NUM_ROWS, NUM_ITEMS, stars)


def all_rankers(random) -> dict[str, Ranker]:
    weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=random)
    nobody = torch.zeros(2, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    no_vectors = torch.empty(NUM_USERS, 0), torch.empty(NUM_ITEMS, 0)
    bias = torch.randn(NUM_ITEMS, generator=random)
    solving = {
        f"solve {reg} {reg_bias} {exponent}": factors(random, reg=reg, reg_bias=reg_bias, reg_exponent=exponent)
        for reg in (0.0, 0.05, 2.0)
        for reg_bias in (None, 0.0, 0.3)
        for exponent in (0.0, 0.5, 1.0)
    }
    return solving | {
        "item-item": ItemItemRanker(weights, *nobody),
        "propagate": factors(random, fold_in="propagate", fold_in_factors=weights[:, :DIM].contiguous()),
        "bias alone": FactorRanker(*no_vectors, item_bias=bias, mean=3.0, reg_bias=2.0, reg_exponent=1.0),
        "popularity": FactorRanker(*no_vectors, item_bias=bias),
    }


@pytest.mark.parametrize("fold_in_bytes", [1, 2000, 2**20], ids=["one by one", "a few", "at once"])
@pytest.mark.parametrize("users", [[*range(9)], [3], [5], [8, 0], [4, 7, 7, 0, 1]], ids=str)
@pytest.mark.parametrize("rated", [True, False], ids=["rated", "liked"])
def test_each_row_is_what_its_history_alone_gets(random, histories, monkeypatch, rated, users, fold_in_bytes):
    monkeypatch.setattr("recflow.ranking.ridge._CHUNK_BYTES", fold_in_bytes)
    if not rated:
        histories = histories._replace(ratings=torch.empty(0))
    for name, ranker in all_rankers(random).items():
        for candidates in (None, torch.tensor([7, 0, 7])):
            scores = ranker.score_histories(histories, torch.tensor(users), candidates)
            alone = [ranker.score_history(*histories.of(user), candidates) for user in users]
            torch.testing.assert_close(scores, torch.stack(alone), atol=1e-5, rtol=1e-5, msg=name)
            default = Ranker.score_histories(ranker, histories, torch.tensor(users), candidates)
            torch.testing.assert_close(default, torch.stack(alone), atol=0, rtol=0)


def test_known_users_of_an_item_item_model_and_their_histories_have_the_same_scores(random, histories):
    weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=random)
    ranker, users = ItemItemRanker(weights, histories.indptr, histories.items), torch.arange(NUM_ROWS)
    assert torch.equal(ranker.score_histories(histories, users), ranker.score(users))


def test_nobody_gets_no_rows(random, histories):
    nobody = torch.empty(0, dtype=torch.int64)
    for ranker in all_rankers(random).values():
        for scored in (
            ranker.score_histories(histories, nobody),
            Ranker.score_histories(ranker, histories, nobody),
        ):
            assert (scored.shape, scored.dtype) == ((0, NUM_ITEMS), torch.float32)
        assert Ranker.score_histories(ranker, histories, nobody, torch.tensor([1, 2])).shape == (0, 2)


def test_scores_are_memory_of_their_own(random, histories):
    users = torch.arange(NUM_ROWS)
    for ranker in all_rankers(random).values():
        before = ranker.score_histories(histories, users).clone()
        ranker.score_histories(histories, users).fill_(7)
        assert torch.equal(ranker.score_histories(histories, users), before)


@pytest.mark.parametrize("threads", [1, 2])
def test_histories_of_many_lengths_are_folded_in_under_inference_mode(random, histories, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for name, ranker in all_rankers(random).items():
            expected = ranker.score_histories(histories, torch.arange(NUM_ROWS))
            with torch.inference_mode():
                found = ranker.score_histories(histories, torch.arange(NUM_ROWS))
            torch.testing.assert_close(found, expected, msg=name)
    finally:
        torch.set_num_threads(before)
