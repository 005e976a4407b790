"""A configuration becomes a dataset: names and files, defaults, headers, and what test rows may not touch."""

import polars as pl
import pytest
import torch

import recflow
from recflow.cli import main
from recflow.data.dataset import DataConfig, config_of, prepare
from recflow.data.sample import generate
from recflow.errors import RecflowError


@pytest.fixture(scope="module")
def table():
    return generate(4_000).ratings.rename({"user_id": "member", "item_id": "film", "rating": "stars", "time": "when"})


@pytest.fixture
def own(table, tmp_path):
    table.write_csv(tmp_path / "my.csv")
    return tmp_path / "my.csv"


COLUMNS = {"user": "member", "item": "film", "rating": "stars", "time": "when"}


def test_a_configuration_survives_yaml():
    config = DataConfig(years=(1990, 1999), ratios=(0.6, 0.2, 0.2), drop_below=3.0, folds=4)
    settings = {**vars(config), "years": [1990, 1999], "ratios": [0.6, 0.2, 0.2]}
    assert config_of(settings) == config


def test_a_file_of_ones_own_is_read_by_its_columns(own, table):
    data = prepare(DataConfig(path=str(own), **COLUMNS))
    assert data.name == "my"
    assert len(data.interactions.table) == len(table)
    assert data.header()["split"].startswith("ratio")


def test_a_fold_column_of_ones_own_is_the_split(own, table):
    folds = table.with_columns(fold=pl.int_range(pl.len()) % 4)  # 0: always trained on
    folds.write_csv(own)
    data = prepare(DataConfig(path=str(own), val_fraction=0.0, fold=2, **COLUMNS))
    assert data.header()["split"].startswith("files, fold 2 tested")
    expected = folds.filter(pl.col("fold") == 2)
    ids = data.interactions.users["user_id"], data.interactions.items["item_id"]
    tested = {(ids[0][u], ids[1][i]) for u, i in data.parts.test.select("user", "item").iter_rows()}
    assert tested == set(expected.select("member", "film").iter_rows())


def test_columns_without_a_file_are_refused():
    with pytest.raises(RecflowError, match=r"data\.user, data\.time: for data of your own"):
        DataConfig(user="member", time="when")


def test_the_header_counts_who_is_cold():
    data = prepare(DataConfig(name="sample:ratings=3000", split="temporal"))
    train, test = data.parts.train, data.parts.test
    cold = data.header()["cold"]["test"]
    assert cold["users"] == len(set(test["user"]) - set(train["user"])) > 0
    assert cold["items"] == len(set(test["item"]) - set(train["item"])) > 0


def test_users_who_are_held_out_are_known_by_their_fold_in_alone():
    data = prepare(DataConfig(name="sample:ratings=3000", split="users"))
    held_out = set(data.rows["test"].users.tolist())
    assert not held_out & set(data.train.users.tolist())
    assert held_out <= set(data.rows["fold_in"].users.tolist())
    seen = data.seen("test")
    assert held_out <= set(seen.users.tolist())
    assert data.header()["interactions"]["fold_in"] == len(data.rows["fold_in"].users)


def test_less_training_data_leaves_what_is_held_out():
    whole, part = (prepare(DataConfig(name="sample:ratings=3000", train_fraction=share)) for share in (1.0, 0.25))
    assert len(part.train.users) == round(0.25 * len(whole.train.users))
    assert part.parts.test.equals(whole.parts.test)
    assert "25 % of the training rows" in part.header()["split"]


