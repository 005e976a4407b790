import math
from itertools import pairwise

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.metrics.examine import examine
from recflow.metrics.groups import SMALL, item_groups, table, user_groups
from recflow.ranking.rankers import FactorRanker

KS = (1, 5)


def ranker_of(data) -> FactorRanker:
    generator = torch.Generator().manual_seed(3)
    users, items = (torch.randn(size, 3, generator=generator) for size in (data.num_users, data.num_items))
    return FactorRanker(users, items, mean=3.0, rating_scale=(1.0, 5.0))


@pytest.fixture(scope="module")
def data(random_dataset):
    data = random_dataset(num_users=150, num_items=25)
    users = data.interactions.users.with_columns(
        pl.Series("gender", ["F", "M", None] * 50), pl.Series("age", [7, 18, 24, 56, None] * 30)
    )
    object.__setattr__(data.interactions, "users", users)
    return data


@pytest.fixture(scope="module")
def measured(data):
    return evaluate(ranker_of(data), data, "test", "rating", MetricsConfig(ks=KS), keep_per_user=True)


@pytest.fixture(scope="module")
def examined(data, measured):
    return examine("mf", measured, data, KS)


class TestUserGroups:
    def test_means_are_those_of_each_group_s_users(self, examined, measured):
        per_user = measured.per_user.join(examined.user_groups, on="user_id")
        for grouping in ("activity", "gender", "age"):
            for row in examined.groups[grouping]["groups"]:
                own = per_user.filter(pl.col(grouping) == row["group"])
                assert row["users"] == len(own)
                assert row["small"] == (len(own) < SMALL)
                assert row["metrics"]["ndcg@5"] == pytest.approx(own["ndcg@5"].mean())

    def test_a_group_s_rmse_is_over_all_its_ratings(self, data, examined, measured):
        of = dict(zip(examined.user_groups["user_id"], examined.user_groups["gender"], strict=True))
        found = measured.predictions
        names = data.interactions.users["user_id"].to_list()
        errors = [
            float(predicted - rating) ** 2
            for user, rating, predicted in zip(found.users.tolist(), found.ratings, found.predicted, strict=True)
            if of[names[user]] == "F"
        ]
        row = next(row for row in examined.groups["gender"]["groups"] if row["group"] == "F")
        assert row["metrics"]["rmse"] == pytest.approx(math.sqrt(sum(errors) / len(errors)))

    def test_activity_has_quartiles_of_whole_numbers_and_ages_their_bounds(self, data, examined):
        groups = examined.groups["activity"]["groups"]
        assert sum(row["users"] for row in groups) == len(examined.user_groups)
        bounds = [tuple(map(int, row["group"].split("–"))) for row in groups]
        assert all(a[-1] < b[0] for a, b in pairwise(bounds))
        train = torch.bincount(data.train.users, minlength=data.num_users)
        ids = data.interactions.users["user_id"].to_list()
        for user_id, group in examined.user_groups.select("user_id", "activity").iter_rows():
            low, *high = map(int, group.split("–"))
            assert low <= int(train[ids.index(user_id)]) <= (high or [low])[0]
        assert [row["group"] for row in examined.groups["age"]["groups"]] == ["under 18", "18–24", "56+"]

    def test_who_tells_neither_age_nor_gender_is_left_out(self, examined, measured):
        assert sum(row["users"] for row in examined.groups["gender"]["groups"]) < len(measured.per_user)

    def test_quartiles_by_hand(self, dataset):
        # users with 1, 1, 1, 2, 2, 3, 4, 5 training rows: quartiles 1, 2 and 3
        rows = [(user, item, 5) for user, rows in enumerate((1, 1, 1, 2, 2, 3, 4, 5)) for item in range(rows)]
        data = dataset(8, 6, train=rows, test=[(0, 5, 5)])
        groups = user_groups(data, data.interactions.users["user_id"])["activity"]
        assert groups.to_list() == ["1", "1", "1", "2", "2", "3", "4–5", "4–5"]

    def test_data_that_say_nothing_of_users_have_activity_alone(self, random_dataset):
        plain = random_dataset()
        assert user_groups(plain, plain.interactions.users["user_id"]).columns == ["user_id", "activity"]


