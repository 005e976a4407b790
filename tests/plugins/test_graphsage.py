"""GraphSAGE passes the kit; layers, dropped edges, sampling and fold-in agree with PyG, dense algebra and autograd."""

from functools import cache

import polars as pl
import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.nn import SAGEConv

import recflow
from recflow.data.batches import BPRBatch, RatingBatch
from recflow.data.dataset import DataConfig, prepare
from recflow.data.graph import bipartite_graph
from recflow.data.neighbours import sample_subgraph
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import NUM_ITEMS, NUM_USERS, taste_groups
from recflow_graphsage.body import SAGELayer
from recflow_graphsage.messages import MessageGraph
from recflow_graphsage.ranker import SAGERanker
from recflow_graphsage.ranking import GraphSAGEBPR
from recflow_graphsage.rating import GraphSAGERating

SMALL = {"embedding_dim": 8, "hidden": 8, "lr": 0.03}
BOTH = pytest.mark.parametrize("kind", [GraphSAGEBPR, GraphSAGERating])


class TestGraphSAGEBPR(ModelConformance):
    plugin = "graphsage-bpr"
    settings = SMALL
    epochs = 30


class TestGraphSAGEBPRWithSampledNeighboursAndNoProduct(ModelConformance):
    plugin = "graphsage-bpr"
    settings = {**SMALL, "fanouts": (5, 5), "product": False}
    epochs = 30


class TestGraphSAGERating(ModelConformance):
    plugin = "graphsage-rating"
    settings = SMALL
    epochs = 25


def taste_groups_without(items):
    """Taste groups of which some items have no training row."""
    data, _ = taste_groups()
    data.rows["train"] = data.rows["train"].where(~torch.isin(data.rows["train"].items, items))
    return data.to("cpu")  # which also forgets the rows that there were


def stirred(kind, **settings):
    """A model with nothing left at zero, as after training, on taste groups of which item 3 has no training row."""
    data = taste_groups_without(torch.tensor([3]))
    torch.manual_seed(3)
    settings = {"embedding_dim": 4, "hidden": 5, "node_dropout": 0.0, **settings}
    model = kind(data.num_users, data.num_items, **settings)
    model.attach(data, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def dense_edges(model):
    """Who is whose neighbour, 0 or 1, and what the second kind of message is multiplied by, ``[users, items]``."""
    rows, ratings = model.edges(model.data)
    edges = torch.zeros(NUM_USERS, NUM_ITEMS)
    edges[rows.users, rows.items] = 1
    rated = torch.zeros(NUM_USERS, NUM_ITEMS)
    if ratings is not None:
        rated[rows.users, rows.items] = ratings
    return edges, rated


@torch.no_grad()
def dense_states(model, edges, rated):
    """The header's formula with dense matrices, node by node."""
    data, trained = model.data, dense_edges(model)[0]

    def first(table, features, weights, has):
        ones = torch.ones(len(table), 1)
        inputs = ones if features is None else torch.cat([features.values, ones], dim=1)
        return inputs @ weights + table * (has[:, None] > 0)

    def means(rows, rates, states):
        heard = torch.zeros(len(rows), model.kinds * states.shape[1])
        for node, row in enumerate(rows):
            near = row.nonzero().flatten()
            if len(near):
                kinds = [states[near].mean(0), (rates[node, near, None] * states[near]).mean(0)]
                heard[node] = torch.cat(kinds[: model.kinds])
        return heard

    users = first(model.users.weight, data.user_features, model.user_features, trained.sum(1))
    items = first(model.items.weight, data.item_features, model.item_features, trained.sum(0))
    states = [(users, items)]
    for depth in range(model.hparams["num_layers"]):
        users, items = states[-1]
        new = []
        for layer, own, heard in (
            (model.user_layers[depth], users, means(edges, rated, items)),
            (model.item_layers[depth], items, means(edges.T, rated.T, users)),
        ):
            weights = layer.own.weight, layer.neighbours.weight, layer.neighbours.bias
            new.append(own @ weights[0].T + heard @ weights[1].T + weights[2])
        last = depth + 1 == model.hparams["num_layers"]
        states.append(tuple(new) if last else tuple(side.clamp(min=0) for side in new))
    return states


def dense_scores(model, user, items):
    """Scores of one user's vector and some items', one item at a time."""
    scores = []
    for item in items:
        inputs = torch.cat([user, item])
        first = torch.cat([model.user_half.weight, model.item_half.weight], dim=1)
        hidden = (first @ inputs + model.user_half.bias).clamp(min=0)
        scores.append(model.output.weight[0] @ hidden + (model.product * user * item).sum())
    return torch.stack(scores).detach() + getattr(model, "_mean", 0.0)


def small_graph():
    """Five users and four items; user 4 and item 3 have no edge."""
    users, items = torch.tensor([0, 0, 1, 2, 2, 2, 3]), torch.tensor([1, 0, 2, 0, 1, 2, 1])
    ratings = torch.tensor([1.0, -0.5, 2.0, 0.3, -1.0, 0.7, -2.0])
    return MessageGraph.of(bipartite_graph(users, items, 5, 4), users, items, ratings), users, items, ratings


def test_a_layer_is_pygs_sage_convolution_in_both_directions():
    users, items = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 0, 2, 0, 1])  # user 3 and item 3 have no edge
    graph = MessageGraph.of(bipartite_graph(users, items, 4, 4), users, items)
    torch.manual_seed(0)
    x_users, x_items = torch.randn(4, 6), torch.randn(4, 6)
    for messages, own, other, edge_index in (
        (graph.all_messages()[0], x_users, x_items, torch.stack([items, users])),
        (graph.all_messages()[1], x_items, x_users, torch.stack([users, items])),
    ):
        layer, oracle = SAGELayer(6, 1), SAGEConv((6, 6), 6)
        with torch.no_grad():
            oracle.lin_r.weight.copy_(layer.own.weight)
            oracle.lin_l.weight.copy_(layer.neighbours.weight)
            oracle.lin_l.bias.copy_(layer.neighbours.bias)
        torch.testing.assert_close(layer(own, messages(other)), oracle((other, own), edge_index))


