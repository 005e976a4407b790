"""NeuMF and its halves: the kit, the network by its definition, pre-training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import recflow
from recflow.errors import RecflowError
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import taste_groups
from recflow_ncf.model import GMF, MLP, NeuMF

SMALL = {"init_std": 0.1, "hidden": (16, 8), "mlp_dim": 16}


class TestGMF(ModelConformance):
    plugin = "gmf"
    settings = {"init_std": 0.1, "lr": 0.05, "embedding_dim": 8, "reg": 0.3}
    epochs = 40


class TestGMFUnderBPR(ModelConformance):
    plugin = "gmf"
    settings = {"init_std": 0.1, "lr": 0.02, "loss": "bpr", "num_negatives": 1, "reg": 0.1}
    epochs = 30


class TestMLP(ModelConformance):
    plugin = "mlp"
    settings = {**SMALL, "lr": 0.02}
    epochs = 30


class TestNeuMF(ModelConformance):
    plugin = "ncf"
    settings = {"init_std": 0.1, "lr": 0.01, "reg": 0.02}
    epochs = 30


class TestNeuMFUnderBPRWithDropout(ModelConformance):
    plugin = "ncf"
    settings = {"init_std": 0.1, "lr": 0.01, "loss": "bpr", "num_negatives": 3, "dropout": 0.1, "reg": 0.1}
    epochs = 20


def attached(kind: type, seed: int = 0, **settings: Any) -> Any:
    data, _ = taste_groups()
    torch.manual_seed(seed)
    made = kind(data.num_users, data.num_items, init_std=0.5, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # no bias is 0
    made.attach(data)
    return made


def by_definition(made: Any, user: int, item: int) -> float:
    """The paper's network, one pair at a time, its first layer on the concatenated embeddings."""
    total = float(made.offset)
    if made.product is not None:
        total += float((made.product.users[user] * made.product.items[item]) @ made.product.output)
    if made.tower is not None:
        tower = made.tower
        hidden = torch.cat([tower.users[user], tower.items[item]])
        hidden = hidden @ torch.cat([tower.user_input, tower.item_input.weight.T]) + tower.item_input.bias
        for layer in tower.layers:
            hidden = layer(hidden.relu())
        total += float(hidden.relu() @ tower.output)
    return total


