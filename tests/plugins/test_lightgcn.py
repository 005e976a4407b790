"""LightGCN and XSimGCL beside PyTorch Geometric's layers, dense algebra, and a node added by hand."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck
from torch_geometric.nn import LGConv

from recflow.data.batches import BPRBatch
from recflow.data.dataset import Dataset
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import taste_groups
from recflow_lightgcn.contrastive import XSimGCL, info_nce
from recflow_lightgcn.model import LightGCN


class TestXSimGCL(ModelConformance):
    plugin = "xsimgcl"
    settings = {"lr": 0.02}
    epochs = 20


class TestXSimGCLOfThreeLayers(ModelConformance):
    plugin = "xsimgcl"
    settings = {"lr": 0.03, "num_layers": 3, "contrast_layer": 2, "contrast": 0.02, "eps": 0.1}
    epochs = 20


def edge_index(data: Dataset) -> Tensor:
    """Both directions, items after users: what PyTorch Geometric's layers take."""
    to_items = torch.stack([data.positives.users, data.num_users + data.positives.items])
    return torch.cat([to_items, to_items.flip(0)], dim=1)


def geometric_layers(data: Dataset, x: Tensor, num_layers: int) -> list[Tensor]:
    convolution, found = LGConv(), [x]
    for _ in range(num_layers):
        found.append(convolution(found[-1], edge_index(data)))
    return found


def fitted(kind: type, **settings: Any) -> Any:
    data, _ = taste_groups()
    torch.manual_seed(3)
    made = kind(data.num_users, data.num_items, embedding_dim=6, **settings)
    made.attach(data)
    return made.double()


def all_nodes(made: Any) -> Tensor:
    sides = (made.users, made.items)
    return torch.cat([side.weight if isinstance(side, torch.nn.Embedding) else side for side in sides]).detach()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_lightgcns_embeddings_are_the_mean_of_lgconvs_layers(num_layers: int) -> None:
    made = fitted(LightGCN, num_layers=num_layers)
    wanted = torch.stack(geometric_layers(made.data, all_nodes(made), num_layers)).mean(0)
    torch.testing.assert_close(torch.cat(made.node_embeddings()), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_xsimgcls_embeddings_are_lgconvs_layers_without_the_first(num_layers: int) -> None:
    made = fitted(XSimGCL, num_layers=num_layers).eval()
    wanted = geometric_layers(made.data, all_nodes(made), num_layers)[1:]
    for layer, expected in zip(made.layers(), wanted, strict=True):
        torch.testing.assert_close(torch.cat(layer), expected, rtol=1e-6, atol=1e-7)
    ranker, mean = made.ranker(), torch.stack(wanted).mean(0)
    torch.testing.assert_close(torch.cat([ranker.user_factors, ranker.item_factors]), mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [LightGCN, XSimGCL])
def test_a_history_is_folded_in_as_a_node_without_an_embedding_of_its_own(kind: type) -> None:
    made, liked = fitted(kind, num_layers=2).eval(), torch.tensor([4, 9, 2])
    data, x = made.data, all_nodes(made)
    num_nodes = len(x)
    layers = [x]
    for _ in range(2):
        layers.append(geometric_layers(data, layers[-1], 1)[1])
    degree = torch.bincount(data.positives.items, minlength=data.num_items).double()
    weights = (3 * degree[liked]).rsqrt()[:, None]
    messages = [(layer[data.num_users + liked] * weights).sum(0) for layer in layers[:-1]]
    newcomer = [torch.zeros(6, dtype=torch.float64), *messages]  # its items' own layers do not see it
    parts = newcomer if kind is LightGCN else newcomer[1:]
    items = torch.stack(layers if kind is LightGCN else layers[1:]).mean(0)[data.num_users :]
    wanted = items @ torch.stack(parts).mean(0)
    assert len(items) == num_nodes - data.num_users
    torch.testing.assert_close(made.ranker().score_history(liked), wanted, rtol=1e-6, atol=1e-7)


class TestInfoNCE:
    def test_it_is_torchs_cross_entropy_of_each_node_among_all(self) -> None:
        z, y = (F.normalize(torch.randn(9, 4, dtype=torch.float64)) for _ in range(2))
        torch.testing.assert_close(info_nce(z, y, 0.2), F.cross_entropy(z @ y.T / 0.2, torch.arange(9)))

    def test_its_gradients_are_those_of_finite_differences(self) -> None:
        z, y = (F.normalize(torch.randn(5, 3, dtype=torch.float64)).requires_grad_() for _ in range(2))
        assert gradcheck(lambda a, b: 3 * info_nce(a, b, 0.3), (z, y))

    @pytest.mark.parametrize("temperature", [0.01, 0.001])
    def test_small_temperatures_neither_overflow_nor_vanish(self, temperature: float) -> None:
        z, y = (F.normalize(torch.randn(40, 16)).requires_grad_() for _ in range(2))
        loss, wanted = info_nce(z, y, temperature), F.cross_entropy(z @ y.T / temperature, torch.arange(40))
        torch.testing.assert_close(loss, wanted)
        torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(wanted, z)[0])

    def test_alike_nodes_cannot_be_told_apart(self) -> None:
        same = F.normalize(torch.ones(8, 2))
        assert float(info_nce(same, same, 0.1)) == pytest.approx(torch.tensor(8.0).log().item(), abs=1e-6)


