"""Item-KNN: whoever liked an item's nearest neighbours is given the item.

Model      score(u, i) = Σ over u's items h that are among i's nearest of v_h sim(h, i);  v_h = 1, under bm25 h's weight
Similarity sim(h, i) = <x_h, x_i> / (|x_h| |x_i| + shrink), or <x_h, x_i> alone; x_i is i's column of the matrix
Weighting  x_ui = t_ui;  tfidf: sqrt(t_ui) idf_u;  bm25: 2.2 t_ui idf_u / (1.2 l_i + t_ui);  t_ui = 1 or the rating,
           idf_u = log(num_items / (1 + n_u)),  l_i = ¼ + ¾ Σ_u t_ui / (its mean over items);  n_u counts u's items
Centring   pearson subtracts each item's mean from its ratings, adjusted each user's
Source     Sarwar et al., WWW 2001, https://doi.org/10.1145/371920.372071; Deshpande & Karypis, TOIS 2004,
           https://doi.org/10.1145/963770.963776; weightings and shrinkage as in the evaluation framework of Ferrari
           Dacrema et al., RecSys 2019, https://arxiv.org/abs/1907.06902
Differs    there a history is weighted as the matrix is, with its ratings: here each item counts once, which is the
           same ranking for likes; neighbours of negative similarity are left out
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import ItemItemRanker
from recflow.ranking.topk import top_k
from recflow.training.modules import ClosedFormModule
from recflow_item_item.memory import refuse_beyond_memory
from recflow_item_item.products import ItemUserMatrix, sums
from recflow_item_item.sparse_ranker import SparseItemItemRanker

_DENSE_BYTES = 256 * 2**20  # up to 8,192 items; beyond, weights are kept as a sparse matrix
_K1, _B = 1.2, 0.75  # BM25's constants


class ItemKNN(ClosedFormModule):
    """Item-KNN with shrunk cosine; the formulas stand in the file's header.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        num_neighbours: How many nearest neighbours of an item may speak for it, at least 1.
        similarity: cosine; pearson: of ratings less their item's mean; adjusted: less their user's mean. The last two
            need values: ratings.
        shrink: Added to the product of the norms, at least 0: the fewer they share, the less two items are alike.
        normalize: Whether to divide by the norms and shrink; without, the bare dot product is the similarity.
        weighting: none; tfidf: users who like little count more; bm25: and items that many like count less.
        values: likes: every interaction is a 1; ratings: it is its stars.
    """

    task = "ranking"
    neighbours: Tensor
    weights: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        num_neighbours: int = 100,
        similarity: Literal["cosine", "pearson", "adjusted"] = "cosine",
        shrink: float = 10.0,
        normalize: bool = True,
        weighting: Literal["none", "tfidf", "bm25"] = "none",
        values: Literal["likes", "ratings"] = "likes",
    ) -> None:
        super().__init__()
        if num_neighbours < 1:
            raise ValueError(f"num_neighbours must be at least 1, got {num_neighbours}")
        if shrink < 0:
            raise ValueError(f"shrink must be at least 0, got {shrink}")
        if similarity != "cosine" and values == "likes":
            raise ValueError(f"similarity {similarity} centres ratings, and likes are all alike: set values to ratings")
        if similarity != "cosine" and weighting != "none":
            raise ValueError(f"similarity {similarity} goes with weighting none, got weighting {weighting}")
        width = max(1, min(num_neighbours, num_items - 1))
        refuse_beyond_memory(
            f"item-knn on {num_items:,} items with {width:,} neighbours each",
            3 * 12 * num_items * width,
            "lower model.num_neighbours or raise data.k_core",
        )
        self.save_hyperparameters()
        self.register_buffer("neighbours", torch.zeros(num_items, width, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(num_items, width))  # 0 beside a neighbour who is none

    @torch.no_grad()
    def sweep(self) -> None:
        """Find each item's neighbours, a block of items at a time."""
        rows = self.data.positives
        by_item = Histories.from_pairs(
            rows.items, rows.users, self.data.num_items, self.data.num_users, self._values(rows.ratings)
        )
        matrix = ItemUserMatrix(by_item, self.data.num_users)
        values, history_weight = self._weighted(matrix, by_item.ratings.double())
        norm = sums(values.square(), matrix.items, matrix.num_items).sqrt().float()
        entries = values.float()
        for block in matrix.blocks(4):
            similarity = matrix.times(entries, matrix.columns(entries, block))  # [num_items, block]
            if self.hparams["normalize"]:
                similarity /= (norm[:, None] * norm[block] + self.hparams["shrink"]).clamp_(min=1e-12)
            own = torch.arange(block.start, block.stop, device=norm.device)
            similarity[own, own - block.start] = 0
            nearest = top_k(similarity.T.contiguous(), self.neighbours.shape[1])
            self.neighbours[block] = nearest.items
            self.weights[block] = nearest.scores.clamp(min=0) * history_weight[nearest.items]

    def ranker(self) -> ItemItemRanker | SparseItemItemRanker:
        """The weights, dense while that is small, and the training histories that they are applied to."""
        num_items = self.data.num_items
        rows = self.data.positives
        seen = Histories.from_pairs(rows.users, rows.items, self.data.num_users, num_items)
        if 4 * num_items**2 > _DENSE_BYTES:
            return SparseItemItemRanker.of_neighbours(self.neighbours, self.weights, seen.indptr, seen.items)
        dense = self.weights.new_zeros(num_items, num_items)
        dense.T.scatter_(1, self.neighbours, self.weights)  # row h: what h adds to each item
        return ItemItemRanker(dense, seen.indptr, seen.items)

    def _values(self, ratings: Tensor) -> Tensor:
        if self.hparams["values"] == "likes":
            return torch.ones_like(ratings)
        if not self.data.interactions.has_ratings:
            raise RecflowError(f"{self.data.name} has no ratings, which model.values ratings needs: set it to likes.")
        return ratings

    def _weighted(self, matrix: ItemUserMatrix, values: Tensor) -> tuple[Tensor, Tensor]:
        """The user–item matrix's entries, ``[num_interactions]``, and v, what a like weighs, ``[num_items]``."""
        num_items, num_users = matrix.num_items, matrix.num_users
        one = values.new_ones(num_items, dtype=torch.float32)
        if self.hparams["similarity"] == "pearson":
            return values - _means(values, matrix.items, num_items)[matrix.items], one
        if self.hparams["similarity"] == "adjusted":
            return values - _means(values, matrix.users, num_users)[matrix.users], one
        if self.hparams["weighting"] == "none":
            return values, one
        count = torch.bincount(matrix.users, minlength=num_users)
        idf = (num_items / (1.0 + count.double())).log()[matrix.users]
        if self.hparams["weighting"] == "tfidf":
            return values.sqrt() * idf, one
        size = sums(values, matrix.items, num_items)
        length = 1 - _B + _B * size / size.mean()
        weighted = values * (_K1 + 1) / (_K1 * length[matrix.items] + values) * idf
        return weighted, ((_K1 + 1) / (_K1 * length + 1)).float()


def _means(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    return sums(values, groups, num_groups) / torch.bincount(groups, minlength=num_groups).clamp(min=1)
