"""The ensemble: both fusions against naive loops, and a part's every way of scoring handed through."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.preprocessing import StandardScaler

from recflow.errors import RecflowError
from recflow.ranking.bundle import load_bundle, save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.ensemble import EnsembleRanker
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker
from recflow_basics.ranker import RandomRanker
from recflow_factors.ials_ranker import IALSRanker

NUM_USERS, NUM_ITEMS, DIM = 9, 14, 4
WEIGHTS = [0.5, 2.0, 0.25, 1.0]
SCALE = (1.0, 5.0)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def seen() -> Histories:
    """Histories of every length, an empty and a full one among them, with stars."""
    some = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(5)) < 0.4
    some[0], some[1] = False, True
    users, items = some.nonzero(as_tuple=True)
    stars = torch.randint(1, 6, (len(users),), generator=torch.Generator().manual_seed(6)).float()
    return Histories.from_pairs(users, items, NUM_USERS, NUM_ITEMS, stars)


def parts() -> list[Ranker]:
    """One of each kind: a rating model, one with many equal scores, one of a plugin's own, and an item–item one."""
    stars = FactorRanker(
        *(draw(NUM_USERS, DIM), draw(NUM_ITEMS, DIM), draw(NUM_USERS), draw(NUM_ITEMS)),
        mean=3.5,
        reg_bias=0.5,
        rating_scale=SCALE,
    )
    coarse = ItemItemRanker(draw(NUM_ITEMS, NUM_ITEMS).round(), seen().indptr, seen().items)
    own = IALSRanker(draw(NUM_USERS, DIM, seed=1), draw(NUM_ITEMS, DIM, seed=1), 0.3, 0.1, 1.0)
    fine = ItemItemRanker(draw(NUM_ITEMS, NUM_ITEMS, seed=2), seen().indptr, seen().items)
    return [stars, coarse, own, fine]


KINDS = ["factor", "item-item", "plugin:ials", "item-item"]
LIKED_FROM = [None, 3.0, 4.0, None]


def ensemble(fusion="weighted", inside=None, **changes) -> EnsembleRanker:
    given = {"weights": WEIGHTS, "liked_from": LIKED_FROM, "kinds": KINDS, "fusion": fusion, "rrf_k": 10.0}
    return EnsembleRanker(inside or parts(), indptr=seen().indptr, items=seen().items, **given | changes)


def naive(scores, hidden, fusion):
    """The fused score of one user's unseen items, by scipy's ranks or scikit-learn's scaler, part by part."""
    total = np.zeros((~hidden).sum())
    for weight, row in zip(WEIGHTS, scores, strict=True):
        shown = row[~hidden].astype(np.float64)
        if fusion == "rrf":
            total += weight / (10.0 + rankdata(-shown, method="average"))
        elif len(shown):
            total += weight * StandardScaler().fit_transform(shown[:, None])[:, 0]
    return total


def hidden_of(user, histories=None):
    hidden = np.zeros(NUM_ITEMS, dtype=bool)
    hidden[(histories or seen()).of(user)[0].numpy()] = True
    return hidden


