"""Starting from an earlier run: what is known is kept, what is new is folded in."""

import pytest
import torch

import recflow
from recflow import registry
from recflow.data.sample import generate
from recflow.errors import RecflowError
from recflow.testing.taste_groups import NUM_ITEMS, NUM_USERS, taste_groups
from recflow.training.modules import RankingModule
from recflow.training.warm_start import Known, axes_of, neighbour_means


def build(plugin, **settings):
    data, _ = taste_groups()
    model = registry.load_target(registry.load(plugin), "module")(
        num_users=data.num_users, num_items=data.num_items, **settings
    )
    model.attach(data, seed=0)
    return model


class JointTable(RankingModule):
    """Users and items in one table, as some models have them."""

    def __init__(self, num_users: int, num_items: int, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.nodes = torch.nn.Embedding(num_users + num_items, width)
        self.layer = torch.nn.Linear(width, 2)

    def loss(self, batch):
        raise NotImplementedError

    def ranker(self):
        raise NotImplementedError


def test_what_grows_with_users_and_items_is_found_out():
    assert axes_of(build("lightgcn")) == {"users.weight": ("user", None), "items.weight": ("item", None)}
    assert axes_of(build("bias-mf")) == {
        "user_factors": ("user", None),
        "item_factors": ("item", None),
        "user_bias": ("user",),
        "item_bias": ("item",),
        "relaxed_factors": ("user", None),
        "relaxed_bias": ("user",),
        "mean": (),
    }
    assert axes_of(JointTable(4, 9)) == {
        "nodes.weight": ("node", None),
        "layer.weight": (None, None),
        "layer.bias": (None,),
    }


def test_finding_out_leaves_the_random_state_as_it_was():
    model = build("lightgcn")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    axes_of(model)
    assert torch.equal(torch.rand(3), expected)


def test_two_vocabularies_are_matched_by_id():
    known = Known.of(["b", "c", "a", "z"], ["a", "b", "y"])
    assert dict(zip(known.new.tolist(), known.old.tolist(), strict=True)) == {0: 1, 2: 0}
    assert known.added.tolist() == [1, 3]
    assert Known.of([1, 2], [3]).added.tolist() == [0, 1]


def naive_user_rows(data, table, new):
    """A new user's row by the definition, one loop inside the other."""
    pairs = list(zip(data.positives.users.tolist(), data.positives.items.tolist(), strict=True))
    known = [user for user in range(NUM_USERS) if user not in new]
    rows = {}
    for user in new:
        means = []
        for item in (item for who, item in pairs if who == user):
            fans = [table[who] for who, what in pairs if what == item and who in known]
            if fans:
                means.append(torch.stack(fans).mean(0))
        rows[user] = torch.stack(means).mean(0) if means else torch.stack([table[who] for who in known]).mean(0)
    return rows


def test_a_new_user_takes_the_mean_of_those_who_share_its_items():
    model = JointTable(NUM_USERS, NUM_ITEMS)
    model.attach(taste_groups()[0])
    before = model.nodes.weight.detach().clone()
    new = [3, 17, 29]
    neighbour_means(model, torch.tensor(new), torch.tensor([], dtype=torch.int64))
    expected = naive_user_rows(model.data, before, new)
    for user in new:
        torch.testing.assert_close(model.nodes.weight[user], expected[user])
    untouched = [node for node in range(NUM_USERS + NUM_ITEMS) if node not in new]
    assert torch.equal(model.nodes.weight[untouched], before[untouched])


def test_a_new_item_without_a_rating_takes_the_mean_of_its_genre():
    model = JointTable(NUM_USERS, NUM_ITEMS)
    data = taste_groups()[0]
    rows = data.rows["train"]
    data.rows["train"] = rows.where(rows.items != 5)  # nobody has rated item 5
    data.to("cpu")
    model.attach(data)
    before = model.nodes.weight.detach().clone()
    neighbour_means(model, torch.tensor([], dtype=torch.int64), torch.tensor([5]))
    genres = data.interactions.items["genres"].to_list()
    alike = [NUM_USERS + item for item in range(NUM_ITEMS) if genres[item] == genres[5] and item != 5]
    torch.testing.assert_close(model.nodes.weight[NUM_USERS + 5], before[alike].mean(0))


def test_a_new_node_of_lightgcn_starts_at_its_fold_in():
    model = build("lightgcn", num_layers=2)
    user = 4
    model.start_new(torch.tensor([user]), torch.tensor([], dtype=torch.int64))
    ranker = model.ranker()
    own = model.data.positives.users == user
    # the graph counts the user's own edges in the items' degrees and layers; a fold-in's do so, too, since it is known
    folded = ranker.score_history(model.data.positives.items[own])
    torch.testing.assert_close(ranker.score(torch.tensor([user]))[0], folded)


def test_a_new_user_of_bias_mf_starts_at_its_ridge_solution():
    model = build("bias-mf", embedding_dim=4)
    model.sweep()
    known = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    user = 7
    model.user_factors[user], model.user_bias[user] = 9.0, 9.0
    model.start_new(torch.tensor([user]), torch.tensor([], dtype=torch.int64))
    own = model.data.train.users == user
    scores = model.ranker().score_history(model.data.train.items[own], model.data.train.ratings[own])
    torch.testing.assert_close(model.ranker().score(torch.tensor([user]))[0], scores, rtol=1e-4, atol=1e-4)
    others = torch.arange(NUM_USERS) != user
    assert torch.equal(model.user_factors[others], known["user_factors"][others])
    assert torch.equal(model.item_factors, known["item_factors"])


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A run on two thirds of the users, and the whole data as a file."""
    folder = tmp_path_factory.mktemp("grown")
    ratings = generate(8_000).ratings
    early = ratings["user_id"].unique().sort()[:80]
    ratings.filter(ratings["user_id"].is_in(early.implode())).write_csv(folder / "early.csv")
    ratings.write_csv(folder / "all.csv")
    run = recflow.fit(
        "lightgcn",
        data=str(folder / "early.csv"),
        trainer={"max_epochs": 40},
        runs_dir=str(folder / "runs"),
        name="early",
    )
    return folder, run


@pytest.mark.parametrize("plugin", ["lightgcn"])
def test_a_run_starts_from_another_on_grown_data(grown, plugin):
    folder, early = grown
    settings = {"data": str(folder / "all.csv"), "trainer": {"max_epochs": 2}, "runs_dir": str(folder / "runs")}
    warm = recflow.fit(plugin, init_from=early.path, name="warm", **settings)
    cold = recflow.fit(plugin, name="cold", **settings)
    assert warm.metrics["val"]["ndcg@10"] > 1.1 * cold.metrics["val"]["ndcg@10"]
    assert warm.config["init_from"] == str(early.path)


def test_a_run_of_another_model_cannot_start_one(grown):
    folder, early = grown
    with pytest.raises(RecflowError, match="is a run of lightgcn, which cannot start bias-mf"):
        recflow.fit("bias-mf", data=str(folder / "all.csv"), init_from=early.path, runs_dir=str(folder / "refused"))
    assert not list((folder / "refused").glob("*/*/*"))


def test_a_run_with_other_hyper_parameters_cannot_start_one(grown):
    folder, early = grown
    with pytest.raises(RecflowError, match=r"give it the same --model\.\* settings"):
        recflow.fit("lightgcn", data=str(folder / "all.csv"), init_from=early.path, model={"embedding_dim": 8})


def test_a_model_that_is_solved_at_once_takes_no_start(grown):
    folder, early = grown
    with pytest.raises(RecflowError, match="solved in one sweep"):
        recflow.fit("ease", data=str(folder / "all.csv"), init_from=early.path)


def test_data_that_share_nobody_with_the_run_are_refused(grown):
    folder, early = grown
    (folder / "strangers.csv").write_text(
        "user_id,item_id,rating,timestamp\n"
        + "".join(f"u{u},i{i},4,{u}\n" for u in range(12) for i in range(9) if u % 3 != i % 3)
    )
    with pytest.raises(RecflowError, match="nothing to start from"):
        recflow.fit("lightgcn", data=str(folder / "strangers.csv"), init_from=early.path)


def features_of(folder, genres_of_items, name):
    """Ratings and an items' table on disk: five users, six items."""
    ratings = [f"{user},{item},{4 + (user + item) % 2}" for user in range(5) for item in range(6) if (user + item) % 3]
    (folder / f"{name}.csv").write_text("user_id,item_id,rating\n" + "\n".join(ratings) + "\n")
    rows = [f"{item},Title {item},{genre}" for item, genre in enumerate(genres_of_items)]
    (folder / f"{name}-items.csv").write_text("item_id,title,genres\n" + "\n".join(rows) + "\n")
    return {"path": str(folder / f"{name}.csv"), "items": str(folder / f"{name}-items.csv"), "ratios": [0.8, 0.0, 0.2]}


@pytest.mark.parametrize("plugin", ["graphsage-bpr", "embedding-mlp"])
def test_features_are_found_again_by_their_names(tmp_path, plugin):
    settings = {"runs_dir": tmp_path / "runs", "test": False}
    before = features_of(tmp_path, ["Comedy", "Drama", "Comedy", "Drama", "Comedy|Drama", "Drama"], "before")
    after = features_of(tmp_path, ["Comedy", "Action", "Comedy", "Action", "Action", "War"], "after")
    first = recflow.fit(plugin, before, trainer={"max_epochs": 3}, model={"lr": 0.05}, name="first", **settings)
    unchanged = {"lr": 1e-12, **({"weight_decay": 0.0} if plugin == "graphsage-bpr" else {})}
    second = recflow.fit(
        plugin, after, trainer={"max_epochs": 1}, model=unchanged, init_from=first.path, name="second", **settings
    )
    old, new = (torch.load(run.path / "checkpoints" / "last.ckpt", weights_only=True) for run in (first, second))
    names = [ckpt["feature_rows"]["item_features"] for ckpt in (old, new)]
    assert names == [("genres=Comedy", "genres=Drama", "one"), ("genres=Action", "genres=Comedy", "genres=War", "one")]
    comedy, _, one = old["state_dict"]["item_features"]
    assert bool(comedy.any())
    wanted = torch.stack([torch.zeros_like(comedy), comedy, torch.zeros_like(comedy), one])
    torch.testing.assert_close(new["state_dict"]["item_features"], wanted, rtol=0, atol=1e-6)