class TestXSimGCLsLoss:
    def test_mixed_precision_is_near_to_full(self) -> None:
        made = fitted(XSimGCL, eps=0.0).float().train()
        batch = next(iter(made.batches(made.data)))
        full = made.loss(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = made.loss(batch)
        mixed.backward()
        torch.testing.assert_close(mixed, full, rtol=0.02, atol=0.02)

    def test_it_is_bpr_the_contrast_of_distinct_nodes_and_the_penalty(self) -> None:
        made = fitted(XSimGCL, num_layers=3, contrast_layer=2, contrast=0.7, reg=0.3, temperature=0.4).eval()
        batch = BPRBatch(torch.tensor([0, 9, 0]), torch.tensor([3, 1, 3]), torch.tensor([8, 9, 40]))
        x = all_nodes(made)
        _, *layers = geometric_layers(made.data, x, 3)
        mean, one = torch.stack(layers).mean(0), layers[1]
        user, pos, neg = (mean[place] for place in (batch.users, 30 + batch.items, 30 + batch.negatives))
        total = -F.logsigmoid((user * pos).sum(1) - (user * neg).sum(1)).mean()
        for nodes in (torch.tensor([0, 9]), torch.tensor([31, 33])):
            z, y = F.normalize(mean[nodes]), F.normalize(one[nodes])
            total += 0.7 * F.cross_entropy(z @ y.T / 0.4, torch.arange(2))
        own = [x[place].square().sum() for place in (batch.users, 30 + batch.items, 30 + batch.negatives)]
        total += 0.3 * sum(own) / 6
        torch.testing.assert_close(made.loss(batch).detach(), total, rtol=1e-6, atol=1e-7)

    def test_noise_has_the_length_asked_for_and_the_layers_signs(self) -> None:
        made = fitted(XSimGCL, eps=0.3).train()
        layer = torch.randn(50, 6, dtype=torch.float64)
        layer[7] = 0  # a node without an edge
        noise = made._noisy(layer) - layer
        length = torch.full((50,), 0.3, dtype=torch.float64)
        length[7] = 0
        torch.testing.assert_close(noise.norm(dim=1), length)
        assert bool(((noise * layer) >= 0).all())
        assert torch.equal(made.eval()._noisy(layer), layer)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_layers": 2, "contrast_layer": 3}, "contrast_layer from 1 to it, got 2 and 3"),
            ({"temperature": 0.0}, "temperature, init_std and lr above 0"),
            ({"eps": -1.0}, "must be at least 0"),
        ],
    )
    def test_settings_that_mean_nothing_are_refused(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            XSimGCL(5, 6, **settings)