@BOTH
def test_states_are_the_formula_node_by_node(kind):
    model = stirred(kind, num_layers=3)
    for ours, dense in zip(model.states(), dense_states(model, *dense_edges(model)), strict=True):
        torch.testing.assert_close(ours[0], dense[0])
        torch.testing.assert_close(ours[1], dense[1])


@pytest.mark.parametrize("side", [0, 1])
def test_gradients_of_messages_without_some_edges_are_right(side):
    graph, users, items, _ = small_graph()
    some = torch.tensor([1, 3, 6])
    whole = graph.all_messages((users[some], items[some]))[side]
    block = sample_subgraph(
        graph.graph, torch.tensor([2, 0, 4]), torch.tensor([1, 3]), [2], torch.Generator(), (users[:1], items[:1])
    )[0]
    for messages in (whole, graph.block_messages(block)[side]):
        sources = messages.sums[0][0].num_columns
        states = torch.randn(sources, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(messages, states)


def test_messages_over_dropped_edges_are_gone_and_the_mean_is_over_what_is_left():
    graph, users, items, ratings = small_graph()
    edges, rated = torch.zeros(5, 4), torch.zeros(5, 4)
    edges[users, items], rated[users, items] = 1, ratings
    # Twice the same edge; all edges of user 1; a pair that is no edge.
    pairs = torch.tensor([2, 2, 1, 4]), torch.tensor([0, 0, 2, 3])
    edges[pairs], rated[pairs] = 0, 0
    to_users, to_items = graph.all_messages(pairs)
    x_users, x_items = torch.randn(5, 3), torch.randn(4, 3)
    for messages, rows, rates, states in (
        (to_users, edges, rated, x_items),
        (to_items, edges.T, rated.T, x_users),
    ):
        count = rows.sum(1, keepdim=True).clamp(min=1)
        torch.testing.assert_close(messages(states), torch.cat([rows @ states / count, rates @ states / count], dim=1))
    assert not to_users(x_items)[[1, 4]].any()


def test_a_pairs_score_in_training_is_that_of_a_graph_without_the_batchs_pairs():
    model = stirred(GraphSAGEBPR).train()
    rows, _ = model.edges(model.data)
    some = torch.arange(0, len(rows.users), 7)
    users, items = rows.users[some], rows.items[some]
    edges, rated = dense_edges(model)
    edges[users, items] = 0
    wanted_users, wanted_items = dense_states(model, edges, rated)[-1]
    with torch.no_grad():
        vectors = model.vectors(users, items, exclude=(users, items))
        scores = model.pair_scores(*vectors)
    torch.testing.assert_close(vectors, (wanted_users[users], wanted_items[items]))
    for place in range(len(users)):
        wanted = dense_scores(model, wanted_users[users[place]], wanted_items[items[place], None])
        torch.testing.assert_close(scores[place], wanted[0])


@pytest.mark.parametrize("fanouts", [None, [-1, -1]])
@BOTH
def test_the_loss_knows_nothing_of_the_edge_it_scores(kind, fanouts):
    with_edge, without = stirred(kind, fanouts=fanouts).train(), stirred(kind, fanouts=fanouts).train()
    rows, ratings = with_edge.edges(with_edge.data)
    pair = rows.users[:1], rows.items[:1]
    rest = torch.arange(len(rows.users)) > 0
    left = rows.where(rest)
    graph = bipartite_graph(left.users, left.items, NUM_USERS, NUM_ITEMS)
    without._messages = MessageGraph.of(graph, left.users, left.items, None if ratings is None else ratings[rest])
    last = torch.tensor([10]) if kind is GraphSAGEBPR else rows.ratings[:1]
    batch = (BPRBatch if kind is GraphSAGEBPR else RatingBatch)(*pair, last)
    torch.testing.assert_close(with_edge.loss(batch), without.loss(batch))


@pytest.mark.parametrize("node_dropout", [0.0, 0.4])
@BOTH
def test_all_neighbours_sampled_are_the_whole_graph(kind, node_dropout):
    whole = stirred(kind, node_dropout=node_dropout).train()
    sampled = stirred(kind, node_dropout=node_dropout, fanouts=[-1, -1]).train()
    batch = next(iter(whole.batches(whole.data)))
    losses = whole.loss(batch), sampled.loss(batch)
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    others = dict(sampled.named_parameters())
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parameter.grad, others[name].grad, msg=lambda text, name=name: f"{name}: {text}")


