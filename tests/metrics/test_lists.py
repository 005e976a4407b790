"""The metrics of lists beside a loop over users, from the data to the file."""

import math

import polars as pl
import pytest
import torch

from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.metrics.kept import KeptRows
from recflow.ranking.rankers import FactorRanker

KS = (2, 5)
GENRES = [["War"], ["War", "Drama"], [], ["Drama"], ["Comedy"], ["Comedy", "Drama", "War"]]


@pytest.fixture(scope="module")
def data(random_dataset):
    """Dislikes among the rows that are known: liked is not seen."""
    data = random_dataset(seed=4, num_users=30, num_items=24, relevant_from=3.0)
    items = data.interactions.items.with_columns(pl.Series("genres", (GENRES * 4), dtype=pl.List(pl.String)))
    object.__setattr__(data.interactions, "items", items)
    return data


@pytest.fixture(scope="module")
def measured(data):
    generator = torch.Generator().manual_seed(8)
    users, items = (torch.randn(size, 3, generator=generator) for size in (data.num_users, data.num_items))
    ranker = FactorRanker(users, items, mean=3.0, reg_bias=1.0)
    return evaluate(ranker, data, "test", "ranking", MetricsConfig(ks=KS), keep_per_user=True)


def by_definition(data, user: int, items: list[int]) -> dict[str, float]:
    def of(part, liked):
        rows = data.rows[part]
        return [i for u, i, r in zip(*(c.tolist() for c in rows), strict=True) if u == user and (r >= 3 or not liked)]

    positives = [(u, i) for u, i, r in zip(*(c.tolist() for c in data.train), strict=True) if r >= 3]
    counts = [sum(i == item for _, i in positives) for item in range(data.num_items)]
    num_users = len({u for u, _ in positives})
    genres = data.interactions.items["genres"].to_list()
    seen, liked = set(of("train", False) + of("val", False)), of("train", True) + of("val", True)
    popular = [
        i for i in items
        if sum(counts[j] > counts[i] for j in range(data.num_items) if j not in seen) < len(items)
    ]  # fmt: skip
    values = {
        "arp": sum(counts[i] for i in items) / len(items),
        "novelty": sum(math.log2(num_users / max(counts[i], 1)) for i in items) / len(items),
        "serendipity": len(set(items) & set(of("test", True)) - set(popular)) / len(items),
    }
    pairs = [(genres[a], genres[b]) for n, a in enumerate(items) for b in items[n + 1 :] if genres[a] and genres[b]]
    if pairs:
        apart = [1 - len({*a} & {*b}) / math.sqrt(len(a) * len(b)) for a, b in pairs]
        values["diversity"] = sum(apart) / len(apart)
    shown, past = ([genres[i] for i in those if genres[i]] for those in (items, liked))
    if shown and past:
        q, p = ([sum(1 / len(o) for o in own if g in o) / len(own) for g in ("Comedy", "Drama", "War")]
                for own in (shown, past))  # fmt: skip
        values["miscalibration"] = sum(a * math.log(a / (0.99 * b + 0.01 * a)) for a, b in zip(p, q, strict=True) if a)
    return values


@pytest.mark.parametrize("k", KS)
def test_every_user_s_values_are_the_definitions(data, measured, k):
    ids = data.interactions.users["user_id"].to_list()
    found = 0
    for row, items in zip(measured.per_user.iter_rows(named=True), measured.lists.items.tolist(), strict=True):
        expected = by_definition(data, ids.index(row["user_id"]), items[:k])
        for name in ("arp", "novelty", "serendipity", "diversity", "miscalibration"):
            assert row[f"{name}@{k}"] == pytest.approx(expected.get(name), abs=1e-9)
        found += expected["serendipity"] > 0
    assert found  # the world is worth it


@pytest.mark.parametrize("name", ["arp@5", "novelty@2", "serendipity@5", "diversity@2", "miscalibration@2"])
def test_a_metric_is_the_mean_over_users_who_have_it(measured, name):
    assert measured.metrics[name] == pytest.approx(measured.per_user[name].mean(), rel=1e-14)


class TestKeptRows:
    def test_rows_come_back_by_user_those_of_a_user_as_they_came(self):
        kept = KeptRows(2)
        for rows in ([[7, 1], [7, 0]], [[2, 5]], [[9, 3], [4, 4]]):
            kept.update(torch.tensor(rows))
        assert kept.compute().tolist() == [[2, 5], [4, 4], [7, 1], [7, 0], [9, 3]]

    def test_none_are_none_and_another_width_is_refused(self):
        kept = KeptRows(3)
        kept.update(torch.zeros(0, 3))
        assert kept.compute().shape == (0, 3)
        with pytest.raises(ValueError, match=r"must have shape \[rows, 3\], got \[1, 2\]"):
            KeptRows(3).update(torch.zeros(1, 2))
