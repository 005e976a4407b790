"""Biased matrix factorisation by gradient descent: an iterative rating model, of which recflow ships none yet."""

import torch
import torch.nn.functional as F
from torch.nn import Embedding

from recflow import ModelSpec, hookimpl
from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import RatingModule


@hookimpl
def recflow_model():
    return ModelSpec(name="sgd-mf", task="rating", summary="biased MF by gradient descent", module="sgd_mf:SGDMF")


class SGDMF(RatingModule):
    def __init__(self, num_users: int, num_items: int, embedding_dim: int = 4, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.users, self.items = Embedding(num_users, embedding_dim), Embedding(num_items, embedding_dim)
        self.user_bias, self.item_bias = Embedding(num_users, 1), Embedding(num_items, 1)

    def loss(self, batch):
        bias = self.user_bias(batch.users) + self.item_bias(batch.items)
        dot = (self.users(batch.users) * self.items(batch.items)).sum(1, keepdim=True)
        return F.mse_loss(3 + (bias + dot).squeeze(1), batch.ratings)

    @torch.no_grad()
    def ranker(self):
        return FactorRanker(
            self.users.weight.clone(), self.items.weight.clone(), self.user_bias.weight[:, 0].clone(),
            self.item_bias.weight[:, 0].clone(), mean=3.0, reg=0.1, reg_bias=0.1, rating_scale=self.data.rating_scale,
        )  # fmt: skip