def test_a_share_of_nodes_has_no_embedding_and_another_no_neighbours():
    model = stirred(GraphSAGEBPR, node_dropout=0.3).train()
    means = torch.stack([torch.cat(model._dropped()) for _ in range(100)]).mean()
    assert abs(float(means) - 0.7) < 0.03
    nobody = torch.zeros(NUM_USERS), torch.zeros(NUM_ITEMS)
    bare = model.states(own=nobody, heard=nobody)
    genres = model.data.item_features.values
    same = (genres == genres[0]).all(1)
    torch.testing.assert_close(bare[-1][1][same], bare[-1][1][:1].expand(int(same.sum()), -1))
    torch.testing.assert_close(bare[-1][0], bare[-1][0][:1].expand(NUM_USERS, -1))  # there are no user features


@BOTH
def test_scores_of_known_users_are_the_formula(kind):
    model = stirred(kind).eval()
    users, items = dense_states(model, *dense_edges(model))[-1]
    wanted = torch.stack([dense_scores(model, users[user], items) for user in (7, 0)])
    torch.testing.assert_close(model.ranker().score(torch.tensor([7, 0])), wanted)


@BOTH
def test_a_new_user_is_what_the_layers_make_of_the_history(kind):
    """By hand, and with other users' and items' states left as they are: a newcomer changes nobody."""
    model = stirred(kind).eval()
    history, stars = torch.tensor([4, 9, 2]), torch.tensor([5.0, 1.0, 4.0])
    states = dense_states(model, *dense_edges(model))
    state = model.user_features[0].detach()  # a one is all that is known of users
    for depth, layer in enumerate(model.user_layers):
        heard = states[depth][1][history].mean(0)
        if kind is GraphSAGERating:
            rates = (stars - model._mean) / model._spread
            heard = torch.cat([heard, (rates[:, None] * states[depth][1][history]).mean(0)])
        state = (layer.own.weight @ state + layer.neighbours(heard)).detach()
        state = state.clamp(min=0) if depth == 0 else state
    scores = model.ranker().score_history(history, stars)
    torch.testing.assert_close(scores, dense_scores(model, state, states[-1][1]))


