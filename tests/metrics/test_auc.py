import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from recflow.metrics.auc import auc_per_user


def close(actual, expected, rtol=1e-12, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def same(actual, expected):
    """Equal to the last bit; nan equals nan."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def naive_auc(scores: list[float], relevant: list[bool]) -> float:
    good = [score for score, is_good in zip(scores, relevant, strict=True) if is_good and score > -math.inf]
    bad = [score for score, is_good in zip(scores, relevant, strict=True) if not is_good and score > -math.inf]
    if not good or not bad:
        return math.nan
    return sum((g > b) + (g == b) / 2 for g, b in product(good, bad)) / (len(good) * len(bad))


class TestAgainstOthers:
    def test_auc_counts_pairs_and_half_of_ties(self):
        scores = torch.tensor([[4.0, 3.0, 3.0, 2.0, 1.0, -torch.inf]])
        close(auc_per_user(scores, torch.tensor([[0, 0], [3, 1]])), tensor([(1 + 1 + 0.5) / (2 * 3)]))

    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf]), st.booleans()),
                min_size=6,
                max_size=6,
            ),
            min_size=1,
            max_size=5,
        )
    )
    def test_auc_equals_all_pairs_compared(self, rows):
        scores = torch.tensor([[score for score, _ in row] for row in rows])
        relevant = torch.tensor([[good for _, good in row] for row in rows])
        pairs = relevant.nonzero().T.flip(1)  # the order of the pairs does not matter
        expected = [naive_auc([score for score, _ in row], [good for _, good in row]) for row in rows]
        same(auc_per_user(scores, pairs), tensor(expected))

    def test_auc_equals_scikit_learn_with_ties_and_masked_items(self):
        generator = torch.Generator().manual_seed(5)
        scores = torch.randint(8, (40, 50), generator=generator).double()  # ties all over
        scores[torch.rand(40, 50, generator=generator) < 0.3] = -torch.inf
        relevant = torch.rand(40, 50, generator=generator) < 0.2
        ours = auc_per_user(scores, relevant.nonzero().T)
        for row in range(40):
            candidates = scores[row] > -torch.inf
            close(ours[row], tensor(roc_auc_score(relevant[row, candidates].numpy(), scores[row, candidates].numpy())))


class TestInvariants:
    def test_a_perfect_ranking_has_an_auc_of_1_and_its_reverse_of_0(self):
        scores, relevant = torch.tensor([[0.0, 2.0, 1.0, 3.0]]), torch.tensor([[0, 0], [3, 1]])
        assert auc_per_user(scores, relevant) == 1.0
        assert auc_per_user(-scores, relevant) == 0.0

    def test_constant_scores_have_an_auc_of_one_half(self):
        assert auc_per_user(torch.zeros(1, 9), torch.tensor([[0, 0], [1, 8]])) == 0.5

    def test_auc_is_exact_where_float32_could_not_count(self):
        scores = torch.arange(30_000.0).unsqueeze(0)
        relevant = torch.stack([torch.zeros(10_000, dtype=torch.int64), torch.arange(20_000, 30_000)])
        assert auc_per_user(scores, relevant) == 1.0

    def test_auc_is_undefined_without_a_relevant_or_another_candidate(self):
        scores = torch.tensor([[1.0, 2.0, -torch.inf]] * 4)
        pairs = [
            (1, 2),
            (2, 0),
            (2, 1),
            (3, 0),
            (3, 2),
        ]  # only a masked one; all candidates; one of two and a masked one
        auc = auc_per_user(scores, torch.tensor(pairs).T)
        assert auc.isnan().tolist() == [True, True, True, False]
        assert auc[3] == 0.0

    def test_auc_accepts_no_pairs_and_no_rows(self):
        none = torch.empty(2, 0, dtype=torch.int64)
        assert auc_per_user(torch.zeros(2, 3), none).isnan().all()
        assert auc_per_user(torch.zeros(0, 3), none).shape == (0,)

    def test_auc_in_chunks_equals_auc_at_once(self, world, monkeypatch):
        monkeypatch.setattr("recflow.metrics.auc._CHUNK_BYTES", 12 * world.num_items * 4)  # four rows
        again = auc_per_user(world.scores, world.relevant.nonzero().T)
        same(again, world.auc)

    def test_auc_refuses_nan_and_says_how_many_rows(self):
        scores = torch.zeros(4, 5)
        scores[1, 2] = scores[3, 0] = scores[3, 1] = torch.nan
        with pytest.raises(ValueError, match="nan in 2 of 4 rows"):
            auc_per_user(scores, torch.tensor([[0], [0]]))