KINDS: list[tuple[type, dict[str, Any]]] = [
    (GMF, {"embedding_dim": 3}),
    (MLP, {"mlp_dim": 4, "hidden": (5, 3)}),
    (MLP, {"mlp_dim": 4, "hidden": (5,)}),
    (NeuMF, {"embedding_dim": 3, "mlp_dim": 4, "hidden": (6, 5, 3)}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
class TestScores:
    @torch.no_grad()
    def test_they_are_the_papers_network(self, kind: type, settings: dict[str, Any]) -> None:
        made, users = attached(kind, **settings), torch.tensor([4, 0, 29])
        items = torch.tensor([[3, 3, 40], [7, 1, 2], [0, 43, 5]])
        wanted = [
            [by_definition(made, u, i) for i in row] for u, row in zip(users.tolist(), items.tolist(), strict=True)
        ]
        torch.testing.assert_close(made.scores(users, items), torch.tensor(wanted), rtol=1e-5, atol=1e-6)

    @torch.no_grad()
    def test_many_pairs_take_the_other_way_to_the_same_numbers(self, kind: type, settings: dict[str, Any]) -> None:
        made = attached(kind, **settings)
        users = torch.arange(30).repeat(3)  # more rows than there are nodes: the first layer of all of them comes first
        items = torch.arange(44).repeat(90, 1)
        few = torch.cat([made.scores(users[row : row + 1], items[row : row + 1, :20]) for row in range(30)])
        torch.testing.assert_close(made.scores(users, items)[:30, :20], few, rtol=1e-5, atol=1e-6)

    @torch.no_grad()
    def test_the_ranker_ranks_by_them(self, kind: type, settings: dict[str, Any]) -> None:
        made, users = attached(kind, **settings), torch.arange(30)
        scores, ranked = made.scores(users, torch.arange(44).repeat(30, 1)), made.ranker().score(users)
        same = scores - scores.mean(1, keepdim=True), ranked - ranked.mean(1, keepdim=True)
        torch.testing.assert_close(*same, rtol=1e-5, atol=1e-5)

    @torch.no_grad()
    def test_the_squares_are_those_of_the_batchs_embeddings(self, kind: type, settings: dict[str, Any]) -> None:
        made = attached(kind, **settings)
        users, items = torch.tensor([4, 4]), torch.tensor([[3, 9], [3, 3]])
        halves = [half for half in (made.product, made.tower) if half is not None]
        squares = sum(half.users[users].square().sum() + half.items[items].square().sum() for half in halves)
        torch.testing.assert_close(made.squares(users, items), squares)


def scores_of_all(made: Any) -> Tensor:
    with torch.no_grad():
        users = torch.arange(made.data.num_users)
        return made.scores(users, torch.arange(made.data.num_items).repeat(len(users), 1))


class TestPretraining:
    SIZES = {"mlp_dim": 4, "hidden": (5, 3)}

    @pytest.mark.parametrize("alpha", [0.5, 0.2])
    def test_a_pretrained_model_scores_as_the_weighted_mean_of_both(self, alpha: float) -> None:
        gmf, mlp = attached(GMF, 1, embedding_dim=3), attached(MLP, 2, **self.SIZES)
        made = attached(NeuMF, 3, embedding_dim=3, alpha=alpha, **self.SIZES)
        made.pretrain(gmf.state_dict(), mlp.state_dict())
        wanted = alpha * scores_of_all(gmf) + (1 - alpha) * scores_of_all(mlp)
        torch.testing.assert_close(scores_of_all(made), wanted, rtol=1e-5, atol=1e-5)

    def test_other_sizes_are_refused(self) -> None:
        gmf, mlp = attached(GMF, 1, embedding_dim=4), attached(MLP, 2, **self.SIZES)
        made = attached(NeuMF, 3, embedding_dim=3, **self.SIZES)
        with pytest.raises(RecflowError, match=r"has product.items of shape \[44, 4\], this model \[44, 3\]"):
            made.pretrain(gmf.state_dict(), mlp.state_dict())

    def test_a_deeper_network_is_refused(self) -> None:
        gmf, mlp = attached(GMF, 1, embedding_dim=3), attached(MLP, 2, mlp_dim=4, hidden=(5, 3, 3))
        made = attached(NeuMF, 3, embedding_dim=3, **self.SIZES)
        with pytest.raises(RecflowError, match=r"has tower.layers.1.bias of shape \[3\], this model None"):
            made.pretrain(gmf.state_dict(), mlp.state_dict())

    def test_one_run_alone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="gmf_run and mlp_run go together"):
            NeuMF(3, 4, gmf_run="runs/gmf")


DATA = {"name": "sample:ratings=3000"}
QUICK: dict[str, Any] = {"trainer": {"max_epochs": 2}, "test": False}


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of each half, on the sample."""
    folder = tmp_path_factory.mktemp("runs")
    gmf = recflow.fit("gmf", DATA, runs_dir=folder, model={"embedding_dim": 4, "init_std": 0.1}, **QUICK)
    mlp = recflow.fit("mlp", DATA, runs_dir=folder, model=SMALL, **QUICK)
    return gmf.path, mlp.path


class TestPretrainingFromRuns:
    def test_it_begins_where_they_ended_and_can_be_resumed_without_them(
        self, halves: tuple[Path, Path], tmp_path: Path
    ) -> None:
        moved = [path.rename(path.with_name("moved")) for path in halves]
        settings = {**SMALL, "embedding_dim": 4, "gmf_run": str(moved[0]), "mlp_run": str(moved[1]), "lr": 1e-9}
        run = recflow.fit("ncf", DATA, runs_dir=tmp_path, model=settings, **QUICK)
        users = torch.arange(20)
        gmf, mlp = (recflow.load_run(path).recommender.ranker.score(users) for path in moved)
        wanted, found = (gmf + mlp) / 2, run.recommender.ranker.score(users)
        centred = [scores - scores.mean(1, keepdim=True) for scores in (found, wanted)]
        torch.testing.assert_close(*centred, rtol=1e-3, atol=1e-4)
        assert run.metrics["header"]["pretrained"] == f"{moved[0]} and {moved[1]}, alpha 0.5"
        assert run.metrics["header"]["start"] == "scratch"  # it may stand beside what was not pre-trained
        for path, home in zip(moved, halves, strict=True):
            path.rename(home)
        further = recflow.fit(resume=run.path, trainer={"max_epochs": 3})
        assert further.metrics["epochs"] == 3
        assert further.metrics["header"]["pretrained"] == run.metrics["header"]["pretrained"]

    def test_another_start_beside_it_is_refused(self, halves: tuple[Path, Path], tmp_path: Path) -> None:
        gmf, mlp = map(str, halves)
        with pytest.raises(RecflowError, match=r"ncf starts from .* already: leave out"):
            recflow.fit(
                "ncf",
                DATA,
                runs_dir=tmp_path,
                init_from=gmf,
                model={**SMALL, "embedding_dim": 4, "gmf_run": gmf, "mlp_run": mlp},
                **QUICK,
            )

    def test_runs_on_other_data_or_of_other_models_are_refused(self, halves: tuple[Path, Path], tmp_path: Path) -> None:
        gmf, mlp = map(str, halves)
        with pytest.raises(RecflowError, match=r"cannot be made use of, for it was fitted on other rows \(split "):
            recflow.fit("ncf", {**DATA, "seed": 7}, runs_dir=tmp_path, model={"gmf_run": gmf, "mlp_run": mlp}, **QUICK)
        with pytest.raises(RecflowError, match="is a run of mlp, expected one of gmf"):
            recflow.fit("ncf", DATA, runs_dir=tmp_path, model={"gmf_run": mlp, "mlp_run": gmf}, **QUICK)
        assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (GMF, {"embedding_dim": 0}, "dimensions and hidden sizes must be at least 1"),
        (MLP, {"hidden": ()}, "dimensions and hidden sizes must be at least 1"),
        (MLP, {"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        (NeuMF, {"alpha": 1.5}, "alpha must be from 0 to 1, got 1.5"),
        (NeuMF, {"num_negatives": 0}, "num_negatives must be at least 1, got 0"),
        (GMF, {"lr": 0.0}, "lr and init_std above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(5, 6, **settings)
