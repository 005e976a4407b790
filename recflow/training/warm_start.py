"""Start from an earlier run on data that have grown: known users and items keep what the model had learnt of them.

Which of a model's tensors belong to users and items is found out, not declared: the model is built three times in
miniature, once with a user more and once with an item more, and what grows belongs to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from recflow.errors import RecflowError
from recflow.runs import Run, load_run

if TYPE_CHECKING:
    from recflow.data.dataset import Dataset, Part
    from recflow.training.modules import RecModule

Axis = Literal["user", "item", "node", None]

_SAME = ("dataset", "sha256", "filter", "split", "interactions", "users", "items")
_CHUNK = 1024
_GENRES = 256  # more than any catalogue has, unless the column holds something else


@dataclass(frozen=True)
class Known:
    """Who is in both runs: places in the new vocabulary and in the old, int64, of one shape; and who is new."""

    new: Tensor
    old: Tensor
    added: Tensor

    @classmethod
    def of(cls, ids: Sequence[Any], old_ids: Sequence[Any]) -> Known:
        """Match two vocabularies."""
        place = {raw: index for index, raw in enumerate(old_ids)}
        pairs = [(index, place[raw]) for index, raw in enumerate(ids) if raw in place]
        new, old = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
        missing = torch.ones(len(ids), dtype=torch.bool)
        missing[new] = False
        return cls(new, old, missing.nonzero().flatten())


def start_from(model: RecModule, run: Run, plugin: str) -> str:
    """Give a model, attached to its data, what an earlier run had learnt.

    Args:
        model: Untrained, on the CPU.
        run: A finished run of the same plugin.
        plugin: The model's name.

    Returns:
        One line that says what was taken over.

    Raises:
        RecflowError: If the run is of another plugin, or its hyper-parameters give tensors of other shapes.
    """
    if run.metrics["plugin"] != plugin:
        raise RecflowError(f"{run.path} is a run of {run.metrics['plugin']}, which cannot start {plugin}.")
    users, items = vocabularies(run, model.data)
    if len(users.new) == 0 or len(items.new) == 0:
        none = "users" if len(users.new) == 0 else "items"
        raise RecflowError(
            f"{run.path} knows none of the {none} of {model.data.name}: nothing to start from (are the ids the same, "
            "numbers or text?)."
        )
    titles = model.data.interactions.items["title"].to_list()
    met = zip(items.new.tolist(), run.recommender.catalog.items(items.old.tolist()), strict=True)
    other = sum(titles[new] != old.title for new, old in met)
    if 2 * other > len(items.new):
        raise RecflowError(
            f"{run.path} and {model.data.name} share ids but not items: {other:,} of {len(items.new):,} titles differ."
        )
    _take_over(model, _checkpoint(run), users, items, run)
    model.start_new(users.added, items.added)
    return (
        f"started from {run.path}: {len(users.new):,} users and {len(items.new):,} items known, "
        f"{len(users.added):,} users and {len(items.added):,} items new"
    )


def learnt_here(folder: str, plugin: str, data: Dataset) -> Mapping[str, Tensor]:
    """What an earlier run of a model has learnt on these very data, for a model that begins with it as a part.

    Args:
        folder: A finished run.
        plugin: Whose run it must be.
        data: What it must have been fitted on.

    Returns:
        The state of the run's best epoch, on the CPU.

    Raises:
        RecflowError: If there is no such run, or it was fitted on other rows.
    """
    run = load_run(folder)
    run.require_finished()
    if run.metrics["plugin"] != plugin:
        raise RecflowError(f"{run.path} is a run of {run.metrics['plugin']}, expected one of {plugin}.")
    refuse_other_rows(run, data)
    learnt: Mapping[str, Tensor] = _checkpoint(run)["state_dict"]
    return learnt


def refuse_other_rows(run: Run, data: Dataset) -> None:
    """Refuse a run as a part of a new one where it may have learnt from rows that are now tested, or knows others.

    Raises:
        RecflowError: If so.
    """
    ours, theirs = data.header(), run.metrics["header"]
    differing = [f"{name} {theirs.get(name)}, here {ours[name]}" for name in _SAME if theirs.get(name) != ours[name]]
    if differing:
        raise RecflowError(
            f"{run.path} cannot be made use of, for it was fitted on other rows ({differing[0]}): what it was trained "
            "on may be tested here; fit it with the same data settings."
        )
    if "test rows" in theirs["start"]:
        raise RecflowError(
            f"{run.path} cannot be made use of, for test rows are known to it: it started from {theirs['start']}."
        )


def vocabularies(run: Run, data: Dataset) -> tuple[Known, Known]:
    """Which users and items an earlier run and these data have in common."""
    catalog, ids = run.recommender.catalog, data.interactions
    return (
        Known.of(ids.users["user_id"].to_list(), catalog.user_ids()),
        Known.of(ids.items["item_id"].to_list(), catalog.item_ids()),
    )


def known_rows(run: Run, data: Dataset, part: Part) -> int:
    """How many rows of a part an earlier run's data held: what it may have been trained on."""
    histories = run.recommender.bundle.histories
    if histories is None:
        return 0
    users, items = vocabularies(run, data)
    old_user, old_item = (torch.full((size,), -1) for size in (data.num_users, data.num_items))
    old_user[users.new], old_item[items.new] = users.old, items.old
    rows = data.rows[part].to("cpu")
    pairs = torch.stack([old_user[rows.users], old_item[rows.items]])
    user, item = pairs[:, (pairs >= 0).all(0)]
    width = run.recommender.ranker.num_items
    known = torch.repeat_interleave(histories.indptr.diff()) * width + histories.items
    return int(torch.isin(user * width + item, known).sum())