@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
class TestFusion:
    def test_known_users_scores_are_those_of_a_naive_loop(self, fusion):
        users = torch.tensor([4, 0, 8, 1, 4])
        found = ensemble(fusion).score(users)
        assert (found.shape, found.dtype) == ((5, NUM_ITEMS), torch.float32)
        for row, user in zip(found.numpy(), users.tolist(), strict=True):
            hidden = hidden_of(user)
            scores = [part.score(torch.tensor([user]))[0].numpy() for part in parts()]
            np.testing.assert_allclose(row[~hidden], naive(scores, hidden, fusion), rtol=1e-4, atol=1e-5)

    def test_a_history_is_folded_in_by_each_part_and_only_the_rating_model_hears_of_dislikes(self, fusion):
        history, stars = torch.tensor([3, 9, 1, 12]), torch.tensor([5.0, 1.0, 3.0, 4.0])
        hidden = np.zeros(NUM_ITEMS, dtype=bool)
        hidden[history] = True
        scores = [
            part.score_history(history, stars)
            if threshold is None
            else part.score_history(history[stars >= threshold], stars[stars >= threshold])
            for part, threshold in zip(parts(), LIKED_FROM, strict=True)
        ]
        found = ensemble(fusion).score_history(history, stars).numpy()
        wanted = naive([row.numpy() for row in scores], hidden, fusion)
        np.testing.assert_allclose(found[~hidden], wanted, rtol=1e-4, atol=1e-5)

    def test_many_histories_are_scored_as_one_at_a_time(self, fusion):
        ranker, users = ensemble(fusion), torch.tensor([7, 0, 1, 3, 7])
        alone = [ranker.score_history(*seen().of(user)) for user in users.tolist()]
        together = ranker.score_histories(seen(), users)
        torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)
        candidates = torch.tensor([13, 2])
        few = ranker.score_histories(seen(), users, candidates)
        torch.testing.assert_close(few, together[:, candidates], rtol=0, atol=0)

    def test_parts_that_fold_in_exactly_make_an_ensemble_that_does(self, fusion):
        inside, kept = [parts()[1], parts()[3]], {"weights": [1.0, 2.0], "kinds": ["item-item"] * 2}
        ranker = ensemble(fusion, inside, liked_from=None, **kept)
        users = torch.arange(NUM_USERS)
        torch.testing.assert_close(ranker.score_histories(seen(), users), ranker.score(users), rtol=1e-4, atol=1e-5)

    def test_seen_items_are_finite_and_below_every_unseen_one(self, fusion):
        scores = ensemble(fusion).score(torch.arange(NUM_USERS)).numpy()
        assert np.isfinite(scores).all()
        for user in range(2, NUM_USERS):
            assert scores[user][hidden_of(user)].max() < scores[user][~hidden_of(user)].min()

    def test_what_a_part_says_of_seen_items_changes_nothing_for_the_others(self, fusion):
        user = 5
        disturbed = parts()
        items = seen().of(user)[0]
        disturbed[0].item_bias[items] += 1e4
        disturbed[2].item_factors[items] *= -100
        one, other = (
            ranker.score(torch.tensor([user]))[0] for ranker in (ensemble(fusion), ensemble(fusion, disturbed))
        )
        shown = torch.from_numpy(~hidden_of(user))
        torch.testing.assert_close(one[shown], other[shown], rtol=1e-6, atol=1e-6)

    def test_scores_do_not_depend_on_which_items_and_users_are_asked_for_together(self, fusion, monkeypatch):
        ranker, users, candidates = ensemble(fusion), torch.arange(NUM_USERS), torch.tensor([7, 0, 13])
        whole = ranker.score(users)
        assert torch.equal(ranker.score(users, candidates), whole[:, candidates])
        monkeypatch.setattr("recflow.ranking.ensemble._CHUNK_BYTES", 1)  # one user at a time
        torch.testing.assert_close(ranker.score(users), whole, rtol=1e-5, atol=1e-6)
        assert ranker.score(users[:0]).shape == (0, NUM_ITEMS)

    def test_explain_is_what_leaving_each_item_out_costs(self, fusion, monkeypatch):
        ranker, history, stars = ensemble(fusion), torch.tensor([3, 9, 1, 12]), torch.tensor([5.0, 1.0, 3.0, 4.0])
        wanted = Ranker.explain(ranker, history, stars, 6)
        torch.testing.assert_close(ranker.explain(history, stars, 6), wanted, rtol=1e-4, atol=1e-5)
        monkeypatch.setattr("recflow.ranking.ensemble._CHUNK_BYTES", 4 * NUM_ITEMS * 3)
        torch.testing.assert_close(ranker.explain(history, stars, 6), wanted, rtol=1e-4, atol=1e-5)
        plain = Ranker.explain(ranker, history, None, 6)
        torch.testing.assert_close(ranker.explain(history, None, 6), plain, rtol=1e-4, atol=1e-5)
        assert ranker.explain(history[:0], None, 6).shape == (0,)
        assert ranker.explain(history[:1], stars[:1], 6).shape == (1,)

    def test_similar_items_are_fused_by_the_parts_that_know_any(self, fusion):
        blind = RandomRanker(NUM_USERS, NUM_ITEMS, seed=1)
        inside, items = [*parts()[:3], blind], torch.tensor([4, 0])
        near = ensemble(fusion, inside, kinds=[*KINDS[:3], "plugin:random"]).similar(items)
        for row, item in zip(near.numpy(), items.tolist(), strict=True):
            own = np.arange(NUM_ITEMS) == item
            scores = [part.similar(torch.tensor([item]))[0].numpy() for part in inside[:3]]
            wanted = naive([*scores, np.zeros(NUM_ITEMS)], own, fusion)
            shift = WEIGHTS[3] / (10 + (NUM_ITEMS - 1 + 1) / 2) if fusion == "rrf" else 0  # of the part left out
            np.testing.assert_allclose(row[~own], wanted - shift, rtol=1e-4, atol=1e-5)

    def test_a_bundle_brings_back_parts_within_parts(self, fusion, tmp_path):
        outer = EnsembleRanker(
            [ensemble(fusion), parts()[0]],
            ["ensemble", "factor"],
            [1.0, 0.5],
            seen().indptr,
            seen().items,
            fusion="rrf",
        )
        save_bundle(
            tmp_path / "bundle",
            plugin="hybrid",
            ranker=outer,
            histories=seen(),
            items=[Item(i, 10 + i, f"Film {i}", 2000, (), 1) for i in range(NUM_ITEMS)],
            user_ids=list(range(NUM_USERS)),
            about={"task": "ranking", "rating_scale": SCALE, "relevant_from": None, "metrics": {}},
        )
        loaded = load_bundle(tmp_path / "bundle").ranker
        assert isinstance(loaded, EnsembleRanker)
        assert [type(part) for part in loaded.parts[0].parts] == [type(part) for part in parts()]
        users, history, stars = torch.arange(NUM_USERS), torch.tensor([3, 9]), torch.tensor([1.0, 5.0])
        assert torch.equal(loaded.score(users), outer.score(users))
        torch.testing.assert_close(loaded.score_history(history, stars), outer.score_history(history, stars))
        assert loaded.parts[0].settings()["parts"][2] == outer.parts[0].settings()["parts"][2]


