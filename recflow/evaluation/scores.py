"""One row of a leaderboard: a model's finished runs, user by user and on average."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from recflow.errors import RecflowError
from recflow.evaluation.significance import PerUser, bootstrap, interval
from recflow.runs import COMPARABLE, PER_USER, Run

ERRORS = {"rmse": ("mse", True), "mse": ("mse", False), "mae": ("mae", False)}
"""Metrics that are means over ratings, not over users: the column of each user's mean, and whether under a root."""


@dataclass(frozen=True)
class Row:
    """A model in a comparison.

    Args:
        name: What it is called there.
        runs: Its finished runs, one a seed; empty if it failed.
        recipe: Which settings it was fitted with, in words.
        problem: Why it failed; empty if it did not.
    """

    name: str
    runs: tuple[Run, ...] = ()
    recipe: str = ""
    problem: str = ""

    def __post_init__(self) -> None:
        for run in self.runs:
            if not run.metrics.get("test"):
                raise RecflowError(f"{run.path} was fitted with --no-test: there is nothing to compare; fit it anew.")
            if not (run.path / PER_USER).is_file():
                raise RecflowError(f"{run.path} has no {PER_USER} (cleaned up?): fit it anew.")

    @property
    def plugin(self) -> str:
        """The plugin; empty if it failed."""
        return str(self.runs[0].metrics["plugin"]) if self.runs else ""

    @property
    def task(self) -> str:
        """``ranking`` or ``rating``; empty if it failed."""
        return str(self.runs[0].metrics["task"]) if self.runs else ""

    @property
    def seeds(self) -> list[int]:
        """The runs' seeds."""
        return [run.metrics["header"]["seed"] for run in self.runs]

    @cached_property
    def means(self) -> dict[str, float]:
        """Test metrics, means over the runs; those that all runs have."""
        first, *others = (run.metrics["test"] for run in self.runs)
        names = [name for name in first if all(name in other for other in others)]
        return {name: statistics.fmean(run.metrics["test"][name] for run in self.runs) for name in names}

    @cached_property
    def deviations(self) -> dict[str, float]:
        """Sample standard deviations over the runs; none of a single run."""
        if len(self.runs) < 2:
            return {}
        return {name: statistics.stdev(run.metrics["test"][name] for run in self.runs) for name in self.means}

    @property
    def train_seconds(self) -> float:
        """Seconds of training a run."""
        return statistics.fmean(run.metrics["train_seconds"] for run in self.runs)

    @property
    def test_seconds(self) -> float:
        """Seconds of ranking and measuring a run's test part."""
        return statistics.fmean(run.metrics["test_seconds"] for run in self.runs)

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        return int(self.runs[0].metrics["parameters"])

    @cached_property
    def users(self) -> pl.Series:
        """Ids of the users who are measured in any run, ascending."""
        return self._summed["user_id"]

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over users, by metric; none where a metric is no ratio of sums over users.

        Coverage and the Gini index have none: a resample holds fewer different users, so it recommends fewer items.
        """
        per_user = self.per_user(self.users)
        if not per_user:
            return {}
        ends = zip(per_user, *interval(bootstrap(list(per_user.values()))), strict=True)
        return {name: (float(low), float(high)) for name, low, high in ends}

    def per_user(self, users: pl.Series) -> dict[str, PerUser]:
        """Each metric that is a ratio of sums over users; over all runs together.

        Args:
            users: Whom to keep; each must be among :attr:`users`.
        """
        kept = users.to_frame("user_id").join(self._summed, on="user_id", how="left", maintain_order="left")

        def of(name: str, counts: str, root: bool = False) -> PerUser:
            totals, weights = (kept[column].to_numpy().astype(float) for column in (f"{name}/sum", counts))
            return PerUser(totals, weights, root, counts == "ratings")

        names = [name for name in self.means if f"{name}/sum" in kept.columns and name not in ERRORS]
        found = {name: of(name, f"{name}/count") for name in names}
        for name, (error, root) in ERRORS.items():
            if name in self.means and f"{error}/sum" in kept.columns:
                found[name] = of(error, "ratings", root)
        return {name: found[name] for name in self.means if name in found}

    @cached_property
    def _summed(self) -> pl.DataFrame:
        """Sums over the runs by user: of values and of their number, of errors and of ratings."""
        frames = []
        for run in self.runs:
            frame = pl.read_parquet(run.path / PER_USER).fill_nan(None)
            metrics = [name for name in frame.columns if name not in ("user_id", "ratings")]
            errors = {error for error, _ in ERRORS.values()} & set(metrics)
            sums = [pl.col(name) * pl.col("ratings") if name in errors else pl.col(name) for name in metrics]
            ratings = ["ratings"] if "ratings" in frame.columns else []
            frames.append(
                frame.select(
                    "user_id",
                    *(total.fill_null(0.0).alias(f"{name}/sum") for name, total in zip(metrics, sums, strict=True)),
                    *(pl.col(name).is_not_null().cast(pl.Float64).alias(f"{name}/count") for name in metrics),
                    *(pl.col(name).cast(pl.Float64) for name in ratings),
                )
            )
        together = pl.concat(frames, how="diagonal")
        return together.group_by("user_id").agg(pl.exclude("user_id").sum()).sort("user_id")


def require_comparable(rows: Sequence[Row]) -> None:
    """Refuse rows whose numbers may not stand in one table.

    Raises:
        RecflowError: If data, filter, split, relevance, candidates, start or cut-offs differ between two rows' runs.
    """
    finished = [row for row in rows if row.runs]
    for row in finished:
        if len(row.seeds) != len(set(row.seeds)):
            raise RecflowError(f"{row.name} has two runs of one seed: {', '.join(map(str, row.seeds))}; leave one out.")
    first = finished[0]
    for row in finished:
        ours, theirs = _protocols(first), _protocols(row)
        if len(ours) != len(theirs):
            raise RecflowError(
                f"{first.name} has {len(ours)} runs and {row.name} {len(theirs)}: give as many seeds of each."
            )
        for a, b in zip(ours, theirs, strict=True):
            differing = [name for name in a if a[name] != b[name]]
            if differing:
                name = differing[0]
                raise RecflowError(
                    f"{first.name} and {row.name} cannot stand in one table: they are not of the same "
                    f"{', '.join(differing)} ({name}: {a[name]}; {b[name]})."
                )


def _protocols(row: Row) -> list[dict[str, Any]]:
    """What must be equal, run by run, in the order of the splits."""
    found = [
        {
            **{name: run.metrics["header"].get(name) for name in COMPARABLE},
            "cut-offs": list(run.config["metrics"]["ks"]),
        }
        for run in row.runs
    ]
    return sorted(found, key=lambda protocol: str(protocol["split"]))