def axes_of(model: RecModule) -> dict[str, tuple[Axis, ...]]:
    """What each dimension of each tensor of a model counts: users, items, both one after the other, or neither."""
    own = {name: value for name, value in model.hparams.items() if name not in ("num_users", "num_items")}

    def shapes(num_users: int, num_items: int) -> dict[str, torch.Size]:
        built = type(model)(num_users=num_users, num_items=num_items, **own)
        return {name: tensor.shape for name, tensor in built.state_dict().items()}

    with torch.random.fork_rng(devices=[]):
        base, more_users, more_items = shapes(5, 7), shapes(6, 7), shapes(5, 8)
    kinds: dict[tuple[bool, bool], Axis] = {
        (True, False): "user",
        (False, True): "item",
        (True, True): "node",
        (False, False): None,
    }
    return {
        name: tuple(
            kinds[more_users[name][place] != size, more_items[name][place] != size] for place, size in enumerate(shape)
        )
        for name, shape in base.items()
    }


@torch.no_grad()
def neighbour_means(model: RecModule, users: Tensor, items: Tensor) -> None:
    """Give new users and items the mean vectors of the known ones who share their interactions.

    A new user's row is the mean over its training items of the mean row of each item's known users; a new item's row
    the same with sides changed. Where there is no such neighbour, an item takes the mean of the known items weighted
    by the genres shared (Jaccard), and whoever is left the mean of all known rows.

    Args:
        model: Its known rows are set.
        users: Indices of the new users, int64, shape ``[new_users]``.
        items: Indices of the new items, int64, shape ``[new_items]``.
    """
    data, state = model.data, model.state_dict()
    by_user, by_item = data.positives.users.cpu(), data.positives.items.cpu()  # each interaction's user and item
    genres = _genres(data.interactions.items["genres"].to_list())
    for name, axes in axes_of(model).items():
        table = state[name]
        if not table.is_floating_point() or not axes or any(axis is not None for axis in axes[1:]):
            continue
        if axes[0] == "user":
            _fill(table, users, by_user, by_item, data.num_items, None)
        elif axes[0] == "item":
            _fill(table, items, by_item, by_user, data.num_users, genres)
        elif axes[0] == "node":
            _fill(table[: data.num_users], users, by_user, by_item, data.num_items, None)
            _fill(table[data.num_users :], items, by_item, by_user, data.num_users, genres)


def _checkpoint(run: Run) -> Mapping[str, Any]:
    folder = run.path / "checkpoints"
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).is_file():
            loaded: Mapping[str, Any] = torch.load(folder / name, map_location="cpu", weights_only=True)
            return loaded
    raise RecflowError(f"{folder} holds no checkpoint to start from; was it cleaned up?")


