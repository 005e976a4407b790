"""Models of single pairs: their losses beside torch's own, their batches by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.data.batches import BPRBatch, PointwiseBatch
from recflow.data.dataset import DataConfig, Dataset, prepare
from recflow.testing.taste_groups import taste_groups
from recflow.training.losses import bpr_loss, sampled_loss, squared_norms
from recflow.training.sampled import SampledModule, check_sampling


class TableModel(SampledModule):
    """Scores are read from a table."""

    def __init__(
        self, num_users: int, num_items: int, loss: str = "bce", num_negatives: int = 2, reg: float = 0.0
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        generator = torch.Generator().manual_seed(5)
        self.table = torch.nn.Parameter(torch.randn(num_users, num_items, generator=generator))

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        return self.table[users[:, None], items]

    def squares(self, users: Tensor, items: Tensor) -> Tensor:
        return (100.0 * users).sum() + items.sum()

    def ranker(self):
        raise NotImplementedError


def table_model(data: Dataset | None = None, **settings) -> TableModel:
    data = data or taste_groups()[0]
    model = TableModel(data.num_users, data.num_items, **settings)
    model.attach(data)
    return model


class TestLosses:
    def test_bce_is_torchs_own_on_the_labelled_pairs(self):
        scores = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
        labels = torch.zeros_like(scores)
        labels[:, 0] = 1
        torch.testing.assert_close(sampled_loss(scores, "bce"), F.binary_cross_entropy_with_logits(scores, labels))

    def test_bpr_is_the_mean_over_an_interactions_negatives(self):
        scores = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        wanted = torch.stack([bpr_loss(scores[:, 0], scores[:, j]) for j in (1, 2, 3)]).mean()
        torch.testing.assert_close(sampled_loss(scores, "bpr"), wanted)

    @pytest.mark.parametrize("kind", ["bce", "bpr"])
    def test_very_sure_scores_stay_finite(self, kind):
        scores = torch.tensor([[-1000.0, 1000.0]], requires_grad=True)
        loss = sampled_loss(scores, kind)
        loss.backward()
        assert loss.isfinite()
        assert scores.grad.isfinite().all()

    def test_squared_norms_count_a_row_as_often_as_it_is_named(self):
        table, rows = torch.randn(5, 3, dtype=torch.float64), torch.tensor([[4, 0], [0, 0]])
        torch.testing.assert_close(squared_norms(table, rows), table[rows].square().sum())


class TestSampledModule:
    def test_both_kinds_of_batches_mean_the_same_pairs(self):
        model = table_model(num_negatives=1)
        triples = BPRBatch(torch.tensor([3, 8]), torch.tensor([1, 2]), torch.tensor([7, 40]))
        pairs = PointwiseBatch(
            torch.tensor([3, 3, 8, 8]), torch.tensor([1, 7, 2, 40]), torch.tensor([1.0, 0.0, 1.0, 0.0])
        )
        wanted = F.binary_cross_entropy_with_logits(model.table[pairs.users, pairs.items], pairs.labels)
        torch.testing.assert_close(model.loss(pairs), wanted)
        torch.testing.assert_close(model.loss(triples), wanted)

    @pytest.mark.parametrize("num_negatives", [1, 3])
    @pytest.mark.parametrize("kind", ["bce", "bpr"])
    def test_every_interaction_comes_once_an_epoch_with_items_the_user_has_not(self, kind, num_negatives):
        data = prepare(DataConfig(name="sample:ratings=2000", relevant_from=4.0))
        model = table_model(data, loss=kind, num_negatives=num_negatives)
        rated, liked = (
            set(zip(*(column.tolist() for column in rows[:2]), strict=True)) for rows in (data.train, data.positives)
        )
        seen = []

        def scores(users: Tensor, items: Tensor) -> Tensor:
            assert items.shape == (len(users), 1 + num_negatives)
            for user, (item, *negatives) in zip(users.tolist(), items.tolist(), strict=True):
                seen.append((user, item))
                assert not {(user, negative) for negative in negatives} & rated
            return torch.zeros(items.shape)

        model.scores = scores
        losses = [float(model.loss(batch)) for batch in model.batches(model.data)]
        assert sorted(seen) == sorted(liked)
        assert losses == pytest.approx([math.log(2)] * len(losses))

    @pytest.mark.parametrize(("kind", "wanted"), [("bce", 100 * 11 + 50 / 2), ("bpr", 100 * 11 + 50)])
    def test_the_penalty_is_of_pairs_under_bce_and_of_interactions_under_bpr(self, kind, wanted):
        batch = BPRBatch(torch.tensor([3, 8]), torch.tensor([1, 2]), torch.tensor([7, 40]))
        plain, penalised = (table_model(loss=kind, num_negatives=1, reg=reg) for reg in (0.0, 0.2))
        extra = float(penalised.loss(batch) - plain.loss(batch))
        assert extra == pytest.approx(0.1 * wanted / 2, rel=1e-5)

    def test_validation_batches_are_taken_too(self):
        model = table_model(num_negatives=4)
        assert [model.loss(batch).isfinite() for batch in model.held_out_batches()]

    def test_unknown_ways_to_learn_are_refused(self):
        with pytest.raises(ValueError, match="loss must be bce or bpr, got 'mse'"):
            check_sampling("mse", 1)
        with pytest.raises(ValueError, match="num_negatives must be at least 1, got 0"):
            check_sampling("bce", 0)
