"""Tests that every model passes: subclass, name the plugin, done.

>>> class TestLightGCN(ModelConformance):
...     plugin = "lightgcn"
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from recflow import registry
from recflow.data.batches import Batches
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError, UnknownUserError
from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow.ranking.recommender import Recommender
from recflow.ranking.topk import mask_, top_k
from recflow.testing.taste_groups import NUM_ITEMS, NUM_USERS, taste_groups
from recflow.training.modules import ClosedFormModule, RecModule


class ModelConformance:
    """The tests. They fit the model on :func:`~recflow.testing.taste_groups.taste_groups`, which takes a second or two.

    Class attributes:
        plugin: The model's name.
        settings: Hyper-parameters for a dataset this small, where the defaults are meant for larger ones.
        epochs: How long to train; None for the model's own default.
        personalised: False for models that give everybody the same list, or none that means anything.
        folds_in: False for models that cannot tell a new user's taste from a history.
    """

    plugin: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    epochs: ClassVar[int | None] = None
    personalised: ClassVar[bool] = True
    folds_in: ClassVar[bool] = True

    def test_its_module_stands_on_the_base_that_its_task_needs(self) -> None:
        spec = registry.load(self.plugin)
        module = registry.load_target(spec, "module")
        assert issubclass(module, RecModule)
        assert module.task == spec.task

    def test_its_search_space_names_hyper_parameters_that_it_has(self) -> None:
        spec = registry.load(self.plugin)
        space = registry.load_target(spec, "search_space") if spec.search_space else {}
        assert all(name.removeprefix("model.") in self._untrained().hparams for name in space if "model." in name)

    def test_scores_have_one_row_a_user_and_one_column_an_item(self) -> None:
        ranker = self._fitted().ranker()
        scores = ranker.score(torch.tensor([3, 0, 7]))
        assert (scores.shape, scores.dtype) == ((3, NUM_ITEMS), torch.float32)
        assert bool(scores.isfinite().all())
        assert not scores.requires_grad

    def test_scores_are_handed_out_in_memory_of_their_own(self) -> None:
        ranker, users = self._fitted().ranker(), torch.tensor([0, 1])
        before = ranker.score(users).clone()
        ranker.score(users).fill_(-torch.inf)  # as masking does
        assert torch.equal(ranker.score(users), before)

    def test_scores_of_candidates_are_the_same_columns(self) -> None:
        ranker, candidates, liked = self._fitted().ranker(), torch.tensor([5, 0, 43]), torch.tensor([1, 2, 3])
        users = torch.arange(NUM_USERS)
        torch.testing.assert_close(ranker.score(users, candidates), ranker.score(users)[:, candidates])
        stars = torch.full((3,), 5.0)
        whole = ranker.score_history(liked, stars)
        assert whole.shape == (NUM_ITEMS,)
        torch.testing.assert_close(ranker.score_history(liked, stars, candidates), whole[candidates])

    def test_many_histories_are_scored_as_one_at_a_time(self) -> None:
        data, _ = taste_groups()
        ranker, known, users = self._fitted().ranker(), _histories(data), torch.tensor([7, 0, 29, 7])
        stacked = torch.stack([ranker.score_history(*known.of(user)) for user in users.tolist()])
        torch.testing.assert_close(ranker.score_histories(known, users), stacked, rtol=1e-4, atol=1e-5)

    def test_gradients_are_finite_and_reach_every_parameter(self) -> None:
        model = self._untrained()
        if isinstance(model, ClosedFormModule):
            return
        torch.autograd.backward(model.loss(next(iter(_loader(model)))))
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert bool(parameter.grad.isfinite().all()), f"{name} has a gradient that is not finite"

    def test_the_loss_falls(self) -> None:
        untrained, fitted = self._untrained(), self._fitted()
        if isinstance(fitted, ClosedFormModule):
            return
        batch = next(iter(_loader(untrained)))
        with torch.no_grad():
            before, after = float(untrained.eval().loss(batch)), float(fitted.eval().loss(batch))
        assert after < 0.9 * before, f"the loss went from {before:.4f} to {after:.4f}"

    def test_the_withheld_item_comes_first(self) -> None:
        if not self.personalised:
            return
        data, withheld = taste_groups()
        first = _first(self._fitted().ranker(), data)
        wrong = (first != withheld).nonzero().flatten().tolist()
        assert not wrong, f"another item came first for users {wrong}"

    def test_the_withheld_item_comes_first_from_a_history_alone(self) -> None:
        if not (self.personalised and self.folds_in):
            return
        data, withheld = taste_groups()
        ranker = self._fitted().ranker()
        rows = data.train if ranker_task(self.plugin) == "rating" else data.positives
        seen = _histories(data)
        wrong = []
        for user in range(NUM_USERS):
            own = rows.users == user
            scores = ranker.score_history(rows.items[own], rows.ratings[own])
            scores[seen.of(user)[0]] = -torch.inf
            if int(scores.argmax()) != int(withheld[user]):
                wrong.append(user)
        assert not wrong, f"another item came first for the histories of users {wrong}"

    def test_the_order_of_a_history_changes_nothing(self) -> None:
        ranker, items, stars = self._fitted().ranker(), torch.tensor([4, 9, 2, 30]), torch.tensor([5.0, 1.0, 4.0, 5.0])
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(ranker.score_history(items, stars), ranker.score_history(items[order], stars[order]))

    def test_explain_gives_one_number_for_each_item_of_the_history(self) -> None:
        ranker, items, stars = self._fitted().ranker(), torch.tensor([4, 9, 2]), torch.tensor([5.0, 1.0, 4.0])
        parts = ranker.explain(items, stars, 7)
        assert parts.shape == (3,)
        assert bool(parts.isfinite().all())

    def test_similar_items_share_a_taste_or_are_refused(self) -> None:
        data, _ = taste_groups()
        ranker, items = self._fitted().ranker(), torch.arange(NUM_ITEMS)
        if not self.personalised:
            try:
                ranker.similar(items)
            except RecflowError:
                return
            raise AssertionError("a model without personal taste must refuse similar() by a RecflowError")
        scores = ranker.similar(items)
        assert scores.shape == (NUM_ITEMS, NUM_ITEMS)
        groups = data.interactions.items["genres"].list.first().to_list()
        nearest = scores.fill_diagonal_(-torch.inf).argmax(1).tolist()
        agree = sum(groups[item] == groups[near] for item, near in enumerate(nearest))
        assert agree >= NUM_ITEMS - 2, f"only {agree} of {NUM_ITEMS} items are nearest to one of their own group"

    def test_item_embeddings_have_one_row_an_item_if_there_are_any(self) -> None:
        vectors = self._fitted().ranker().item_embeddings()
        if vectors is not None:
            assert (vectors.ndim, len(vectors)) == (2, NUM_ITEMS)
            assert bool(vectors.isfinite().all())

    def test_rating_models_predict_within_the_scale_and_the_others_refuse(self) -> None:
        data, _ = taste_groups()
        ranker = self._fitted().ranker()
        if ranker_task(self.plugin) == "rating":
            predicted = ranker.predict(data.train.users, data.train.items)
            assert predicted.shape == data.train.users.shape
            assert data.rating_scale[0] <= float(predicted.min()) <= float(predicted.max()) <= data.rating_scale[1]
            return
        try:
            ranker.predict(data.train.users, data.train.items)
        except RecflowError:
            return
        raise AssertionError("a ranking model must refuse predict() by a RecflowError")

    def test_the_same_seed_gives_the_same_scores(self) -> None:
        again = _fit(self.plugin, self._key(), self.epochs, seed=1, poison=False)
        users = torch.arange(NUM_USERS)
        assert torch.equal(self._fitted().ranker().score(users), again.ranker().score(users))

    def test_test_rows_change_no_score(self) -> None:
        poisoned = _fit(self.plugin, self._key(), self.epochs, seed=1, poison=True)
        users = torch.arange(NUM_USERS)
        assert torch.equal(self._fitted().ranker().score(users), poisoned.ranker().score(users))

    def test_a_checkpoint_brings_the_same_scores_back(self, tmp_path: Path) -> None:
        fitted, restored = self._fitted(), self._untrained()
        torch.save({"state_dict": fitted.state_dict(), "hyper_parameters": dict(fitted.hparams)}, tmp_path / "a.ckpt")
        loaded = torch.load(tmp_path / "a.ckpt", weights_only=True)
        restored = type(fitted)(**loaded["hyper_parameters"])
        restored.attach(taste_groups()[0], seed=1)
        restored.load_state_dict(loaded["state_dict"])
        users = torch.arange(NUM_USERS)
        assert torch.equal(fitted.ranker().score(users), restored.eval().ranker().score(users))

    def test_a_bundle_gives_the_same_scores_and_recommends_nothing_seen(self, tmp_path: Path) -> None:
        data, _ = taste_groups()
        ranker = self._fitted().ranker()
        recommender = _bundled(self.plugin, ranker, data, tmp_path / "bundle")
        users, liked = torch.arange(NUM_USERS), torch.tensor([1, 2, 3])
        assert torch.equal(ranker.score(users), recommender.ranker.score(users))
        torch.testing.assert_close(ranker.score_history(liked), recommender.ranker.score_history(liked))
        known = _histories(data)
        for user in range(NUM_USERS):
            answer = recommender.recommend(100 + user, k=NUM_ITEMS)
            listed = {found.item.item for found in answer.recommendations}
            assert not listed & set(known.of(user)[0].tolist()), f"user {user} was recommended a seen item"
            assert len(listed) == NUM_ITEMS - len(known.of(user)[0])

    def test_an_unknown_user_is_refused_by_name(self, tmp_path: Path) -> None:
        recommender = _bundled(self.plugin, self._fitted().ranker(), taste_groups()[0], tmp_path / "bundle")
        try:
            recommender.recommend(987654)
        except UnknownUserError as error:
            message = str(error)
        else:
            raise AssertionError("an unknown user must be refused by an UnknownUserError")
        assert "987654" in message

    def _key(self) -> tuple[tuple[str, Any], ...]:
        return tuple(sorted(self.settings.items()))

    def _untrained(self) -> RecModule:
        return _build(self.plugin, self._key(), seed=1, poison=False)[0]

    def _fitted(self) -> RecModule:
        return _fitted(self.plugin, self._key(), self.epochs)


def ranker_task(plugin: str) -> str:
    """The task of a plugin."""
    return registry.load(plugin).task


def _build(plugin: str, settings: tuple[tuple[str, Any], ...], seed: int, poison: bool) -> tuple[RecModule, Dataset]:
    data, _ = taste_groups(poison=poison)
    torch.manual_seed(seed)
    module = registry.load_target(registry.load(plugin), "module")
    model: RecModule = module(num_users=data.num_users, num_items=data.num_items, **dict(settings))
    model.attach(data, seed)
    return model, data


def _fit(plugin: str, settings: tuple[tuple[str, Any], ...], epochs: int | None, seed: int, poison: bool) -> RecModule:
    model, _ = _build(plugin, settings, seed, poison)
    trainer = pl.Trainer(
        max_epochs=epochs or model.default_max_epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(model, train_dataloaders=_loader(model))
    return model.eval()


@cache
def _fitted(plugin: str, settings: tuple[tuple[str, Any], ...], epochs: int | None) -> RecModule:
    return copy.copy(_fit(plugin, settings, epochs, seed=1, poison=False))


def _loader(model: RecModule) -> Batches:
    return model.batches(model.data)


def _histories(data: Dataset) -> Histories:
    known = data.seen("test")
    return Histories.from_pairs(known.users, known.items, data.num_users, data.num_items, known.ratings)


def _first(ranker: Ranker, data: Dataset) -> Tensor:
    users = torch.arange(NUM_USERS)
    return top_k(mask_(ranker.score(users), users, _histories(data)), 1).items[:, 0]


def _bundled(plugin: str, ranker: Ranker, data: Dataset, folder: Path) -> Recommender:
    items = data.interactions.items
    save_bundle(
        folder,
        plugin=plugin,
        ranker=ranker,
        histories=_histories(data),
        items=[
            Item(item, row["item_id"], row["title"], row["year"], tuple(row["genres"]), 1)
            for item, row in enumerate(items.iter_rows(named=True))
        ],
        user_ids=data.interactions.users["user_id"].to_list(),
        about={
            "task": registry.load(plugin).task,
            "rating_scale": data.rating_scale,
            "relevant_from": data.liked_from,
            "header": data.header(),
            "metrics": {},
        },
    )
    return Recommender.load(folder)