@torch.no_grad()
def _take_over(model: RecModule, checkpoint: Mapping[str, Any], users: Known, items: Known, run: Run) -> None:
    learnt: Mapping[str, Tensor] = checkpoint["state_dict"]
    theirs: Mapping[str, Sequence[str]] = checkpoint.get("feature_rows", {})
    num_users, num_old_users = model.data.num_users, run.recommender.ranker.num_users
    nodes = Known(
        torch.cat([users.new, items.new + num_users]),
        torch.cat([users.old, items.old + num_old_users]),
        torch.cat([users.added, items.added + num_users]),
    )
    known: dict[Axis, Known] = {"user": users, "item": items, "node": nodes}
    state = model.state_dict()
    axes = axes_of(model)
    for name, names in model.feature_rows().items():
        if name in theirs:  # features that are new start at 0, those that are gone are forgotten
            learnt = {**learnt, name: _by_name(learnt[name], theirs[name], names)}
    if learnt.keys() != state.keys():
        raise RecflowError(f"{run.path} was fitted with another kind of model; give it the same --model.* settings.")
    for name, table in state.items():
        old = learnt[name]
        fixed = [(a, b) for a, b, axis in zip(table.shape, old.shape, axes[name], strict=True) if axis is None]
        if any(a != b for a, b in fixed):
            raise RecflowError(
                f"{run.path} has {name} of shape {list(old.shape)}, this model {list(table.shape)}: give it the same "
                "--model.* settings."
            )
        here = [
            torch.arange(size) if axis is None else known[axis].new
            for size, axis in zip(table.shape, axes[name], strict=True)
        ]
        there = [
            torch.arange(size) if axis is None else known[axis].old
            for size, axis in zip(old.shape, axes[name], strict=True)
        ]
        if here:
            table[torch.meshgrid(*here, indexing="ij")] = old[torch.meshgrid(*there, indexing="ij")]
        else:
            table.copy_(old)


def _by_name(rows: Tensor, names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Rows in another order of their names; zeros for those that have no row."""
    place = {name: row for row, name in enumerate(names)}
    found = rows.new_zeros(len(wanted), *rows.shape[1:])
    for row, name in enumerate(wanted):
        if name in place:
            found[row] = rows[place[name]]
    return found


def _fill(table: Tensor, new: Tensor, own: Tensor, other: Tensor, num_other: int, features: Tensor | None) -> None:
    """Set the rows of new nodes, in place.

    Args:
        table: ``[nodes, ...]``; the rows of known nodes are set.
        new: Indices of the new nodes, ``[new]``.
        own: Each interaction's node of this side, ``[interactions]``.
        other: Its node of the other side.
        num_other: Number of nodes of the other side.
        features: What each node has, 0 or 1, ``[nodes, features]``; None where nothing is known.
    """
    if len(new) == 0 or len(new) == len(table):
        return
    known = torch.ones(len(table), dtype=torch.bool)
    known[new] = False
    rows = table.reshape(len(table), -1)
    through = known[own]
    middle, reached = _mean_into(rows[own[through]], other[through], num_other)  # of each other node's known neighbours
    useful = ~known[own] & reached[other]
    means, found = _mean_into(middle[other[useful]], own[useful], len(table))
    filled = torch.where(found[:, None], means, rows[known].mean(0))
    lonely = new[~found[new]]
    if features is not None:
        for chosen in torch.split(lonely, _CHUNK):
            weights = _jaccard(features[chosen], features) * known  # [chunk, nodes]
            total = weights.sum(1, keepdim=True)
            filled[chosen] = torch.where(total > 0, weights @ rows / total, filled[chosen])
    rows[new] = filled[new]
    table.copy_(rows.reshape(table.shape))


def _mean_into(rows: Tensor, place: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The mean of the rows with each place, ``[size, dim]``, and whether there was one, ``[size]``."""
    counts = torch.bincount(place, minlength=size)
    total = rows.new_zeros(size, rows.shape[1]).index_add_(0, place, rows)
    return total / counts.clamp(min=1)[:, None].to(rows.dtype), counts > 0


def _genres(genres: Sequence[Sequence[str]]) -> Tensor:
    """Which of the commonest genres each item has, 0 or 1, float32, ``[num_items, genres]``."""
    counts = Counter(name for listed in genres for name in listed)
    names = {name: place for place, (name, _) in enumerate(counts.most_common(_GENRES))}
    has = torch.zeros(len(genres), len(names))
    for item, listed in enumerate(genres):
        has[item, [names[name] for name in listed if name in names]] = 1
    return has


def _jaccard(some: Tensor, all_: Tensor) -> Tensor:
    """Shared features over features of either, ``[some, all]``."""
    both = some @ all_.T
    return both / (some.sum(1)[:, None] + all_.sum(1)[None, :] - both).clamp(min=1)
