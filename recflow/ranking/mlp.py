"""The ranker of models that end in a small network over a user's vector and an item's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker

_HIDDEN_BYTES = 2**22  # of one chunk's first hidden layer: about what a processor's cache holds
_FOLD_IN_BYTES = 2**25


class MLPRanker(Ranker):
    """``score(u, i) = mean + b_u + b_i + Σ_d product_d u_d i_d + network(u, i)``, averaged over ensemble members.

    The network's first layer is linear in both vectors, so it falls into halves: ``u user_input + item_hidden_i``. The
    items' half is the same for every user and is given ready-made. The layers after it are ``ReLU(x) weight + bias``.
    Batch normalisation must have been folded into the weights. The pairs are scored some at a time, so that no hidden
    layer of all users and items ever exists.

    A history's user is folded in, member by member, by Gauss–Newton steps on
    ``Σ_h (r_h - score(u, h))² + n^reg_exponent (reg_bias (b_u - prior_bias)² + reg |u - u_0|²)`` over ``b_u`` and u,
    from ``u_0 = prior_vector + Σ_h history_vectors_h / sqrt(n)``; each step is one ridge regression on the network's
    gradients, or half the last one where that made the sum greater; the least sum found is kept. Without stars ``u_0``
    and the prior bias are all that is known. In a model of likes every liked item's target is 1.

    All tensors but ``product`` have the members first.

    Args:
        user_vectors: u, ``[members, num_users, dim]``.
        item_vectors: i, ``[members, num_items, dim]``.
        user_bias: ``[members, num_users]``.
        item_bias: ``[members, num_items]``.
        product: Weights of the inner product, ``[dim]``; zeros leave it out.
        user_input: The users' half of the first layer, ``[members, dim, hidden]``.
        item_hidden: The items' half, applied, with the layer's bias, ``[members, num_items, hidden]``.
        prior_vector: A new user's vector before anything is known, ``[members, dim]``.
        prior_bias: And bias, ``[members]``.
        history_vectors: What an item in a history adds to its user's vector, ``[members, num_items, dim]``.
        mean: The ratings' mean, in stars.
        reg: Penalty on a new user's vector, above 0.
        reg_bias: Penalty on a new user's bias, above 0.
        reg_exponent: How both grow with the history's length: 0 not at all, 1 in proportion.
        steps: Gauss–Newton steps; with none ``u_0`` is the fold-in.
        likes: Whether the model has learnt from likes alone: stars are ignored then.
        rating_scale: Lowest and highest star, if the scores are ratings.
        layers: ``weight_1``, ``[members, hidden, next]``, ``bias_1``, ``[members, next]``, and so on; the last one's
            output is of size 1.
    """

    user_vectors: Tensor
    item_vectors: Tensor
    user_bias: Tensor
    item_bias: Tensor
    product: Tensor
    user_input: Tensor
    item_hidden: Tensor
    prior_vector: Tensor
    prior_bias: Tensor
    history_vectors: Tensor | None

    def __init__(
        self,
        user_vectors: Tensor,
        item_vectors: Tensor,
        user_bias: Tensor,
        item_bias: Tensor,
        product: Tensor,
        user_input: Tensor,
        item_hidden: Tensor,
        prior_vector: Tensor,
        prior_bias: Tensor,
        history_vectors: Tensor | None = None,
        mean: float = 0.0,
        reg: float = 1.0,
        reg_bias: float = 1.0,
        reg_exponent: float = 0.0,
        steps: int = 8,
        likes: bool = False,
        rating_scale: tuple[float, float] | None = None,
        **layers: Tensor,
    ) -> None:
        super().__init__()
        self.members, self.num_users, self.dim = user_vectors.shape
        self.num_items, self.num_layers = item_vectors.shape[1], len(layers) // 2
        names = [f"{part}_{layer}" for layer in range(1, self.num_layers + 1) for part in ("weight", "bias")]
        if not names or set(names) != set(layers):
            raise ValueError(f"layers must be weight_1, bias_1, weight_2 and so on, got {sorted(layers)}")
        if layers[names[-1]].shape[1] != 1:
            raise ValueError(f"the last layer must have one output, got {layers[names[-1]].shape[1]}")
        if reg <= 0 or reg_bias <= 0:
            raise ValueError(f"reg and reg_bias must be above 0, got {reg} and {reg_bias}")
        given = {"user_vectors": user_vectors, "item_vectors": item_vectors, "user_bias": user_bias}
        given |= {"item_bias": item_bias, "product": product, "user_input": user_input, "item_hidden": item_hidden}
        given |= {"prior_vector": prior_vector, "prior_bias": prior_bias}
        for name, tensor in {**given, **layers}.items():
            self.register_buffer(name, tensor)
        self.register_buffer("history_vectors", history_vectors)
        self.mean, self.reg, self.reg_bias, self.reg_exponent = mean, reg, reg_bias, reg_exponent
        self.steps, self.likes = steps, likes
        self.rating_scale = None if rating_scale is None else (float(rating_scale[0]), float(rating_scale[1]))

    def settings(self) -> dict[str, Any]:
        """See :meth:`Ranker.settings`."""
        names = ("mean", "reg", "reg_bias", "reg_exponent", "steps", "likes", "rating_scale")
        return {name: getattr(self, name) for name in names}

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score`."""
        return self._score(self.user_vectors[:, users], self.user_bias[:, users], candidates)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_history`."""
        history = Histories.of_one(items, ratings)
        return self.score_histories(history, torch.zeros(1, dtype=torch.int64, device=items.device), candidates)[0]

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_histories`."""
        return self._score(*self._fold_in(histories, users), candidates)

    def similar(self, items: Tensor) -> Tensor:
        """Cosine between the items' vectors, all members' together, less their mean; see :meth:`Ranker.similar`."""
        vectors = self.item_embeddings()
        unit = F.normalize(vectors - vectors.mean(0), dim=1)
        return unit[items] @ unit.T

    def item_embeddings(self) -> Tensor:
        """All members' vectors side by side; see :meth:`Ranker.item_embeddings`."""
        return self.item_vectors.transpose(0, 1).flatten(1)  # [num_items, members * dim]

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`Ranker.predict`."""
        if self.rating_scale is None:
            return super().predict(users, items)
        size = max(1, _HIDDEN_BYTES // (4 * self._width()))
        pairs = zip(torch.split(users, size), torch.split(items, size), strict=True)
        return torch.cat([self._pairs(*some) for some in pairs]).clamp(*self.rating_scale)

    def _pairs(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of some pairs, ``[batch]``."""
        total = self.item_bias.new_zeros(len(users))
        for member in range(self.members):
            user, item = self.user_vectors[member, users], self.item_vectors[member, items]  # [batch, dim]
            hidden = torch.addmm(self.item_hidden[member, items], user, self.user_input[member])  # [batch, hidden]
            total += self.user_bias[member, users] + self.item_bias[member, items] + (user * item) @ self.product
            total += self._deep(member, hidden)
        return total.div_(self.members).add_(self.mean)

    def _score(self, vectors: Tensor, bias: Tensor, candidates: Tensor | None) -> Tensor:
        """Scores of users with such vectors, ``[members, batch, dim]``, and biases, ``[members, batch]``."""
        item_vectors, item_bias, item_hidden = self.item_vectors, self.item_bias, self.item_hidden
        if candidates is not None:
            item_vectors, item_bias = item_vectors[:, candidates], item_bias[:, candidates]
            item_hidden = item_hidden[:, candidates]
        num_users, num_items = bias.shape[1], item_bias.shape[1]
        scores = item_bias.new_zeros(num_users, num_items)
        pairs = max(1, _HIDDEN_BYTES // (4 * self._width()))
        columns = max(1, min(num_items, pairs))
        rows = max(1, pairs // columns)
        scratch = item_hidden.new_empty(rows * columns * item_hidden.shape[2])
        for member in range(self.members):
            scores.addmm_(vectors[member] * self.product, item_vectors[member].T)
            scores += bias[member][:, None] + item_bias[member]
            halves = vectors[member] @ self.user_input[member]  # [batch, hidden]
            for top in range(0, num_users, rows):
                for left in range(0, num_items, columns):
                    place = slice(top, top + rows), slice(left, left + columns)
                    own, theirs = halves[place[0], None], item_hidden[member, place[1]]
                    first = scratch[: own.shape[0] * theirs.shape[0] * own.shape[2]]  # fresh memory costs as much again
                    hidden = torch.add(own, theirs, out=first.view(own.shape[0], *theirs.shape))
                    scores[place] += self._deep(member, hidden)
        return scores.div_(self.members).add_(self.mean)

    def _deep(self, member: int, hidden: Tensor) -> Tensor:
        """The network's output from its first layer's sum, ``[..., hidden]``, which is overwritten."""
        shape = hidden.shape[:-1]
        for weight, bias in self._layers(member):
            hidden = torch.addmm(bias, hidden.relu_().view(-1, len(weight)), weight)
        return hidden.view(shape)

    def _layers(self, member: int) -> Iterator[tuple[Tensor, Tensor]]:
        for layer in range(1, self.num_layers + 1):
            yield getattr(self, f"weight_{layer}")[member], getattr(self, f"bias_{layer}")[member]

    def _width(self) -> int:
        """The widest layer, or input."""
        inputs = (int(getattr(self, f"weight_{layer}").shape[1]) for layer in range(1, self.num_layers + 1))
        return max(self.dim, *inputs)

    def _fold_in(self, histories: Histories, users: Tensor) -> tuple[Tensor, Tensor]:
        """New users' vectors, ``[members, batch, dim]``, and biases, ``[members, batch]``."""
        vectors = self.prior_vector[:, None].repeat(1, len(users), 1)
        bias = self.prior_bias[:, None].repeat(1, len(users))
        lengths = histories.lengths(users)
        if self.history_vectors is not None:
            scale = lengths.clamp(min=1).sqrt()[:, None]
            for member, table in enumerate(self.history_vectors):
                vectors[member] += histories.sums(users, table) / scale
        if self.steps == 0 or (not self.likes and len(histories.ratings) == 0):
            return vectors, bias
        order = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
        while len(order):  # the longest first: what is solved together is padded to one length
            longest = int(lengths[order[0]])
            size = max(1, _FOLD_IN_BYTES // (8 * (self.dim + 1) * (longest + self.dim + 1)))
            size = max(1, min(size, _FOLD_IN_BYTES // (8 * longest * self._width())))
            rows, order = order[:size], order[size:]
            position, place = histories.places(users[rows])
            target = histories.ratings.double()[place] if not self.likes else position.new_ones(len(place)).double()
            for member in range(self.members):
                start = torch.cat([vectors[member, rows], bias[member, rows, None]], dim=1).double()
                solved = self._descend(member, start, position, histories.items[place], target, lengths[rows])
                vectors[member, rows], bias[member, rows] = solved[:, :-1].to(vectors), solved[:, -1].to(bias)
        return vectors, bias

    def _descend(
        self, member: int, start: Tensor, position: Tensor, items: Tensor, target: Tensor, lengths: Tensor
    ) -> Tensor:
        """The Gauss–Newton steps of some users, in double precision.

        Args:
            member: Whose network.
            start: Vectors and, last, biases to start from and be drawn to, ``[batch, dim + 1]``.
            position: Each rating's user, ascending, ``[ratings]``.
            items: Its item.
            target: Its stars.
            lengths: How many ratings each user has, all above 0, ``[batch]``.
        """
        ridge = start.new_full((self.dim + 1,), self.reg)
        ridge[-1] = self.reg_bias
        ridge = ridge * lengths.double()[:, None] ** self.reg_exponent  # [batch, dim + 1]
        column = torch.arange(len(items), device=items.device) - (lengths.cumsum(0) - lengths)[position]
        shape = (len(start), int(lengths.max()))
        best = here = start
        lowest = start.new_full((len(start),), torch.inf)
        for step in range(self.steps + 1):
            value, gradient = self._linearised(member, here[position], items)
            residual = target - value
            sums = start.new_zeros(len(start)).index_add_(0, position, residual.square())
            sums += (ridge * (here - start).square()).sum(1)
            better = sums < lowest
            best, lowest = torch.where(better[:, None], here, best), torch.where(better, sums, lowest)
            if step == self.steps:
                break
            inputs = start.new_zeros(*shape, self.dim + 1)  # rows of zeros add nothing to the sums below
            inputs[position, column] = gradient
            wanted = start.new_zeros(*shape, 1)
            wanted[position, column, 0] = residual + (gradient * (here - start)[position]).sum(1)
            system = inputs.mT @ inputs + torch.diag_embed(ridge)
            whole = start + torch.linalg.solve(system, inputs.mT @ wanted)[:, :, 0]
            here = torch.where(better[:, None], whole, (best + here) / 2)
        return best

    def _linearised(self, member: int, inputs: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of pairs, ``[pairs]``, and their gradients by the user's vector and bias, ``[pairs, dim + 1]``."""
        vectors = inputs[:, :-1]
        weighted = self.item_vectors[member, items].double() * self.product
        first = self.user_input[member].double()
        layers = [(weight.double(), bias.double()) for weight, bias in self._layers(member)]
        hidden = vectors @ first + self.item_hidden[member, items]
        signs = []
        for weight, bias in layers:
            signs.append(hidden > 0)
            hidden = hidden.relu() @ weight + bias
        value = self.mean + inputs[:, -1] + self.item_bias[member, items] + (vectors * weighted).sum(1) + hidden[:, 0]
        back = torch.ones_like(hidden)
        for (weight, _), sign in zip(reversed(layers), reversed(signs), strict=True):
            back = (back @ weight.T) * sign
        return value, torch.cat([weighted + back @ first.T, back.new_ones(len(items), 1)], dim=1)
