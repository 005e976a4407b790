"""Genres in a list: how much they differ, and whether they come in the proportions that the user is used to.

Only items with a genre count, here and in a user's past; whoever has too few of them has no value (nan).
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recflow.metrics.ranking import wide_float

ALPHA = 0.01
MAX_GENRES = 1024  # more are tags or keywords: a users × genres matrix would not fit

_WHOLE = 2**40  # an item's genres share this many parts: sums of whole numbers depend on no order


def genre_indicators(items: pl.DataFrame) -> Tensor | None:
    """Which genres each item has.

    Args:
        items: One row an item; ``genres`` is a list of texts.

    Returns:
        Bool, shape ``[num_items, genres]``, the genres in alphabetic order; None where there is no genre, or more than
        ``MAX_GENRES``.

    Example:
        >>> genre_indicators(pl.DataFrame({"genres": [["War", "Drama"], [], ["War"]]})).int()
        tensor([[1, 1],
                [0, 0],
                [0, 1]], dtype=torch.int32)
    """
    if not isinstance(items.schema.get("genres"), pl.List):
        return None
    pairs = items.select(pl.int_range(pl.len()).alias("item"), "genres").explode("genres").drop_nulls()
    names = pairs["genres"].unique().sort()
    if not 0 < len(names) <= MAX_GENRES:
        return None
    column = dict(zip(names.to_list(), range(len(names)), strict=True))
    has = np.zeros((items.height, len(names)), dtype=bool)
    has[pairs["item"].to_numpy(), [column[name] for name in pairs["genres"].to_list()]] = True
    return torch.from_numpy(has)


def diversity(items: Tensor, genres: Tensor) -> Tensor:
    """Intra-list diversity: 1 - cosine of the genres of two items, averaged over the pairs of a list.

    With genres as vectors of 0 and 1, cosine(i, j) = |G_i ∩ G_j| / sqrt(|G_i| |G_j|), and the mean goes over all
    unordered pairs of two items that both have a genre. 0 if all have the same genres, 1 if no two share any.

    Ziegler et al., WWW 2005, https://doi.org/10.1145/1060745.1060754 (its sum of similarities); as a mean distance,
    Vargas & Castells, RecSys 2011, https://doi.org/10.1145/2043932.2043955

    Args:
        items: Recommended items, int64, -1 where there was none, shape ``[batch, k]``.
        genres: Which genres each item has, bool, shape ``[num_items, genres]``.

    Returns:
        Values in [0, 1], float64, shape ``[batch]``; nan for a list with fewer than two items that have a genre.

    Example:
        >>> genres = torch.tensor([[True, False], [False, True], [True, True]])
        >>> diversity(torch.tensor([[0, 1], [0, 2], [0, -1]]), genres)  # cosines 0 and 1 / sqrt(2), no pair
        tensor([1.0000, 0.2929,    nan], dtype=torch.float64)
    """
    own = genres[items.clamp(min=0)].float().masked_fill((items < 0).unsqueeze(-1), 0.0)  # [batch, k, genres]
    wide = wide_float(items.device)
    shared = (own @ own.mT).to(wide)  # [batch, k, k], whole numbers
    size = own.sum(dim=-1).to(wide)
    known = size > 0
    first, second = torch.triu_indices(items.shape[1], items.shape[1], offset=1, device=items.device)
    pair = known[:, first] & known[:, second]  # [batch, pairs]
    distance = 1 - shared[:, first, second] / (size[:, first] * size[:, second]).clamp(min=1).sqrt()
    return distance.masked_fill(~pair, 0.0).sum(dim=1).clamp(min=0) / pair.sum(dim=1)


def genre_parts(genres: Tensor) -> Tensor:
    """Each item's weight, spread evenly over its genres: p(g|i) = 1 / |G_i|, as whole numbers.

    Args:
        genres: Which genres each item has, bool, shape ``[num_items, genres]``.

    Returns:
        p(g|i) · 2^40, rounded, int64, shape ``[num_items, genres]``; zeros for an item without genres.
    """
    return torch.where(genres, _WHOLE // genres.sum(dim=1, keepdim=True).clamp(min=1), 0)


def miscalibration(list_parts: Tensor, past_parts: Tensor, alpha: float = ALPHA) -> Tensor:
    """How far a list's genres are from the proportions of the user's past: Steck's C_KL, of which less is better.

    C_KL = Σ_g p(g) ln(p(g) / q~(g)) with q~ = (1 - alpha) q + alpha p, summed over genres with p(g) > 0. p is the mean
    of p(g|i) over the items that the user liked before, q the same over the list, every item weighing alike. alpha
    keeps the divergence finite where the list lacks a genre.

    Steck, Calibrated Recommendations, RecSys 2018, https://doi.org/10.1145/3240323.3240372

    Args:
        list_parts: Sums of ``genre_parts`` over each list, int64, shape ``[batch, genres]``.
        past_parts: The same over what each user liked before.
        alpha: Weight of p in q~, above 0 and below 1; 0.01 in the paper.

    Returns:
        Nats, in [0, -ln alpha], float64, shape ``[batch]``; nan where a list or a past has no item with a genre.

    Example:
        >>> past = torch.tensor([[1, 1], [1, 0]])
        >>> miscalibration(torch.tensor([[2, 2], [0, 5]]), past)  # as in the past; nothing of it, -ln 0.01
        tensor([0.0000, 4.6052], dtype=torch.float64)
    """
    wide = wide_float(list_parts.device)
    q, p = (parts.to(wide) / parts.sum(dim=1, keepdim=True).to(wide) for parts in (list_parts, past_parts))
    mixed = q + alpha * (p - q)
    terms = torch.where(p > 0, p * (p / mixed).log(), 0.0)
    unknown = (list_parts.sum(dim=1) == 0) | (past_parts.sum(dim=1) == 0)
    return terms.sum(dim=1).clamp(min=0).masked_fill(unknown, torch.nan)
