"""NGCF: the kit, and its layers beside the paper's matrix formula."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from recflow.data.batches import BPRBatch
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import taste_groups
from recflow.training.dropout import kept
from recflow_ngcf.layer import layer, unit_rows
from recflow_ngcf.model import NGCF


class TestNGCF(ModelConformance):
    plugin = "ngcf"
    settings = {"lr": 0.01}
    epochs = 20


class TestNGCFWithNodeDropout(ModelConformance):
    plugin = "ngcf"
    settings = {"lr": 0.01, "node_dropout": 0.1, "message_dropout": 0.0}
    epochs = 30


def model(**settings: Any) -> NGCF:
    data, _ = taste_groups()
    torch.manual_seed(0)
    made = NGCF(data.num_users, data.num_items, **{"embedding_dim": 5, "hidden": (4, 3), **settings}).double()
    for linear in (*made.sums, *made.products):
        torch.nn.init.normal_(linear.bias)
    made.attach(data)
    return made


def dense_vectors(made: NGCF) -> Tensor:
    """The paper's equation (7), all nodes as one matrix, in its own symbols."""
    data = made.data
    size = data.num_users + data.num_items
    a = torch.zeros(size, size, dtype=torch.float64)
    a[data.positives.users, data.num_users + data.positives.items] = 1
    a += a.T.clone()
    root = a.sum(1).clamp(min=1).rsqrt()
    laplacian = root[:, None] * a * root
    e = torch.cat([made.users, made.items])
    parts = [e]
    for w1, w2 in zip(made.sums, made.products, strict=True):
        message = laplacian @ e
        e = F.leaky_relu((message + e) @ w1.weight.T + w1.bias + (message * e) @ w2.weight.T + w2.bias, 0.2)
        parts.append(e / e.norm(dim=1, keepdim=True))
    return torch.cat(parts, dim=1)


def test_the_layers_are_the_papers_matrix_formula() -> None:
    made = model().eval()
    users, items = (torch.cat(side, dim=1) for side in zip(*made.layers(), strict=True))
    torch.testing.assert_close(torch.cat([users, items]), dense_vectors(made), rtol=1e-6, atol=1e-7)


def test_the_loss_is_bpr_and_the_penalty_of_the_embeddings() -> None:
    made = model(reg=0.3).eval()
    batch = BPRBatch(torch.tensor([0, 9, 0]), torch.tensor([3, 1, 3]), torch.tensor([8, 9, 40]))
    e = dense_vectors(made)
    user, pos, neg = (e[place] for place in (batch.users, 30 + batch.items, 30 + batch.negatives))
    bpr = -F.logsigmoid((user * pos).sum(1) - (user * neg).sum(1)).mean()
    penalty = 0.3 * 0.5 * sum(part[:, :5].square().sum() for part in (user, pos, neg)) / 3
    torch.testing.assert_close(made.loss(batch), bpr + penalty, rtol=1e-6, atol=1e-7)


def test_gradients_are_those_of_finite_differences() -> None:
    made = model(reg=0.1).eval()
    batch = next(iter(made.batches(made.data)))
    batch = BPRBatch(*(column[:20] for column in batch))
    made.users.data, made.items.data = made.users[:, :2].clone(), made.items[:, :2].clone()
    for linears in (made.sums, made.products):
        linears[0].weight.data = linears[0].weight[:, :2].clone()

    def loss(users: Tensor, items: Tensor, weight: Tensor) -> Tensor:
        values = {"users": users, "items": items, "products.0.weight": weight}
        return torch.func.functional_call(_Loss(made), {f"model.{k}": v for k, v in values.items()}, (batch,))

    inputs = (made.users, made.items, made.products[0].weight)
    assert gradcheck(loss, [tensor.detach().clone().requires_grad_() for tensor in inputs], fast_mode=True)


class _Loss(torch.nn.Module):
    def __init__(self, made: NGCF) -> None:
        super().__init__()
        self.model = made

    def forward(self, batch: BPRBatch) -> Tensor:
        return self.model.loss(batch)


def test_a_dropped_node_sends_nothing_and_the_others_more() -> None:
    made = model(node_dropout=0.4).train()
    sent = made._sent(torch.ones(3000, 2, dtype=torch.float64))
    assert sorted(sent.unique().tolist()) == pytest.approx([0.0, 1 / 0.6], rel=1e-4)
    assert torch.equal(sent[:, 0], sent[:, 1])  # whole nodes
    assert float((sent[:, 0] == 0).double().mean()) == pytest.approx(0.4, abs=0.05)


def test_nothing_is_dropped_from_a_ranker_and_training_goes_on() -> None:
    made = model(message_dropout=0.5, node_dropout=0.5).train()
    users = torch.arange(30)
    assert torch.equal(made.ranker().score(users), made.ranker().score(users))
    assert made.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim and every hidden size must be at least 1, got 0 and"),
        ({"hidden": ()}, r"got 5 and \[\]"),
        ({"message_dropout": 1.0}, "message_dropout must be at least 0 and below 1, got 1.0"),
        ({"node_dropout": -0.1}, "node_dropout must be at least 0 and below 1, got -0.1"),
        ({"lr": 0.0}, "lr above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**settings)


@pytest.mark.parametrize("dropped", [0.0, 0.4])
def test_a_layer_and_its_gradients_are_those_of_plain_operations(dropped: float) -> None:
    torch.manual_seed(0)
    own, message = (torch.randn(7, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    sums, products = (torch.nn.Linear(5, 4).double() for _ in range(2))
    leaves = [own, message, *sums.parameters(), *products.parameters()]

    def plain(seed: int) -> Tensor:
        torch.manual_seed(seed)
        factors = kept((7, 4), dropped, own)
        out = F.leaky_relu(sums(own + message) + products(own * message), 0.2)
        return F.normalize(out if factors is None else out * factors)

    def ours(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return unit_rows(layer(own, message, sums, products, dropped))

    torch.testing.assert_close(ours(3), plain(3))
    weight = torch.randn(7, 4, dtype=torch.float64)
    for mine, theirs in zip(*(torch.autograd.grad((f(3) * weight).sum(), leaves) for f in (ours, plain)), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert gradcheck(lambda *_: ours(3), leaves)