@BOTH
def test_someone_without_a_history_is_scored_and_several_are_scored_as_one_each(kind):
    ranker = stirred(kind).ranker()
    known = Histories(torch.tensor([0, 2, 2, 5]), torch.tensor([4, 9, 1, 2, 8]), torch.tensor([5.0, 1, 4, 4, 1]))
    several = ranker.score_histories(known, torch.tensor([1, 2, 0, 1]))
    nobody = ranker.score_history(torch.empty(0, dtype=torch.int64), torch.empty(0))
    torch.testing.assert_close(several[0], nobody)
    torch.testing.assert_close(several[3], nobody)
    torch.testing.assert_close(several[1], ranker.score_history(*known.of(2)))
    assert ranker.score_histories(known, torch.empty(0, dtype=torch.int64)).shape == (0, NUM_ITEMS)


@BOTH
def test_explanations_are_leaving_out_one_item_after_another(kind):
    ranker = stirred(kind).ranker()
    for length in (4, 2, 1, 0):
        items, stars = torch.tensor([4, 9, 2, 30])[:length], torch.tensor([5.0, 1.0, 4.0, 5.0])[:length]
        for given in (stars, None):
            wanted = Ranker.explain(ranker, items, given, 7)
            torch.testing.assert_close(ranker.explain(items, given, 7), wanted, rtol=1e-4, atol=1e-5)


def test_a_rating_model_takes_an_item_without_stars_as_rated_averagely():
    ranker, items = stirred(GraphSAGERating).ranker(), torch.tensor([4, 9])
    average = torch.full((2,), ranker.mean)
    torch.testing.assert_close(ranker.score_history(items), ranker.score_history(items, average))
    assert not torch.allclose(ranker.score_history(items), ranker.score_history(items, average + 1))


@BOTH
def test_a_new_item_is_what_the_layers_make_of_its_features_and_users(kind):
    model = stirred(kind).eval()
    model.start_new(torch.tensor([0]), torch.tensor([5]))
    ranker, genres = model.ranker(), model.data.item_features.values
    edges = model.edges(model.data)[0]
    mine = edges.items == 5
    torch.testing.assert_close(ranker.new_item(genres[3]), ranker.item_vectors[0, 3])  # it has no edge
    # An item of the graph that has no embedding is one that the layers have never seen.
    vector = ranker.new_item(genres[5], edges.users[mine], edges.ratings[mine])
    torch.testing.assert_close(vector, ranker.item_vectors[0, 5])
    everybody = torch.arange(NUM_USERS)
    torch.testing.assert_close(ranker.score_new_item(everybody, vector), ranker.score(everybody)[:, 5])


def test_new_nodes_start_without_an_embedding():
    model = stirred(GraphSAGEBPR)
    model.start_new(torch.tensor([0, 2]), torch.tensor([5]))
    assert (model.users.weight == 0).all(1).nonzero().flatten().tolist() == [0, 2]
    assert (model.items.weight == 0).all(1).nonzero().flatten().tolist() == [5]


def test_features_of_another_number_are_refused():
    ranker = stirred(GraphSAGEBPR).ranker()
    with pytest.raises(ValueError, match=r"features must be of shape \[3\], got \[2\]"):
        ranker.new_item(torch.ones(2))


@cache
def fitted_without_some_items(plugin):
    """A model of taste groups, six items of which, two a group, it knows by their genre alone."""
    groups = [genres[0] for genres in taste_groups()[0].interactions.items["genres"].to_list()]
    cold = torch.tensor([item for name in sorted(set(groups)) for item in _first_two(groups, name)])
    data = taste_groups_without(cold)
    torch.manual_seed(0)
    model = {"graphsage-bpr": GraphSAGEBPR, "graphsage-rating": GraphSAGERating}[plugin](
        data.num_users, data.num_items, **SMALL, node_dropout=0.3
    )
    model.attach(data, seed=0)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=30, accelerator="cpu", devices=1, limit_val_batches=0, enable_model_summary=False, **quiet
    )
    trainer.fit(model, train_dataloaders=model.batches(data))
    return model.eval(), cold, groups


