"""Two processes of torch.distributed must report what one process reports, to the last bit."""

import datetime

import polars as pl
import pytest
import torch
import torch.multiprocessing

from recflow.metrics.evaluate import Evaluation, Evaluator, MetricsConfig, evaluate
from recflow.metrics.means import RankingMetrics
from recflow.ranking.rankers import FactorRanker

CONFIG = MetricsConfig(ks=(1, 3, 10), auc=True)


def rating_model(data) -> FactorRanker:
    """Small whole factors, whose products no order of adding can round; stars still differ in every bit."""
    generator = torch.Generator().manual_seed(1)
    users, items = (torch.randint(-2, 3, (size, 3), generator=generator) for size in (data.num_users, data.num_items))
    bias = torch.randint(-1, 2, (data.num_items,), generator=generator).float()
    user_bias = torch.randn(data.num_users, generator=generator)
    return FactorRanker(
        users.float(), items.float(), user_bias, bias, items.float(), 3.1, fold_in="propagate", rating_scale=(1.0, 5.0)
    )


def update(metrics: RankingMetrics) -> RankingMetrics:
    """Two users: one finds its item in the second place, one has nothing to find."""
    top_items, hits = torch.tensor([[3, 1], [0, 2]]), torch.tensor([[False, True], [False, False]])
    metrics.update(torch.tensor([4, 2]), top_items, hits, torch.tensor([1, 0]))
    return metrics


def measure_in_one_of_two(rank: int, folder: str, worlds: dict) -> None:
    """Save what each process reports of each world."""
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2, timeout=patience
    )
    for name, data in worlds.items():
        measured = evaluate(rating_model(data), data, "test", "rating", CONFIG, keep_per_user=True)
        torch.save(measured[:3], f"{folder}/{name}-{rank}.pt")
        measured.per_user.write_parquet(f"{folder}/{name}-{rank}.parquet")
    metrics = RankingMetrics((1, 2), 5, keep_per_user=True)
    if rank == 0:  # the other is never updated at all
        update(metrics)
    report = {"values": metrics.compute(), "counts": metrics.counts(), "users": metrics.per_user()}
    torch.save(report, f"{folder}/metrics-{rank}.pt")
    if rank == 0:  # alone, while the other has left: waiting for it would take a minute and fail
        first = next(iter(worlds.values()))
        alone = evaluate(rating_model(first), first, "test", "rating", CONFIG, rank=0, world_size=1)
        torch.save(alone[:3], f"{folder}/alone.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def worlds(random_dataset, dataset):
    rows = {"train": [(0, 0, 5), (1, 1, 4), (2, 2, 3)], "test": [(1, 2, 5), (1, 0, 2)]}
    nothing_to_find = {"train": [(0, 0, 5), (1, 1, 4)], "test": [(0, 1, 1)]}
    return {
        "uneven": random_dataset(num_users=23, given=5, relevant_from=5.0),
        "held-out": random_dataset(num_users=30, held_out=9, given=4),
        "one-user": dataset(3, 4, **rows, negatives=[(1, 3)], relevant_from=3.0),
        "nothing-to-find": dataset(2, 3, **nothing_to_find, relevant_from=3.0),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def reported(folder, worlds):
    """What both processes report of each world, and the first of them alone."""
    torch.multiprocessing.spawn(measure_in_one_of_two, (str(folder), worlds), nprocs=2)

    def read(name: str) -> Evaluation:
        values = torch.load(folder / f"{name}.pt", weights_only=True)
        frame = folder / f"{name}.parquet"
        return Evaluation(*values, pl.read_parquet(frame) if frame.is_file() else pl.DataFrame())

    return read


def same(values: dict[str, float], expected: dict[str, float]) -> bool:
    """Equal to the last bit; nan equals nan."""
    return list(values) == list(expected) and all(
        value == other or (value != value and other != other)
        for value, other in zip(values.values(), expected.values(), strict=True)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
class TestTwoProcesses:
    @pytest.mark.parametrize("rank", [0, 1])
    @pytest.mark.parametrize("name", ["uneven", "held-out", "one-user", "nothing-to-find"])
    def test_each_reports_one_process_numbers_to_the_last_bit(self, worlds, reported, name, rank):
        expected = evaluate(rating_model(worlds[name]), worlds[name], "test", "rating", CONFIG, keep_per_user=True)
        measured = reported(f"{name}-{rank}")
        assert same(measured.metrics, expected.metrics)
        assert (measured.users, measured.skipped) == (expected.users, expected.skipped)
        assert measured.per_user.equals(expected.per_user)

    @pytest.mark.parametrize("rank", [0, 1])
    def test_metrics_that_saw_nobody_report_what_the_others_saw(self, reported, folder, rank):
        expected = update(RankingMetrics((1, 2), 5, keep_per_user=True))
        report = torch.load(folder / f"metrics-{rank}.pt", weights_only=True)
        assert report["values"] == expected.compute()
        assert report["counts"] == expected.counts() == (1, 1)
        torch.testing.assert_close(report["users"], expected.per_user(), rtol=0, atol=0)

    def test_one_that_measures_everybody_waits_for_nobody(self, worlds, reported):
        expected = evaluate(rating_model(worlds["uneven"]), worlds["uneven"], "test", "rating", CONFIG)
        assert reported("alone")[:3] == expected[:3]

    def test_the_worlds_are_worth_it(self, worlds):
        """More than one share, an empty share, folded-in users, users without a relevant item."""
        shares = {
            name: [sum(map(len, Evaluator(data, "test", "rating", CONFIG).chunks(rank, 2))) for rank in (0, 1)]
            for name, data in worlds.items()
        }
        assert shares == {"uneven": [12, 11], "held-out": [15, 15], "one-user": [1, 0], "nothing-to-find": [1, 0]}
        measured = evaluate(rating_model(worlds["uneven"]), worlds["uneven"], "test", "rating", CONFIG)
        assert measured.skipped > 1
        assert len(worlds["held-out"].rows["fold_in"].users) > 0
