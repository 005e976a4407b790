"""Given candidates: the few items that a published protocol ranks a user's test items among, read off the full scores.

NCF's protocol (He et al., WWW 2017, https://arxiv.org/abs/1708.05031) gives each user 99 items to rank beside the one
held out. Its values are far higher than those of a full ranking and may even order models otherwise (Krichene & Rendle,
KDD 2020, https://doi.org/10.1145/3394486.3403226), so they carry the protocol in their names: ``hit@10_neg99``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recflow.data.dataset import Dataset
from recflow.ranking.histories import Histories
from recflow.ranking.topk import top_k


class GivenCandidates(NamedTuple):
    """What each user's relevant items are ranked among.

    Attributes:
        candidates: Each user's given negatives and relevant items, each item once; none for users without negatives.
        negatives: The median of the numbers of negatives that users were given, rounded.
        width: The largest number of candidates that a user has.
    """

    candidates: Histories
    negatives: int
    width: int

    @classmethod
    def of(cls, data: Dataset, relevant: Histories) -> GivenCandidates | None:
        """The candidates that a dataset brings, if it does.

        Args:
            data: Where the negatives come from.
            relevant: Each user's relevant items; one that is also among the negatives is no negative.
        """
        pairs = data.interactions.negatives
        if pairs.is_empty():
            return None
        device = relevant.items.device
        users, items = (
            torch.from_numpy(pairs[name].to_numpy().astype(np.int64)).to(device) for name in ("user", "item")
        )
        given = torch.bincount(users, minlength=data.num_users).nonzero().flatten()
        position, wanted = relevant.rows(given)
        users, items = torch.cat([users, given[position]]), torch.cat([items, wanted])
        candidates = Histories.from_pairs(users, items, data.num_users, data.num_items)
        sizes = candidates.lengths(given)
        negatives = (sizes - relevant.lengths(given)).cpu().numpy()
        return cls(candidates, int(np.median(negatives) + 0.5), int(sizes.max()))

    def best(self, users: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The best k of each user's candidates; ties go to the lower item index.

        Args:
            users: User indices, int64, shape ``[batch]``.
            scores: Their scores of all items, -inf for what they have seen, shape ``[batch, num_items]``.
            k: How many, at least 1.

        Returns:
            Those of the users who were given negatives, int64, shape ``[given]``, and their items, best first, -1
            where there are no more, int64, shape ``[given, k]``.
        """
        rows = (self.candidates.lengths(users) > 0).nonzero().flatten()
        position, items = self.candidates.rows(users[rows])
        lengths = self.candidates.lengths(users[rows])
        column = torch.arange(len(position), device=users.device) - (lengths.cumsum(0) - lengths)[position]
        own = scores.new_full((len(rows), self.width), -torch.inf)
        own[position, column] = scores[rows[position], items]
        index = torch.full_like(own, -1, dtype=torch.int64)
        index[position, column] = items  # ascending: of equal scores the lower column is the lower item
        best = top_k(own, k).items
        return users[rows], index.gather(1, best.clamp(min=0)).masked_fill(best < 0, -1)
