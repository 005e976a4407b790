"""`recflow recommend --users … --out` and `recflow export`: files for other tools."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recflow import exports
from recflow.cli import main
from recflow.errors import RecflowError, UnknownUserError
from recflow.ranking import recommender as recommending
from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, ItemItemRanker
from recflow.runs import Run

NUM_USERS, NUM_ITEMS, DIM = 40, 25, 4
USER_IDS = [f"user {user:02d}" for user in range(NUM_USERS)]


def factors(num_users=NUM_USERS, num_items=NUM_ITEMS, **settings) -> FactorRanker:
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(size, DIM, generator=generator) for size in (num_users, num_items))
    return FactorRanker(users, items, torch.randn(num_users, generator=generator) / 2, **settings)


def histories(num_users=NUM_USERS, num_items=NUM_ITEMS) -> Histories:
    """User u has rated the first u items, so that the last users have little or nothing left."""
    pairs = [(user, item) for user in range(num_users) for item in range(min(user, num_items))]
    users, items = torch.tensor(pairs).T
    return Histories.from_pairs(users, items, num_users, num_items)


def make_run(path: Path, ranker=None, task="ranking", plugin="lightgcn", **changes) -> Run:
    path.mkdir()
    (path / "config.yaml").write_text(f"plugin: {plugin}\n")
    given = {
        "ranker": ranker or factors(),
        "histories": histories(),
        "items": [Item(i, 100 + i, f'Film "{i}",\tthe {i}th', 1950 + i, ("Drama", "War"), 1) for i in range(NUM_ITEMS)],
        "user_ids": USER_IDS,
        "about": {"task": task, "rating_scale": [1.0, 5.0], "relevant_from": None, "header": {"dataset": "toys"}},
    }
    save_bundle(path / "bundle", plugin=plugin, **given | changes)
    (path / "metrics.json").write_text("{}")
    return Run(path)


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path / "run")


@pytest.fixture
def small_chunks(monkeypatch):
    """A few users at a time, as if there were a million."""
    monkeypatch.setattr(recommending, "CHUNK_BYTES", 7 * 4 * NUM_ITEMS)


def one_by_one(run: Run, user_ids, k: int) -> pl.DataFrame:
    """The reference: each user asked for alone."""
    rows = [
        (user_id, rank, found.item.item_id, found.score)
        for user_id in user_ids
        for rank, found in enumerate(run.recommender.recommend(user_id, k).recommendations, start=1)
    ]
    schema = {"user_id": pl.String, "rank": pl.Int32, "item_id": pl.Int64, "score": pl.Float32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def assert_same(written: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert written.drop("score").equals(expected.drop("score"))
    np.testing.assert_allclose(written["score"].to_numpy(), expected["score"].to_numpy(), rtol=1e-5, atol=1e-6)


class TestRecommendAll:
    @pytest.mark.parametrize("k", [1, 5, 1000])
    def test_each_user_gets_what_recommend_gives_them_alone(self, run, tmp_path, small_chunks, k):
        written = run.recommend_all(tmp_path / "out.parquet", k)
        expected = one_by_one(run, USER_IDS, k)
        assert_same(pl.read_parquet(tmp_path / "out.parquet"), expected)
        assert (written.users, written.rows, written.repeated) == (NUM_USERS, len(expected), 0)
        assert written.exhausted == NUM_USERS - NUM_ITEMS  # user 25 has rated all 25 items, and so have those after

    def test_a_rating_model_s_scores_stay_on_the_scale(self, tmp_path, small_chunks):
        run = make_run(tmp_path / "run", factors(mean=3.5, rating_scale=(1.0, 5.0)), task="rating", plugin="bias-mf")
        run.recommend_all(tmp_path / "out.parquet", 30)
        written = pl.read_parquet(tmp_path / "out.parquet")
        assert (written["score"].min(), written["score"].max()) == (1.0, 5.0)
        assert_same(written, one_by_one(run, USER_IDS, 30))

    def test_an_item_item_model_does_the_same(self, tmp_path, small_chunks):
        known = histories()
        weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=torch.Generator().manual_seed(1))
        run = make_run(tmp_path / "run", ItemItemRanker(weights, known.indptr, known.items), plugin="ease")
        run.recommend_all(tmp_path / "out.parquet", 8)
        assert_same(pl.read_parquet(tmp_path / "out.parquet"), one_by_one(run, USER_IDS, 8))

    def test_without_stored_histories_nothing_is_left_out(self, tmp_path):
        run = make_run(tmp_path / "run", histories=None)
        assert run.recommend_all(tmp_path / "out.parquet", 1000).rows == NUM_USERS * NUM_ITEMS

    def test_all_three_forms_hold_the_same(self, run, tmp_path, small_chunks):
        for suffix in exports.SINKS:
            run.recommend_all(tmp_path / f"out{suffix}", 4, titles=True)
        parquet = pl.read_parquet(tmp_path / "out.parquet")
        assert parquet.columns == ["user_id", "rank", "item_id", "title", "score"]
        assert parquet["title"].to_list() == [f'Film "{i - 100}",\tthe {i - 100}th' for i in parquet["item_id"]]
        assert pl.read_csv(tmp_path / "out.csv", schema=parquet.schema).equals(parquet)
        assert pl.read_ndjson(tmp_path / "out.jsonl", schema=parquet.schema).equals(parquet)

    def test_chosen_users_come_in_the_order_given_each_once(self, run, tmp_path):
        chosen = ["user 07", "user 30", "user 02", "user 07"]
        written = run.recommend_all(tmp_path / "out.csv", 3, chosen)
        assert_same(pl.read_csv(tmp_path / "out.csv"), one_by_one(run, ["user 07", "user 02"], 3))
        assert (written.users, written.repeated, written.exhausted) == (3, 1, 1)

    def test_whole_number_ids_stay_whole_numbers(self, tmp_path):
        run = make_run(tmp_path / "run", user_ids=range(1000, 1000 + NUM_USERS))
        run.recommend_all(tmp_path / "out.parquet", 1, ["1003", 1001])
        assert pl.read_parquet(tmp_path / "out.parquet")["user_id"].to_list() == [1003, 1001]

    def test_who_all_know_every_item_leave_a_file_with_columns_only(self, run, tmp_path):
        written = run.recommend_all(tmp_path / "out.parquet", 3, ["user 30"])
        assert (written.rows, written.exhausted) == (0, 1)
        assert pl.read_parquet(tmp_path / "out.parquet").columns == ["user_id", "rank", "item_id", "score"]

    def test_progress_ends_at_all_users(self, run, tmp_path, small_chunks):
        told = []
        run.recommend_all(tmp_path / "out.csv", 1, progress=lambda done, total: told.append((done, total)))
        assert told == [(min(done, NUM_USERS), NUM_USERS) for done in range(7, NUM_USERS + 7, 7)]

    def test_what_a_chunk_holds_does_not_grow_with_k(self, run, monkeypatch):
        monkeypatch.setattr(recommending, "CHUNK_ROWS", 100)
        chunks = [len(chunk) for chunk, _ in run.recommender.recommend_many(torch.arange(NUM_USERS), 20)]
        assert chunks == [5] * (NUM_USERS // 5)

    def test_an_unknown_user_is_named_the_others_are_counted_and_nothing_is_written(self, run, tmp_path):
        with pytest.raises(UnknownUserError, match=r"There is no user 'eve'.*, nor 1 more of the 3 given; it has 40"):
            run.recommend_all(tmp_path / "out.csv", 3, ["user 01", "eve", "mallory"])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    @pytest.mark.parametrize("after", [0, 2])
    def test_what_fails_on_the_way_leaves_the_older_file_and_no_other(self, run, tmp_path, small_chunks, after):
        (tmp_path / "out.parquet").write_text("older")

        def fail(done, total):
            if done > 7 * after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run.recommend_all(tmp_path / "out.parquet", 3, progress=fail)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "run"]
        assert (tmp_path / "out.parquet").read_text() == "older"

    def test_an_older_file_is_replaced(self, run, tmp_path):
        (tmp_path / "out.csv").write_text("older")
        run.recommend_all(tmp_path / "out.csv", 1)
        assert (tmp_path / "out.csv").read_text().startswith("user_id,rank,item_id,score\n")

    @pytest.mark.parametrize("suffix", exports.SINKS)
    def test_a_sink_that_fails_is_one_line_and_does_not_hang(self, run, tmp_path, small_chunks, monkeypatch, suffix):
        def full(frames, path):
            raise OSError(28, "No space left on device")

        monkeypatch.setitem(exports.SINKS, suffix, full)
        with pytest.raises(RecflowError, match="cannot be written: No space left on device"):
            run.recommend_all(tmp_path / f"out{suffix}", 3)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_no_more_than_two_chunks_wait_for_a_slow_sink(run, tmp_path, small_chunks, monkeypatch):
    made, seen = [], []

    def slow(frames, path):
        time.sleep(0.5)
        seen.append(len(made))
        frames.sink_csv(path)

    monkeypatch.setitem(exports.SINKS, ".csv", slow)
    run.recommend_all(tmp_path / "out.csv", 3, progress=lambda done, _: made.append(done))
    assert seen[0] <= 2
    assert len(made) == 6
    assert_same(pl.read_csv(tmp_path / "out.csv"), one_by_one(run, USER_IDS, 3))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_users(tmp_path):
    num_users, num_items = 60_000, 500
    users, items = factors(num_users, num_items), torch.arange(num_users) % num_items
    make_run(
        tmp_path / "run",
        users,
        histories=Histories.from_pairs(torch.arange(num_users), items, num_users, num_items),
        items=[Item(i, i, f"Film {i}", None, (), 1) for i in range(num_items)],
        user_ids=range(num_users),
    )
    (tmp_path / "few").write_text("\n".join(map(str, range(12_000))))
    code = (
        "import resource, sys; from recflow.cli import main; assert main(sys.argv[1:]) == 0; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    for who in (str(tmp_path / "few"), "all"):
        arguments = ["recommend", "--run", str(tmp_path / "run"), "--users", who, "-k", "100", "--overwrite", "--out"]
        command = [sys.executable, "-c", code, *arguments, str(tmp_path / "out.parquet")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    grown_by = 48_000 * 100 * (8 + 4 + 8 + 4) / 2**20  # MiB that the rows alone take, were they kept
    assert peaks[1] - peaks[0] < grown_by / 2
    assert pl.scan_parquet(tmp_path / "out.parquet").select(pl.len()).collect().item() == num_users * 100


@pytest.fixture
def recflow(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*args, code=0):
        capsys.readouterr()
        assert main([args[0], "--run", "run", *args[1:]]) == code
        captured = capsys.readouterr()
        assert captured.err.count("\n") == (1 if code else 0)
        return captured.err if code else captured.out

    return call


class TestRecommendCommand:
    def test_all_users_go_into_a_file_with_a_summary(self, recflow, run):
        out = recflow("recommend", "--users", "all", "-k", "3", "--out", "out.parquet")
        rows = len(pl.read_parquet("out.parquet"))
        assert out.startswith(f"out.parquet: {rows:,} rows, up to 3 for each of 40 users, ")
        assert "users/s)" in out
        assert "users without a row, who know every item already: 15" in out

    def test_a_file_names_the_users_one_a_line(self, recflow, run):
        Path("ids").write_text("\ufeffuser 03\n\n  user 01 \r\nuser 03\n", encoding="utf-8")
        assert "repeated ids: 1" in recflow("recommend", "--users", "ids", "--out", "out.csv", "--titles")
        written = pl.read_csv("out.csv")
        assert_same(written.drop("title"), one_by_one(run, ["user 03", "user 01"], 10))

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["--users", "all"], "--users needs --out"),
            (["--user", "user 01", "--out", "x.csv"], "go with --users"),
            (["--user", "user 01", "--titles"], "go with --users"),
            (["--users", "all", "--user", "user 01", "--out", "x.csv"], "not allowed with argument"),
            (["--users", "all", "--out", "x.csv", "--why"], "--why is for one user"),
            (["--users", "all", "--out", "x.txt"], "ends in .parquet, .csv, .jsonl, got 'x.txt'"),
            (["--users", "all", "--out", "no/x.csv"], "There is no folder no"),
            (["--users", "all", "--out", "x.csv", "-k", "0"], "k must be at least 1, got 0"),
            (["--users", "nobody", "--out", "x.csv"], "'nobody' cannot be read: No such file"),
            (["--users", "run", "--out", "x.csv"], "'run' cannot be read"),
            (["--users", "empty", "--out", "x.csv"], "No user is named"),
            (["--users", "binary", "--out", "x.csv"], "not a text file in UTF-8"),
            (["--users", "strangers", "--out", "x.csv"], "There is no user 'eve'"),
            (["--users", "all", "--out", "taken.csv"], "taken.csv exists already"),
            (["--users", "all", "--out", "folder.csv"], "folder.csv is a folder"),
        ],
    )
    def test_a_mistake_is_one_line_and_writes_nothing(self, recflow, args, said):
        for name, content in (
            ("empty", b"\n \n"),
            ("binary", b"\xff\xfe\n"),
            ("strangers", b"eve\n"),
            ("taken.csv", b"keep"),
        ):
            Path(name).write_bytes(content)
        Path("folder.csv").mkdir()
        before = sorted(Path().rglob("*"))
        assert said in recflow("recommend", *args, code=2)
        assert sorted(Path().rglob("*")) == before

    def test_ctrl_c_leaves_nothing(self, tmp_path):
        num_users, num_items = 100_000, 2_000
        make_run(
            tmp_path / "big",
            factors(num_users, num_items),
            histories=None,
            items=[Item(i, i, f"Film {i}", None, (), 1) for i in range(num_items)],
            user_ids=range(num_users),
        )
        command = [sys.executable, "-m", "recflow", "recommend", "--run", "big", "--users", "all", "-k", "100"]
        child = subprocess.Popen(
            [*command, "--out", "out.parquet"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".new-*/out.parquet")) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        assert (child.returncode, err.strip()) == (130, "recflow: interrupted")
        assert [path.name for path in tmp_path.iterdir()] == ["big"]


class TestExport:
    def test_vectors_and_biases_give_back_every_score(self, recflow, run):
        out = recflow("export", "--embeddings", "vectors")
        users, items = (pl.read_parquet(f"vectors/{name}.parquet") for name in ("users", "items"))
        assert users.columns == ["user_id", "vector", "bias"]
        assert items.columns == ["item_id", "title", "year", "genres", "vector", "bias"]
        assert users["user_id"].to_list() == USER_IDS
        assert items.row(3)[:4] == (103, 'Film "3",\tthe 3th', 1953, ["Drama", "War"])
        scores = users["vector"].to_numpy() @ items["vector"].to_numpy().T + users["bias"].to_numpy()[:, None]
        scores = scores + items["bias"].to_numpy()
        np.testing.assert_allclose(scores, run.recommender.ranker.score(torch.arange(NUM_USERS)), rtol=1e-5, atol=1e-5)
        assert "score = bias(user) + bias(item) + <vector(user), vector(item)>" in out

    def test_a_mean_is_said(self, tmp_path, capsys):
        make_run(tmp_path / "rating", factors(mean=3.25), plugin="bias-mf")
        assert main(["export", "--run", str(tmp_path / "rating"), "--embeddings", str(tmp_path / "out")]) == 0
        assert "score = 3.25 + bias(user)" in capsys.readouterr().out

    def test_the_projector_gets_a_line_of_numbers_and_one_of_words_for_each_item(self, recflow, run):
        recflow("export", "--embeddings", "projector", "--format", "tsv")
        vectors = np.loadtxt("projector/vectors.tsv", delimiter="\t")
        np.testing.assert_allclose(vectors, run.recommender.ranker.item_factors, rtol=1e-6)
        lines = Path("projector/metadata.tsv").read_text().splitlines()
        assert lines[0] == "title\tyear\tgenres\titem_id"
        assert lines[4] == 'Film "3", the 3th\t1953\tDrama|War\t103'
        assert len(lines) == NUM_ITEMS + 1

    def test_an_older_export_is_replaced_and_nothing_else_is(self, recflow, run):
        Path("vectors").mkdir()
        recflow("export", "--embeddings", "vectors")
        Path("vectors/users.parquet").write_text("older")
        recflow("export", "--embeddings", "vectors")
        assert len(pl.read_parquet("vectors/users.parquet")) == NUM_USERS
        Path("vectors/mine").write_text("mine")
        assert "name a new folder" in recflow("export", "--embeddings", "vectors", code=2)
        assert "name a new folder" in recflow("export", "--embeddings", "run/config.yaml", code=2)
        assert Path("vectors/mine").read_text() == "mine"
        assert {path.name for path in Path().iterdir()} == {"run", "vectors"}

    @pytest.mark.parametrize("kind", ["item-item", "no dimension"])
    def test_a_model_without_vectors_is_refused(self, tmp_path, capsys, kind):
        known = histories()
        ranker = (
            ItemItemRanker(torch.zeros(NUM_ITEMS, NUM_ITEMS), known.indptr, known.items)
            if kind == "item-item"
            else FactorRanker(torch.empty(NUM_USERS, 0), torch.empty(NUM_ITEMS, 0))
        )
        make_run(tmp_path / "run", ranker, plugin="ease")
        assert main(["export", "--run", str(tmp_path / "run"), "--embeddings", str(tmp_path / "out")]) == 2
        assert "ease has no vector per user and item" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_the_folder_is_needed_and_the_form_known(self, recflow):
        assert "--embeddings" in recflow("export", code=2)
        assert "invalid choice" in recflow("export", "--embeddings", "x", "--format", "csv", code=2)


def test_the_jsonl_lines_are_json(run, tmp_path):
    run.recommend_all(tmp_path / "out.jsonl", 1, ["user 00"])
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"user_id", "rank", "item_id", "score"}