def test_a_part_whose_scores_are_all_equal_says_nothing():
    silent = FactorRanker(torch.empty(NUM_USERS, 0), torch.empty(NUM_ITEMS, 0), item_bias=torch.full((NUM_ITEMS,), 3.3))
    alone = ensemble(inside=[parts()[3]], weights=[1.0], kinds=KINDS[3:], liked_from=None)
    both = ensemble(inside=[silent, parts()[3]], weights=[9.0, 1.0], kinds=["factor", "item-item"], liked_from=None)
    users = torch.arange(NUM_USERS)
    torch.testing.assert_close(both.score(users), alone.score(users), rtol=1e-6, atol=1e-6)


def test_scores_that_are_not_numbers_are_not_hidden():
    broken = parts()
    broken[3].weights[:] = torch.nan
    assert bool(ensemble(inside=broken).score(torch.tensor([5])).isnan().any())


def test_an_ensemble_of_models_without_similar_items_refuses():
    inside = [RandomRanker(NUM_USERS, NUM_ITEMS, seed) for seed in (1, 2)]
    ranker = ensemble(inside=inside, weights=[1.0, 1.0], kinds=["plugin:random"] * 2, liked_from=None)
    with pytest.raises(RecflowError, match="no notion of similar items"):
        ranker.similar(torch.tensor([1]))
    with pytest.raises(RecflowError, match="predicts no ratings"):
        ranker.predict(torch.tensor([1]), torch.tensor([1]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": [1.0]}, "as many as each other"),
        ({"kinds": []}, "as many as each other"),
        ({"weights": [1.0, -1.0, 0.0, 0.0]}, "at least 0 and not all 0"),
        ({"weights": [0.0] * 4}, "at least 0 and not all 0"),
        ({"fusion": "vote"}, "rrf or weighted, got 'vote'"),
        ({"inside": [*parts()[:3], RandomRanker(NUM_USERS, 3, 1)]}, "same users and items"),
    ],
)
def test_what_cannot_be_an_ensemble_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ensemble(**wrong)