class TestTheDoor:
    """What the README promises of one's own data."""

    def arguments(self, path, *more):
        columns = [f"--data.{role}={name}" for role, name in COLUMNS.items()]
        return ["fit", "--plugin", "popularity", "--data", str(path), *columns, *more]

    def test_a_file_is_fitted_asked_and_tested(self, own, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(self.arguments("my.csv")) == 0
        assert main(["recommend", "--user", "1", "-k", "3"]) == 0
        assert main(["test"]) == 0
        assert "means over" in capsys.readouterr().out

    def test_an_item_table_gives_titles(self, own, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        generate(4_000).items.with_columns(pl.col("genres").list.join("|")).rename({"item_id": "film"}).write_csv(
            "films.csv"
        )
        assert main(self.arguments("my.csv", "--data.items", "films.csv")) == 0
        capsys.readouterr()
        assert main(["recommend", "--user", "1", "-k", "3"]) == 0
        assert "(19" in capsys.readouterr().out

    def test_a_column_that_is_not_there_is_one_line(self, own, tmp_path, capsys):
        code = main(
            ["fit", "--plugin", "popularity", "--data", str(own), "--data.user", "membre", "--data.item", "film"]
        )
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == (2, 1)
        assert "membre" in error
        assert "member" in error

    def test_a_file_that_is_not_there_is_one_line(self, capsys):
        assert main(["fit", "--plugin", "popularity", "--data", "nowhere.csv"]) == 2
        assert "nowhere.csv" in capsys.readouterr().err

    def test_a_rating_model_needs_ratings(self, own, table, tmp_path, capsys):
        table.select("member", "film").write_csv(own)
        arguments = ["--data", str(own), "--data.user=member", "--data.item=film", "--runs_dir", str(tmp_path)]
        assert main(["fit", "--plugin", "bias-mf", *arguments]) == 2
        assert "predicts ratings, and my has none" in capsys.readouterr().err

    def test_a_split_in_time_needs_times(self, own, table, tmp_path, capsys):
        table.select("member", "film").write_csv(own)
        arguments = ["--data", str(own), "--data.user=member", "--data.item=film", "--runs_dir", str(tmp_path)]
        assert main(["fit", "--plugin", "popularity", "--data.split", "temporal", *arguments]) == 2
        assert "time" in capsys.readouterr().err


@pytest.mark.parametrize("plugin", ["lightgcn", "ease", "bias-mf", "popularity"])
def test_users_who_were_held_out_are_served_by_their_fold_in(plugin, tmp_path):
    run = recflow.fit(
        plugin,
        data={"name": "sample:ratings=3000", "split": "users"},
        trainer={"max_epochs": 1 if plugin in ("ease", "popularity") else 3},
        runs_dir=str(tmp_path),
    )
    data = prepare(config_of(run.config["data"]))
    ids = data.interactions.users["user_id"].to_list()
    trained, held_out = int(data.train.users[0]), int(data.rows["test"].users[0])
    assert run.recommender.recommend(ids[trained], 5).path == "known user"
    answer = run.recommender.recommend(ids[held_out], 5)
    assert answer.path == "fold-in"
    run.recommend_all(tmp_path / "all.parquet", k=5)
    listed = pl.read_parquet(tmp_path / "all.parquet")
    for user, expected in ((trained, run.recommender.recommend(ids[trained], 5)), (held_out, answer)):
        got = listed.filter(pl.col("user_id") == ids[user])["item_id"].to_list()
        assert got == [found.item.item_id for found in expected.recommendations]


@pytest.mark.parametrize("plugin", ["lightgcn", "bias-mf"])
def test_exported_vectors_give_the_scores_that_are_served_to_held_out_users_too(plugin, tmp_path):
    data = {"name": "sample:ratings=3000", "split": "users"}
    run = recflow.fit(plugin, data=data, trainer={"max_epochs": 3}, runs_dir=str(tmp_path))
    run.export_embeddings(tmp_path / "vectors")
    users, items = (pl.read_parquet(tmp_path / "vectors" / f"{side}.parquet") for side in ("users", "items"))
    prepared = prepare(config_of(run.config["data"]))
    held_out = int(prepared.rows["test"].users[0])
    user_id = prepared.interactions.users["user_id"][held_out]
    row = users.row(by_predicate=pl.col("user_id") == user_id, named=True)
    vectors = torch.tensor(items["vector"].to_list())
    scores = run.recommender.ranker.mean + row["bias"] + torch.tensor(items["bias"].to_list())
    scores = scores + vectors @ torch.tensor(row["vector"])
    place = {item: index for index, item in enumerate(items["item_id"].to_list())}
    for found in run.recommender.recommend(user_id, 5).recommendations:
        assert float(scores[place[found.item.item_id]]) == pytest.approx(found.score, abs=1e-4)


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_a_frame_is_fitted_like_a_file(table, library, tmp_path):
    frame = table if library == "polars" else table.to_pandas()
    run = recflow.fit("popularity", data={"path": frame, **COLUMNS}, runs_dir=str(tmp_path))
    assert run.metrics["header"]["dataset"] == "frame"
    assert sum(run.metrics["header"]["interactions"].values()) == len(table)
    assert recflow.load_run(run.path).recommend(user=1, k=2).height == 2


@pytest.mark.parametrize("plugin", ["lightgcn", "bias-mf", "ease"])
def test_changed_test_rows_leave_every_score_the_same(plugin, table, tmp_path):
    """The poison test: whatever stands in the test rows, a fit must not see it."""
    split = table.with_columns(fold=(pl.int_range(pl.len()) % 5 == 0).cast(pl.Int8))
    poison = pl.when(pl.col("fold") == 1).then(5.5 - pl.col("stars")).otherwise(pl.col("stars")).alias("stars")
    later = pl.when(pl.col("fold") == 1).then(pl.col("when") + 10**7).otherwise(pl.col("when")).alias("when")
    scores = []
    for name, frame in (("clean", split), ("poisoned", split.with_columns(poison.cast(pl.Float32), later))):
        (tmp_path / name).mkdir()
        frame.write_csv(tmp_path / name / "my.csv")
        run = recflow.fit(
            plugin,
            data={"path": str(tmp_path / name / "my.csv"), **COLUMNS},
            trainer={"max_epochs": 1 if plugin == "ease" else 3},
            runs_dir=str(tmp_path / name),
        )
        ranker = run.recommender.ranker
        scores.append(ranker.score(torch.arange(ranker.num_users)))
    assert torch.equal(*scores)
