"""What a run says beyond its means, and the pictures of it, from the fit to the folder."""

import json

import polars as pl
import pytest
from matplotlib.transforms import Bbox

import recflow
from recflow import pictures
from recflow.cli.main import main
from recflow.errors import RecflowError
from recflow.plots import embeddings
from recflow.runs import Run, lower_is_better

SMALL = "sample:ratings=6000"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ranking(root):
    model = {"embedding_dim": 8}
    return recflow.fit("lightgcn", data=SMALL, model=model, trainer={"max_epochs": 3}, name="a", runs_dir=str(root))


@pytest.fixture(scope="module")
def rating(root):
    return recflow.fit("bias-only", data=SMALL, name="b", runs_dir=str(root), plots=False)


def names(folder):
    return {path.name for path in folder.iterdir()}


class TestFolder:
    def test_a_ranking_run_has_its_pictures_each_beside_its_table(self, ranking):
        assert names(ranking.path / "plots") == {
            "precision_recall.csv", "precision_recall.png", "groups.png", "exposure.png",
        }  # fmt: skip

    def test_without_pictures_the_tables_are_there_to_draw_them_from(self, rating):
        assert names(rating.path / "plots") == {"precision_recall.csv", "calibration.csv"}
        drawn = pictures.draw(Run(rating.path), rating.metrics)
        assert [path.stem for path in drawn] == ["precision_recall", "groups", "exposure", "calibration"]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)

    def test_tensorboard_shows_them(self, ranking):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(ranking.path / "tensorboard"))
        events.Reload()
        assert set(events.Tags()["images"]) == {"curves", "precision_recall", "groups", "exposure"}

    def test_an_untested_run_has_none(self, root):
        run = recflow.fit("popularity", data=SMALL, name="untested", runs_dir=str(root), test=False)
        assert not names(run.path) & {"plots", "per_item.parquet", "user_groups.parquet"}
        with pytest.raises(RecflowError, match="has no metrics by group"):
            run.groups  # noqa: B018

    def test_metrics_say_what_lists_are_like_of_baselines_too(self, ranking):
        for row in (ranking.metrics["test"], *ranking.metrics["baselines"].values()):
            assert {"arp@10", "novelty@20", "diversity@5", "miscalibration@10", "serendipity@10"} <= row.keys()
        assert ranking.metrics["baselines"]["popularity"]["serendipity@10"] == 0.0
        assert not any("novelty" in name for name in ranking.metrics["val"])

    def test_items_are_all_there_with_their_exposure(self, ranking):
        items = pl.read_parquet(ranking.path / "per_item.parquet")
        assert items.height == ranking.metrics["header"]["items"]
        assert items["exposure@10"].sum() == 10 * ranking.metrics["test_users"]
        share = (items["exposure@10_popularity"] > 0).sum() / items.height
        assert share == pytest.approx(ranking.metrics["baselines"]["popularity"]["coverage@10"])

    def test_groups_are_a_frame_and_fit_the_users(self, rating):
        activity = rating.groups.filter(pl.col("grouping") == "activity")
        users = pl.read_parquet(rating.path / "user_groups.parquet")
        assert activity["users"].sum() == users.height
        per_user = pl.read_parquet(rating.path / "per_user.parquet").join(users, on="user_id")
        first = per_user.filter(pl.col("activity") == activity["group"][0])
        rmse = ((first["mse"] * first["ratings"]).sum() / first["ratings"].sum()) ** 0.5
        assert activity["rmse"][0] == pytest.approx(rmse)
        large = activity.filter(~pl.col("small")).height
        assert ("rmse" in rating.metrics["groups"]["activity"]["worst"]) == (large > 1)


class TestMap:
    def test_it_is_drawn_on_demand_with_its_places(self, ranking, capsys):
        assert main(["runs", "plot", str(ranking.path)]) == 0
        assert "embeddings.png" in capsys.readouterr().out
        places = pl.read_csv(ranking.path / "plots" / "embeddings.csv")
        assert places.columns == ["item_id", "title", "genre", "training", "x", "y"]
        assert places["training"].is_sorted(descending=True)
        assert (ranking.path / "plots" / "embeddings.png").read_bytes().startswith(b"\x89PNG")

    def test_a_model_without_vectors_has_none_and_is_told_so(self, rating, capsys):
        assert main(["runs", "plot", str(rating.path)]) == 0
        assert "no map: bias-only has no item vectors to map." in capsys.readouterr().out

    def test_no_name_covers_another(self, tmp_path, monkeypatch):
        boxes = []
        stand_out = embeddings._stand_out
        monkeypatch.setattr(
            embeddings, "_stand_out", lambda text: (boxes.append(text.get_window_extent()), stand_out(text))
        )
        crowd = pl.DataFrame(
            {
                "x": [(7 * i) % 40 / 40 for i in range(300)], "y": [(11 * i) % 37 / 37 for i in range(300)],
                "genre": [["War", "Drama", None][i % 3] for i in range(300)],
                "title": [f"A film of number {i} (1990)" for i in range(300)], "training": range(300, 0, -1),
            }
        )  # fmt: skip
        embeddings.plot_embeddings(tmp_path / "map.png", crowd, "a crowd")
        assert len(boxes) > 10
        for place, box in enumerate(boxes):
            assert not any(Bbox.intersection(box, other) for other in boxes[place + 1 :])


class TestShow:
    def test_one_page_has_lists_and_groups(self, ranking, capsys):
        assert main(["runs", "show", str(ranking.path)]) == 0
        shown = capsys.readouterr().out
        assert "beyond accuracy @10" in shown
        assert "test part by group" in shown
        for content in ranking.metrics["groups"].values():
            assert all(row["group"] in shown for row in content["groups"])

    def test_a_run_of_an_earlier_version_is_shown_without_them(self, ranking, tmp_path, capsys):
        content = {name: value for name, value in ranking.metrics.items() if name != "groups"}
        content["test"] = {name: value for name, value in content["test"].items() if not name.startswith("arp")}
        (tmp_path / "config.yaml").write_text((ranking.path / "config.yaml").read_text())
        (tmp_path / "metrics.json").write_text(json.dumps(content))
        assert main(["runs", "show", str(tmp_path)]) == 0
        assert "beyond accuracy" not in capsys.readouterr().out


def test_less_popular_and_less_miscalibrated_is_better():
    assert [lower_is_better(f"{name}@10") for name in ("arp", "miscalibration", "novelty")] == [True, True, False]
