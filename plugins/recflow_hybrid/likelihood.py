"""Learns how much each part of an ensemble counts: conditional logit over the items at the head of any part's list.

Loss       mean over held-out interactions (u, i) of log Σ_j exp(w · v_uj) - w · v_ui, plus _RIDGE/2 |w|², for w >= 0;
           v_uj is what the parts say of item j to user u; i and j are among the _FIRST unseen items of some part.
           Convex in w
Solution   Newton's method; each step's quadratic model is minimised over w >= 0 by coordinate descent
Why        over all unseen items the tail, which nobody is shown, outweighs the head: on ml-100k and the sample weights
           learnt so were below the best part in validation nDCG@10
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from recflow.ranking.ensemble import Evidence

_FIRST = 20
_RIDGE = 1e-3  # keeps the weights finite where the parts make no mistake
_STEPS = 50
_CHUNK = 2**22  # numbers that are worked on at a time


class Choices(NamedTuple):
    """What was chosen, and among what: the contenders, parts × _FIRST places for each user.

    Attributes:
        values: What the parts say of each contender, float, ``[users, parts, contenders]``.
        hidden: Places that hold no contender, or one that stands elsewhere already, bool, ``[users, contenders]``.
        counts: How many of the contenders each user chose, float, ``[users]``.
        chosen: The values of the chosen contenders, summed, float64, ``[parts]``.
    """

    values: Tensor
    hidden: Tensor
    counts: Tensor
    chosen: Tensor

    @classmethod
    def among_contenders(cls, evidence: Evidence, relevant: Tensor) -> Self:
        """Take the contenders out of all items.

        Args:
            evidence: What the parts say.
            relevant: Whether a user chose an item, bool, ``[users, num_items]``.
        """
        values, hidden = evidence
        shown = values.masked_fill(hidden[:, None], -torch.inf)
        items, _ = shown.topk(min(_FIRST, values.shape[2]), 2).indices.flatten(1).sort(1)  # [users, contenders]
        out = hidden.gather(1, items)  # whoever has seen nearly all has fewer
        out[:, 1:] |= items[:, 1:] == items[:, :-1]
        told = values.gather(2, items[:, None].expand(-1, values.shape[1], -1))
        chosen = relevant.gather(1, items) & ~out
        counts = chosen.sum(1).to(values.dtype)
        return cls(told, out, counts, (told * chosen[:, None]).sum((0, 2), dtype=torch.float64))

    @classmethod
    def of_all(cls, pieces: list[Self]) -> Self:
        """The choices of several groups of users."""
        values, hidden, counts, chosen = zip(*pieces, strict=True)
        return cls(torch.cat(values), torch.cat(hidden), torch.cat(counts), torch.stack(chosen).sum(0))


class Derivatives(NamedTuple):
    """The loss, its gradient ``[parts]``, and its curvature ``[parts, parts]``, in float64."""

    loss: Tensor
    gradient: Tensor
    curvature: Tensor


def derivatives(weights: Tensor, choices: Choices) -> Derivatives:
    """The loss, see above, at some weights, float64, ``[parts]``."""
    parts, contenders = choices.values.shape[1:]
    total = choices.counts.sum(dtype=torch.float64).clamp(min=1)
    loss = _RIDGE / 2 * weights @ weights - weights @ choices.chosen / total
    gradient = _RIDGE * weights - choices.chosen / total
    curvature = _RIDGE * torch.eye(parts, dtype=torch.float64, device=weights.device)
    size = max(1, _CHUNK // (parts * contenders))
    for values, hidden, counts in zip(*(torch.split(tensor, size) for tensor in choices[:3]), strict=True):
        scores = torch.einsum("upi,p->ui", values, weights.to(values.dtype)).masked_fill_(hidden, -torch.inf)
        normaliser = scores.logsumexp(1)  # [users]
        chance = (scores - normaliser[:, None]).exp_()  # [users, contenders]
        mean = torch.einsum("ui,upi->up", chance, values).double()
        second = torch.einsum("upi,uqi->upq", values * chance[:, None], values).double()
        share = counts.double() / total
        loss = loss + share @ normaliser.double()
        gradient = gradient + share @ mean
        curvature = curvature + torch.einsum("u,upq->pq", share, second - mean[:, :, None] * mean[:, None])
    return Derivatives(loss, gradient, curvature)


def learn(choices: Choices) -> Tensor:
    """The weights of the least loss, at least 0, float64, ``[parts]``."""
    weights = choices.chosen.new_full((choices.values.shape[1],), 1.0)
    here = derivatives(weights, choices)
    for _ in range(_STEPS):
        step = _best_step(weights, here)
        if float(step.abs().max()) < 1e-6 * (1 + float(weights.abs().max())):
            break
        expected = float(here.gradient @ step)  # below 0, for the quadratic model is convex
        share, there = 1.0, derivatives(weights + step, choices)
        while float(there.loss) > float(here.loss) + 1e-4 * share * expected and share > 1e-6:
            share /= 2
            there = derivatives(weights + share * step, choices)
        weights, here = weights + share * step, there
    return weights


def _best_step(weights: Tensor, at: Derivatives) -> Tensor:
    """To where the quadratic model is least, of all weights that are at least 0."""
    start, gradient, curvature = weights.tolist(), at.gradient.tolist(), at.curvature.tolist()
    found = list(start)
    for _ in range(1000):
        moved = 0.0
        for place, row in enumerate(curvature):
            slope = gradient[place] + sum(c * (new - old) for c, new, old in zip(row, found, start, strict=True))
            better = max(0.0, found[place] - slope / row[place])
            moved, found[place] = max(moved, abs(better - found[place])), better
        if moved < 1e-12:
            break
    return weights.new_tensor(found) - weights