class TestItemGroups:
    @given(st.lists(st.integers(0, 20), min_size=1, max_size=30).filter(any), st.randoms())
    def test_equals_stay_together_and_the_items_order_does_not_matter(self, counts, random):
        groups = dict(zip(counts, item_groups(torch.tensor(counts)), strict=True))
        shuffled = counts[:]
        random.shuffle(shuffled)
        assert item_groups(torch.tensor(shuffled)).to_list() == [groups[count] for count in shuffled]
        for count, group in groups.items():
            above = sum(other for other in counts if other > count)
            expected = "head" if 3 * above < sum(counts) else "mid" if 3 * above < 2 * sum(counts) else "tail"
            assert group == expected

    def test_recall_is_of_the_group_s_relevant_items(self, data, measured, examined):
        of_item = item_groups(torch.bincount(data.positives.items, minlength=data.num_items)).to_list()
        relevant = data.relevant("test")
        for row in examined.groups["item popularity"]["groups"]:
            shares = []
            for user, items in zip(measured.lists.users.tolist(), measured.lists.items[:, :5].tolist(), strict=True):
                own = [i for i in relevant.items[relevant.users == user].tolist() if of_item[i] == row["group"]]
                if own:
                    shares.append(len(set(own) & set(items)) / len(own))
            assert row["metrics"]["recall@5"] == pytest.approx(sum(shares) / len(shares))


class TestTable:
    def test_small_groups_are_shown_but_are_neither_worst_nor_best(self):
        rows = [("a", SMALL, {"hit@1": 0.5, "rmse": 1.0}), ("b", 90, {"hit@1": 0.4, "rmse": 0.8}),
                ("c", SMALL - 1, {"hit@1": 0.0, "rmse": 9.0}), ("nobody", 0, {})]  # fmt: skip
        content = table("by letter", rows)
        assert [(row["group"], row["small"]) for row in content["groups"]] == [("a", False), ("b", False), ("c", True)]
        assert content["worst"] == {"hit@1": "b", "rmse": "a"}
        assert content["gap"] == {"hit@1": pytest.approx(0.1), "rmse": pytest.approx(0.2)}

    def test_a_single_group_has_no_gap(self):
        assert table("by letter", [("a", 40, {"hit@1": 0.5})])["gap"] == {}


class TestExamination:
    def test_items_exposure_and_the_curve_follow_from_the_lists(self, data, measured, examined):
        lists = measured.lists.items[:, :5]
        counted = [int((lists == item).sum()) for item in range(data.num_items)]
        assert examined.per_item["exposure@5"].to_list() == counted
        for k in KS:
            row = examined.precision_recall.filter(pl.col("k") == k).row(0, named=True)
            assert row["precision"] == pytest.approx(measured.metrics[f"precision@{k}"], abs=1e-10)
            assert row["recall"] == pytest.approx(measured.metrics[f"recall@{k}"], abs=1e-10)
        assert examined.precision_recall["k"].to_list() == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("task", ["ranking", "rating"])
    def test_a_test_without_relevant_items_has_empty_tables(self, dataset, task, tmp_path):
        data = dataset(2, 3, train=[(0, 0, 5), (1, 1, 4)], test=[(0, 1, 1)], relevant_from=3.0)
        nothing = evaluate(ranker_of(data), data, "test", task, MetricsConfig(ks=KS), keep_per_user=True)
        found = examine("mf", nothing, data, KS)
        assert found.precision_recall.is_empty()
        assert found.per_item["exposure@5"].sum() == 0
        assert found.groups["item popularity"]["gap"] == {}
        found.user_groups.write_parquet(tmp_path / "groups.parquet")
        assert pl.read_parquet(tmp_path / "groups.parquet").height == (task == "rating")

    def test_a_validation_cannot_be_examined(self, data):
        with pytest.raises(ValueError, match="of the test part"):
            examine("mf", evaluate(ranker_of(data), data, "val", "rating", keep_per_user=True), data, KS)
