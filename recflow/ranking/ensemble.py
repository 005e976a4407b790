"""One ranker made of several: by the ranks that they give, or by their scores brought to one scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker

_CHUNK_BYTES = 2**24  # of one part's scores at a time: all parts' stand in memory together


class Evidence(NamedTuple):
    """What the parts say, on one scale.

    Attributes:
        values: One number for each part and item, 0 where hidden, float32, ``[batch, parts, num_items]``.
        hidden: The items that each user has seen, bool, ``[batch, num_items]``.
    """

    values: Tensor
    hidden: Tensor


class EnsembleRanker(Ranker):
    """``score(u, i) = Σ_p w_p v_p(u, i)``, where v_p is what part p says of item i on one scale.

    - ``"rrf"``: ``1 / (rrf_k + rank)``, ranks from 1 among the items that u has not seen, equals sharing the mean of
      theirs (reciprocal rank fusion: Cormack, Clarke & Büttcher, SIGIR 2009);
    - ``"weighted"``: ``(s - mean) / deviation`` of part p's scores over the items that u has not seen, 0 if all are
      equal. A rating model's scores are its stars.

    Seen items disturb neither; their own score is 1 below u's lowest. A history is folded in by each part in its own
    way: rating models are given all of it with the stars, models that learnt from likes alone what is rated
    ``liked_from`` or better.

    Args:
        parts: The rankers, all of the same users and items.
        kinds: What each part is saved as; see :func:`~recflow.ranking.kinds.kind_of`.
        weights: w, at least 0 and not all 0.
        indptr: Row starts of what the known users have seen, int64, ``[num_users + 1]``.
        items: Those items, int64, ``[num_interactions]``.
        liked_from: The rating from which each part counts an item of a history; None: all of them.
        fusion: The scale, see above.
        rrf_k: How little the first ranks stand out, at least 0.
    """

    whole_history = True
    holds_histories = True
    indptr: Tensor
    items: Tensor

    def __init__(
        self,
        parts: Sequence[Ranker],
        kinds: Sequence[str],
        weights: Sequence[float],
        indptr: Tensor,
        items: Tensor,
        liked_from: Sequence[float | None] | None = None,
        fusion: Literal["rrf", "weighted"] = "weighted",
        rrf_k: float = 60.0,
    ) -> None:
        super().__init__()
        liked_from = [None] * len(parts) if liked_from is None else liked_from
        if not 0 < len(parts) == len(kinds) == len(weights) == len(liked_from):
            lengths = f"{len(parts)}, {len(kinds)}, {len(weights)} and {len(liked_from)}"
            raise ValueError(f"parts, kinds, weights and liked_from must be as many as each other, got {lengths}")
        sizes = {(part.num_users, part.num_items) for part in parts}
        if len(sizes) > 1:
            raise ValueError(f"parts must be of the same users and items, got {sorted(sizes)}")
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"weights must be at least 0 and not all 0, got {list(weights)}")
        if fusion not in ("rrf", "weighted"):
            raise ValueError(f"fusion must be rrf or weighted, got {fusion!r}")
        ((self.num_users, self.num_items),) = sizes
        self.parts = nn.ModuleList(parts)
        self.kinds, self.weights, self.liked_from = list(kinds), [float(weight) for weight in weights], list(liked_from)
        self.fusion: Literal["rrf", "weighted"] = fusion
        self.rrf_k = rrf_k
        self.register_buffer("indptr", indptr)
        self.register_buffer("items", items)

    def settings(self) -> dict[str, Any]:
        """See :meth:`Ranker.settings`; the parts' settings stand inside."""
        names = ("weights", "liked_from", "fusion", "rrf_k")
        parts = [
            {"kind": kind, "settings": part.settings()} for kind, part in zip(self.kinds, self._rankers, strict=True)
        ]
        return {"parts": parts, **{name: getattr(self, name) for name in names}}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """See :meth:`Ranker.rebuild`; each part is rebuilt by its own kind."""
        from recflow.ranking.kinds import ranker_class  # which knows this class, too

        own = dict(settings)
        described = own.pop("parts")
        parts = []
        for place, part in enumerate(described):
            prefix = f"parts.{place}."
            inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            parts.append(ranker_class(part["kind"]).rebuild(part["settings"], inner))
        return cls(parts, [part["kind"] for part in described], indptr=tensors["indptr"], items=tensors["items"], **own)

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score`."""
        return self._in_chunks(self.evidence, users, candidates)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_history`."""
        only = torch.zeros(1, dtype=torch.int64, device=items.device)
        return self.score_histories(Histories.of_one(items, ratings), only, candidates)[0]

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """By each part's own :meth:`Ranker.score_histories`."""
        return self._in_chunks(lambda some: self.evidence_of_histories(histories, some), users, candidates)

    def similar(self, items: Tensor) -> Tensor:
        """The same fusion of the parts' similarities, by those parts that have any; see :meth:`Ranker.similar`."""
        near, weights = [], []
        for part, weight in zip(self._rankers, self.weights, strict=True):
            try:
                near.append(part.similar(items))
            except RecflowError:
                continue
            weights.append(weight)
        if not near:
            return super().similar(items)
        own = F.one_hot(items, self.num_items).bool()
        return self._fused(self._scaled(near, own), weights if max(weights) > 0 else [1.0] * len(weights))

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """See :meth:`explain_many`."""
        return self.explain_many(items, ratings, torch.tensor([item], device=items.device))[0]

    def explain_many(self, items: Tensor, ratings: Tensor | None, wanted: Tensor) -> Tensor:
        """See :meth:`Ranker.explain_many`; exact: all shortened histories are scored anew, by all parts, once."""
        length, device = len(items), items.device
        everything = torch.arange(length, device=device)
        whole, falls = self.score_history(items, ratings, wanted), [torch.empty(len(wanted), 0, device=device)]
        for left_out in torch.split(everything, self._chunk_size):
            kept = everything.expand(len(left_out), -1)  # [chunk, history]
            place = kept[kept != left_out[:, None]]  # [chunk * (history - 1)]
            rows = torch.arange(len(left_out) + 1, device=device)
            stars = torch.empty(0, device=device) if ratings is None else ratings[place]
            shortened = Histories(rows * (length - 1), items[place], stars)
            falls.append((whole - self.score_histories(shortened, rows[:-1], wanted)).T)  # [recommended, chunk]
        return torch.cat(falls, dim=1)

    def evidence(self, users: Tensor) -> Evidence:
        """What the parts say to known users, int64, ``[batch]``."""
        seen = Histories(self.indptr, self.items, torch.empty(0))
        return self._scaled((part.score(users) for part in self._rankers), self._hidden(seen, users))

    def evidence_of_histories(self, histories: Histories, users: Tensor) -> Evidence:
        """What the parts say to someone new, to each of some rows of ``histories``, int64, ``[batch]``."""
        _, place = histories.places(users)
        starts = F.pad(histories.lengths(users).cumsum(0), (1, 0))
        given = Histories(
            starts, histories.items[place], histories.ratings[place] if len(histories.ratings) else histories.ratings
        )
        rows = torch.arange(len(users), device=users.device)
        scores = (
            part.score_histories(given if threshold is None else given.at_least(threshold), rows)
            for part, threshold in zip(self._rankers, self.liked_from, strict=True)
        )
        return self._scaled(scores, self._hidden(given, rows))

    @property
    def _rankers(self) -> list[Ranker]:
        return [part for part in self.parts if isinstance(part, Ranker)]

    @property
    def _chunk_size(self) -> int:
        return max(1, _CHUNK_BYTES // (4 * self.num_items))

    def _hidden(self, histories: Histories, users: Tensor) -> Tensor:
        hidden = torch.zeros(len(users), self.num_items, dtype=torch.bool, device=users.device)
        hidden[histories.rows(users)] = True
        return hidden

    def _scaled(self, scores: Iterable[Tensor], hidden: Tensor) -> Evidence:
        if self.fusion == "rrf":
            values = [(1 / (self.rrf_k + ranks(part, hidden))).masked_fill_(hidden, 0) for part in scores]
        else:
            values = [standardised(part, hidden) for part in scores]
        return Evidence(torch.stack(values, 1), hidden)

    def _fused(self, evidence: Evidence, weights: Sequence[float]) -> Tensor:
        """Scores, ``[batch, num_items]``."""
        values, hidden = evidence
        total = torch.einsum("bpi,p->bi", values, values.new_tensor(weights))
        lowest = total.masked_fill(hidden, torch.inf).amin(1, keepdim=True)
        return torch.where(hidden, lowest.nan_to_num_(posinf=0.0) - 1, total)

    def _in_chunks(self, evidence: Callable[[Tensor], Evidence], users: Tensor, candidates: Tensor | None) -> Tensor:
        """Ranks and means are over all unseen items, whichever of them are asked for."""
        fused = []
        for some in torch.split(users, self._chunk_size):
            scores = self._fused(evidence(some), self.weights)
            fused.append(scores if candidates is None else scores[:, candidates])
        return torch.cat(fused)


def standardised(scores: Tensor, hidden: Tensor) -> Tensor:
    """Scores less their mean, over their deviation, both over what is not hidden.

    Args:
        scores: ``[batch, num_items]``.
        hidden: What does not count, bool, ``[batch, num_items]``.

    Returns:
        ``[batch, num_items]``; 0 where hidden, and everywhere in a row of equal scores.

    Example:
        >>> standardised(torch.tensor([[1.0, 3.0, 50.0]]), torch.tensor([[False, False, True]]))
        tensor([[-1.,  1.,  0.]])
    """
    count = (~hidden).sum(1, keepdim=True).clamp_(min=1)
    mean = scores.masked_fill(hidden, 0).sum(1, keepdim=True, dtype=torch.float64) / count
    away = (scores - mean.to(scores.dtype)).masked_fill_(hidden, 0)
    deviation = (away.square().sum(1, keepdim=True) / count).sqrt_()
    return away.div_(deviation.masked_fill_(deviation == 0, 1))


def ranks(scores: Tensor, hidden: Tensor) -> Tensor:
    """Ranks from 1, the highest score's, among what is not hidden; equals share the mean of theirs.

    Args:
        scores: ``[batch, num_items]``.
        hidden: What does not count, bool, ``[batch, num_items]``.

    Returns:
        Float32, ``[batch, num_items]``; without meaning where hidden.

    Example:
        >>> ranks(torch.tensor([[2.0, 3.0, 1.0, 2.0]]), torch.tensor([[False, False, True, False]]))
        tensor([[2.5000, 1.0000, 4.0000, 2.5000]])
    """
    ascending, order = scores.masked_fill(hidden, -torch.inf).sort(1)
    lower = torch.searchsorted(ascending, ascending)  # how many are below
    upto = torch.searchsorted(ascending, ascending, right=True)  # … or equal
    return torch.empty_like(scores).scatter_(1, order, scores.shape[1] - (lower + upto - 1).float() / 2)