def _first_two(groups, name):
    return [item for item, group in enumerate(groups) if group == name][:2]


@pytest.mark.parametrize("plugin", ["graphsage-bpr", "graphsage-rating"])
def test_items_known_by_their_genre_alone_come_first_for_those_who_like_it(plugin):
    model, cold, groups = fitted_without_some_items(plugin)
    data = model.data
    scores = model.ranker().score(torch.arange(NUM_USERS), cold)
    liked = data.positives
    wrong = 0
    for user in range(NUM_USERS):
        taste = groups[int(liked.items[liked.users == user][0])]
        mine = torch.tensor([groups[item] == taste for item in cold.tolist()])
        wrong += int((scores[user, mine][:, None] <= scores[user, ~mine][None, :]).sum())
    assert wrong == 0, f"{wrong} of {NUM_USERS * 2 * 4} pairs are the wrong way round"


def test_negatives_are_items_that_have_an_edge():
    model = stirred(GraphSAGEBPR)
    drawn = torch.cat([batch.negatives for _ in range(20) for batch in model.batches(model.data)])
    assert set(drawn.tolist()) == set(range(NUM_ITEMS)) - {3}


def test_negatives_are_neither_edgeless_nor_rated_where_ratings_have_a_threshold():
    data = prepare(DataConfig(name="sample:ratings=2000", relevant_from=4.0))
    model = GraphSAGEBPR(data.num_users, data.num_items)
    model.attach(data)
    rated = set((data.train.users * data.num_items + data.train.items).tolist())
    for batch in model.batches(data):
        assert bool(torch.isin(batch.negatives, data.positives.items).all())
        assert not set((batch.users * data.num_items + batch.negatives).tolist()) & rated


def test_a_node_without_an_edge_has_no_embedding():
    model = stirred(GraphSAGEBPR)
    before = model.ranker().item_vectors[0, 3].clone()
    with torch.no_grad():
        model.items.weight[3] += 1
    torch.testing.assert_close(model.ranker().item_vectors[0, 3], before)


@pytest.mark.parametrize("plugin", ["graphsage-bpr", "graphsage-rating"])
def test_a_resumed_run_with_sampled_neighbours_repeats_an_unbroken_one(plugin, tmp_path):
    given = {"data": {"name": "sample:ratings=3000"}, "model": {"fanouts": [3, 2]}, "runs_dir": str(tmp_path)}
    whole = recflow.fit(plugin, **given, trainer={"max_epochs": 4}, name="whole")
    short = recflow.fit(plugin, **given, trainer={"max_epochs": 2}, name="short")
    longer = recflow.fit(resume=short.path, trainer={"max_epochs": 4})
    histories = [pl.read_csv(run.path / "history.csv").drop("seconds") for run in (whole, longer)]
    assert histories[0].equals(histories[1])
    assert whole.metrics["test"] == longer.metrics["test"]


@BOTH
def test_a_rebuilt_ranker_folds_in_and_takes_new_items_as_before(kind):
    ranker = stirred(kind).ranker()
    again = SAGERanker.rebuild(ranker.settings(), dict(ranker.state_dict()))
    items, stars, users = torch.tensor([4, 9]), torch.tensor([5.0, 1.0]), torch.tensor([3, 8])
    assert torch.equal(ranker.score_history(items, stars), again.score_history(items, stars))
    assert torch.equal(ranker.new_item(torch.ones(3), users, stars), again.new_item(torch.ones(3), users, stars))


def test_what_the_data_lack_is_told():
    assert stirred(GraphSAGEBPR).notices() == ["taste-groups has no user features: done without"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding_dim": 0},
        {"num_layers": 0},
        {"hidden": 0},
        {"node_dropout": 1.0},
        {"fanouts": [5]},
        {"fanouts": [5, 0]},
        {"lr": 0.0},
        {"weight_decay": -0.5},
    ],
)
def test_a_setting_out_of_range_is_refused(wrong):
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"{name}.* at least.*got|{name} must be.*got") as caught:
        GraphSAGEBPR(3, 4, **wrong)
    assert str(value) in str(caught.value)
