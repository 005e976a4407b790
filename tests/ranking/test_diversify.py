"""Greedy choices by hand, and by a plain loop over the formula."""

import pytest
import torch
import torch.nn.functional as F

from recflow.ranking.diversify import diversify, pool_size


def by_the_formula(scores, vectors, k, diversity):
    unit = F.normalize(vectors, dim=1)
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    chosen = []
    for _ in range(k):
        gains = {}
        for i in range(len(scores)):
            if i not in chosen:
                nearest = max([max(float(unit[i] @ unit[j]), 0.0) for j in chosen], default=0.0)
                gains[i] = (1 - diversity) * float(relevance[i]) - diversity * nearest
        chosen.append(max(gains, key=gains.get))
    return chosen


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9])
def test_it_is_the_formula(diversity):
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(40, generator=generator).sort(descending=True).values
    vectors = torch.randn(40, 6, generator=generator)
    assert diversify(scores, vectors, 12, diversity).tolist() == by_the_formula(scores, vectors, 12, diversity)


def test_equal_scores_and_items_without_vectors_are_no_trouble():
    assert sorted(diversify(torch.ones(3), torch.zeros(3, 2), 3, 0.5).tolist()) == [0, 1, 2]


def test_a_pool_smaller_than_k_gives_all_of_it():
    assert sorted(diversify(torch.tensor([2.0, 1.0]), torch.eye(2), 5, 1.0).tolist()) == [0, 1]


def test_the_pool_holds_k():
    assert all(k <= pool_size(k) <= k + 1000 for k in (1, 10, 1000))
