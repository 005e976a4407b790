import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker
from recflow.ranking.topk import mask_, score_chunks, top_k

INF = math.inf


def by_sorting(scores: list[float], k: int) -> tuple[list[int], list[float]]:
    """The plainest top-k: sort by falling score, then by index; -inf is no candidate; fill up with -1."""
    order = sorted((i for i, score in enumerate(scores) if score > -INF), key=lambda i: (-scores[i], i))[:k]
    fill = k - len(order)
    return order + [-1] * fill, [scores[i] for i in order] + [-INF] * fill


few_values = st.sampled_from([-INF, -2.5, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, 1.0000001, 3.0, 3e38])
any_value = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def matrices(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    row = st.lists(st.one_of(few_values, few_values, few_values, any_value), min_size=columns, max_size=columns)
    return draw(st.lists(row, min_size=rows, max_size=rows))


@settings(max_examples=400, deadline=None)
@given(matrices(), st.integers(1, 15))
def test_top_k_is_a_sort_by_score_then_index(rows, k):
    scores = torch.tensor(rows, dtype=torch.float32)
    best = top_k(scores, k)
    assert (best.items.dtype, best.items.shape, best.scores.shape) == (torch.int64, (len(rows), k), (len(rows), k))
    for row, items, values in zip(scores.tolist(), best.items.tolist(), best.scores.tolist(), strict=True):
        assert (items, values) == by_sorting(row, k)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_top_k_is_a_sort_on_wide_rows_of_few_different_scores(seed, k):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 3, (3, 500), generator=generator).float() / 3
    scores[torch.rand(3, 500, generator=generator) < 0.3] = -INF
    for row, items, values in zip(scores.tolist(), *(part.tolist() for part in top_k(scores, k)), strict=True):
        assert (items, values) == by_sorting(row, k)


def test_ties_go_to_the_lower_index_where_the_cut_falls_among_them():
    assert top_k(torch.tensor([[1.0, 2.0, 1.0, 1.0]]), 2).items.tolist() == [[1, 0]]
    assert top_k(torch.zeros(1, 5000), 3).items.tolist() == [[0, 1, 2]]


def test_minus_zero_and_zero_are_equal():
    assert top_k(torch.tensor([[-0.0, 0.0, -0.0]]), 3).items.tolist() == [[0, 1, 2]]
    assert top_k(torch.tensor([[-1.0, 0.0, -0.0, 0.0]]), 2).items.tolist() == [[1, 2]]


def test_a_row_with_nothing_left_is_all_minus_one():
    best = top_k(torch.full((2, 3), -INF), 2)
    assert best.items.tolist() == [[-1, -1], [-1, -1]]
    assert best.scores.tolist() == [[-INF, -INF], [-INF, -INF]]


def test_more_than_there_are_items_is_filled_up():
    best = top_k(torch.tensor([[0.5, -INF]]), 4)
    assert best.items.tolist() == [[0, -1, -1, -1]]
    assert best.scores.tolist() == [[0.5, -INF, -INF, -INF]]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        top_k(torch.zeros(1, 3), k)


def test_top_k_leaves_its_argument_alone():
    scores = torch.tensor([[1.0, 1.0, -INF, 2.0]])
    before = scores.clone()
    top_k(scores, 3)
    assert torch.equal(scores, before)


def random_world(seed: int = 0, num_users: int = 23, num_items: int = 17):
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(num_users, num_items, generator=generator) < 0.3
    seen[3] = False  # someone without a history
    seen[5] = True  # someone who has seen everything
    users, items = seen.nonzero(as_tuple=True)
    ranker = FactorRanker(
        torch.randint(-1, 2, (num_users, 2), generator=generator).float(),  # small whole numbers: many ties
        torch.randint(-1, 2, (num_items, 2), generator=generator).float(),
    )
    return ranker, seen, Histories.from_pairs(users, items, num_users, num_items)


def test_the_mask_is_what_a_loop_would_set():
    ranker, seen, histories = random_world()
    users = torch.tensor([5, 0, 3, 0, 22])
    allowed = torch.arange(17) % 3 != 0
    raw = ranker.score(users)
    masked = mask_(raw.clone(), users, histories, allowed)
    for row, user in enumerate(users.tolist()):
        for item in range(17):
            out = bool(seen[user, item]) or not bool(allowed[item])
            assert float(masked[row, item]) == (-INF if out else float(raw[row, item]))
    assert torch.equal(mask_(raw.clone(), users), raw)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 17, 4 * 17 * 5 + 3, 4 * 17 * 23, 2**27])
def test_the_chunk_size_changes_nothing_and_no_seen_item_gets_through(chunk_bytes):
    ranker, seen, histories = random_world()
    users = torch.tensor([*range(22, -1, -1), 4, 4])
    whole = top_k(mask_(ranker.score(users), users, histories), 6)
    chunks = list(score_chunks(ranker, users, histories, chunk_bytes))
    assert torch.equal(torch.cat([chunk for chunk, _ in chunks]), users)
    assert all(len(chunk) <= max(1, chunk_bytes // (4 * 17)) for chunk, _ in chunks)
    best = [top_k(scores, 6) for _, scores in chunks]
    assert torch.equal(torch.cat([part.items for part in best]), whole.items)
    assert torch.equal(torch.cat([part.scores for part in best]), whole.scores)
    for user, items in zip(users.tolist(), whole.items.tolist(), strict=True):
        assert not any(bool(seen[user, item]) for item in items if item >= 0)
        assert sum(item >= 0 for item in items) == min(6, int((~seen[user]).sum()))


def test_scores_are_not_masked_when_nothing_is_known():
    ranker, _, _ = random_world()
    users = torch.arange(23)
    assert torch.equal(torch.cat([scores for _, scores in score_chunks(ranker, users)]), ranker.score(users))
