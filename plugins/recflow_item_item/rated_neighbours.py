"""Item-KNN for ratings: a baseline, moved by how the user rated the item's nearest neighbours.

Model      r(u, i) = b_ui + Σ_h sim(h, i) (r_uh - b_uh) / Σ_h sim(h, i), over the k items h most similar to i that u
           rated, positive similarities only;  b_ui = mean + b_u + b_i
Baselines  sweeps of  b_i = Σ_u (r_ui - mean - b_u) / (reg_item + n_i),  then b_u likewise with reg_user
Similarity over the n users who rated both, d = r_ui - b_ui:
           pearson-baseline  Σ d_h d_i / sqrt(Σ d_h² Σ d_i²) (n - 1) / (n - 1 + shrink)
           pearson           their ratings' correlation
           cosine            Σ r_h r_i / sqrt(Σ r_h² Σ r_i²)
Source     Koren, TKDD 2010, https://doi.org/10.1145/1644873.1644874, formula 3; defaults as in Surprise's KNNBaseline,
           https://doi.org/10.21105/joss.02174, which the predictions agree with
Differs    neighbours as near as the k-th all count, there the first; predictions are not held against training rows,
           so an item is no neighbour of its own
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.training.modules import ClosedFormModule
from recflow_item_item.memory import refuse_beyond_memory
from recflow_item_item.products import ItemUserMatrix, sums
from recflow_item_item.rated_ranker import RatedNeighboursRanker


class ItemKNNRating(ClosedFormModule):
    """Item-based KNN with baselines; the formulas stand in the file's header.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data. Memory grows with its square.
        num_neighbours: How many nearest neighbours that the user has rated speak for an item, k, at least 1.
        min_neighbours: With fewer of positive similarity the prediction is the baseline, at least 1.
        similarity: pearson-baseline, pearson or cosine, over the users who rated both.
        shrink: By how many common users pearson-baseline is shrunk, at least 0; the others are not.
        reg_user: Ridge penalty of users' biases, above 0.
        reg_item: Ridge penalty of items' biases, above 0.
        num_sweeps: How often the biases are solved in turn, at least 1.
    """

    task = "rating"
    monitor = "val/rmse"
    similarity: Tensor
    item_bias: Tensor
    mean: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        num_neighbours: int = 40,
        min_neighbours: int = 1,
        similarity: Literal["pearson-baseline", "pearson", "cosine"] = "pearson-baseline",
        shrink: float = 100.0,
        reg_user: float = 15.0,
        reg_item: float = 10.0,
        num_sweeps: int = 10,
    ) -> None:
        super().__init__()
        if min(num_neighbours, min_neighbours, num_sweeps) < 1:
            raise ValueError(
                "num_neighbours, min_neighbours and num_sweeps must be at least 1, got "
                f"{num_neighbours}, {min_neighbours} and {num_sweeps}"
            )
        if min_neighbours > num_neighbours:
            raise ValueError(
                f"min_neighbours must be at most num_neighbours, got {min_neighbours} and {num_neighbours}: "
                "every prediction would be the baseline"
            )
        if shrink < 0 or reg_user <= 0 or reg_item <= 0:
            raise ValueError(
                f"shrink must be at least 0, reg_user and reg_item above 0, got {shrink}, {reg_user} and {reg_item}"
            )
        refuse_beyond_memory(
            f"item-knn-rating on {num_items:,} items",
            2 * 4 * num_items**2,
            "raise data.k_core or data.min_item_ratings, or use bias-mf, whose memory does not grow with items²",
        )
        self.save_hyperparameters()
        self.register_buffer("similarity", torch.zeros(num_items, num_items))
        self.register_buffer("item_bias", torch.zeros(num_items))
        self.register_buffer("mean", torch.zeros(()))

    @torch.no_grad()
    def sweep(self) -> None:
        """Solve the biases, then all similarities, a block of items at a time."""
        rows, sizes = self.data.train, (self.data.num_items, self.data.num_users)
        by_item = Histories.from_pairs(rows.items, rows.users, *sizes, rows.ratings)
        matrix = ItemUserMatrix(by_item, self.data.num_users)
        stars = by_item.ratings.double()
        user_bias, item_bias = self._baselines(matrix, stars)
        self.mean, self.item_bias = stars.mean().float(), item_bias.float()
        if self.hparams["similarity"] == "pearson-baseline":
            stars = stars - stars.mean() - user_bias[matrix.users] - item_bias[matrix.items]
        for block in matrix.blocks(12):
            similarity = self._similarity(matrix, stars.float(), block)
            own = torch.arange(block.start, block.stop, device=similarity.device)
            similarity[own, own - block.start] = 0
            self.similarity[:, block] = similarity
        # The two halves differ in their last digits, for they were summed in another order.
        self.similarity.triu_()
        self.similarity += self.similarity.triu(1).T

    def ranker(self) -> RatedNeighboursRanker:
        """Similarities, items' biases and the rated histories; users' biases follow from these."""
        rows = self.data.train
        seen = Histories.from_pairs(rows.users, rows.items, self.data.num_users, self.data.num_items, rows.ratings)
        return RatedNeighboursRanker(
            self.similarity,
            self.item_bias,
            *seen,
            mean=float(self.mean),
            num_neighbours=self.hparams["num_neighbours"],
            min_neighbours=self.hparams["min_neighbours"],
            reg_user=self.hparams["reg_user"],
            rating_scale=self.data.rating_scale,
        )

    def _baselines(self, matrix: ItemUserMatrix, stars: Tensor) -> tuple[Tensor, Tensor]:
        """Users' biases, ``[num_users]``, and items', ``[num_items]``, float64."""
        users, items, stars = matrix.users, matrix.items, stars - stars.mean()
        of_user = torch.bincount(users, minlength=matrix.num_users) + self.hparams["reg_user"]
        of_item = torch.bincount(items, minlength=matrix.num_items) + self.hparams["reg_item"]
        user_bias = stars.new_zeros(matrix.num_users)
        item_bias = stars.new_zeros(matrix.num_items)
        for _ in range(self.hparams["num_sweeps"]):
            item_bias = sums(stars - user_bias[users], items, matrix.num_items) / of_item
            user_bias = sums(stars - item_bias[items], users, matrix.num_users) / of_user
        return user_bias, item_bias

    def _similarity(self, matrix: ItemUserMatrix, x: Tensor, block: slice) -> Tensor:
        """All items' similarity to some, ``[num_items, block]``; 0 where it is not defined."""
        one, square = torch.ones_like(x), x.square()
        columns, rated, squares = (matrix.columns(values, block) for values in (x, one, square))
        products = matrix.times(x, columns).double()
        first = matrix.times(square, rated).double()  # Σ x_h² over the users who rated i, too
        second = matrix.times(one, squares).double()
        count = matrix.times(one, rated).double()
        if self.hparams["similarity"] == "pearson":
            sum_first, sum_second = matrix.times(x, rated).double(), matrix.times(one, columns).double()
            products = count * products - sum_first * sum_second
            first = count * first - sum_first.square()
            second = count * second - sum_second.square()
        similarity = products / (first * second).sqrt()
        if self.hparams["similarity"] == "pearson-baseline":
            similarity *= (count - 1) / (count - 1 + self.hparams["shrink"])
        return torch.where((first > 0) & (second > 0) & (count > 0), similarity, 0).float()
