"""A leaderboard: models on the same test rows, with intervals, tests of every difference, and words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from recflow.errors import RecflowError
from recflow.evaluation.scores import Row, require_comparable
from recflow.evaluation.significance import LEVEL, bootstrap, holm, interval, paired_test
from recflow.runs import lower_is_better

FALSE_ALARMS = 0.05
"""A difference is told where its corrected p-value is below this."""


@dataclass(frozen=True)
class Difference:
    """What is known of two models.

    Attributes:
        better: The one with the better value.
        worse: The other.
        by: How much better, at least 0.
        p: Corrected p-value of no difference.
    """

    better: str
    worse: str
    by: float
    p: float

    @property
    def told(self) -> bool:
        """Whether the two can be told apart."""
        return self.p < FALSE_ALARMS


class Leaderboard:
    """Rows of one protocol, best first, failed ones last.

    Args:
        rows: The models; names must differ.
        metric: What they are ordered and tested by; nDCG@10, or RMSE where all predict ratings, if None.

    Raises:
        RecflowError: If no row has finished, the rows may not be compared, or a row lacks the metric.
    """

    def __init__(self, rows: Sequence[Row], metric: str | None = None) -> None:
        finished = [row for row in rows if row.runs]
        if not finished:
            reasons = "; ".join(f"{row.name}: {row.problem}" for row in rows)
            raise RecflowError(f"No model has finished, there is nothing to compare: {reasons or 'none was named'}.")
        require_comparable(finished)
        self.metric = metric or _chief(finished)
        for row in finished:
            if self.metric not in row.means:
                raise RecflowError(f"{row.name} has no {self.metric}; it has: {', '.join(row.means)}.")
        if all(self.metric not in row.per_user(row.users[:1]) for row in finished):
            raise RecflowError(f"{self.metric} is no mean over users: choose another --metric to test differences in.")
        sign = 1 if lower_is_better(self.metric) else -1
        self.finished = sorted(finished, key=lambda row: sign * row.means[self.metric])
        self.failed = [row for row in rows if not row.runs]

    @property
    def header(self) -> Mapping[str, Any]:
        """The first run's header: what the numbers are to be printed with."""
        header: Mapping[str, Any] = self.finished[0].runs[0].metrics["header"]
        return header

    @property
    def metrics(self) -> list[str]:
        """Every metric that any row has, in the order in which they print."""
        return list(dict.fromkeys(name for row in self.finished for name in row.means))

    @cached_property
    def users(self) -> pl.Series:
        """The users whom every row is measured on, ascending."""
        shared = reduce(lambda a, b: a.filter(a.is_in(b.implode())), (row.users for row in self.finished))
        if shared.is_empty():
            raise RecflowError("The models share no test user: there is nothing to test.")
        return shared

    @cached_property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """95 % bootstrap intervals over users, by row and metric; none where a metric is no ratio of sums over users.

        Coverage and the Gini index have none: a resample holds fewer different users, so it recommends fewer items.
        """
        found = {}
        for row in self.finished:
            metrics = row.per_user(row.users)
            ends = interval(bootstrap(list(metrics.values()))) if metrics else ((), ())
            found[row.name] = {name: (float(low), float(high)) for name, low, high in zip(metrics, *ends, strict=True)}
        return found

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """Every two rows, the better one first: randomisation tests over the shared users, Holm-corrected."""
        pairs = list(combinations(self.finished, 2))
        if not pairs:
            return {}
        totals = {row.name: row.per_user(self.users)[self.metric].totals for row in self.finished}
        tested = np.stack([totals[a.name] - totals[b.name] for a, b in pairs], axis=1)
        corrected = holm(paired_test(tested))
        return {
            (a.name, b.name): Difference(a.name, b.name, abs(a.means[self.metric] - b.means[self.metric]), float(p))
            for (a, b), p in zip(pairs, corrected, strict=True)
        }

    def sentences(self) -> list[str]:
        """What the tests say: one sentence about the best, and one for each row that ties with others."""
        names = [row.name for row in self.finished]
        if len(names) < 2:
            return []
        said = []
        for place, name in enumerate(names[:-1]):
            below = [self.differences[name, other] for other in names[place + 1 :]]
            ties = [found for found in below if not found.told]
            if ties:
                listed = ", ".join(f"{found.worse} (p = {_p(found.p)})" for found in ties)
                said.append(f"No difference can be told between {name} and {listed}.")
            elif place == 0:
                worst = max(found.p for found in below)
                said.append(f"{name} is better than every other model here (p {_below(worst)}).")
        if said and said[0].startswith("No difference"):
            told = [found for found in (self.differences[names[0], other] for other in names[1:]) if found.told]
            if told:
                others = ", ".join(found.worse for found in told)
                said.insert(1, f"{names[0]} is better than {others} (p {_below(max(found.p for found in told))}).")
        return said

    def table(self) -> pl.DataFrame:
        """Everything as one table, one line a model and metric: value, sd, low, high; and one line a model's costs."""
        lines = [
            {
                "model": row.name,
                "plugin": row.plugin,
                "task": row.task,
                "recipe": row.recipe,
                "runs": len(row.runs),
                "metric": name,
                "value": value,
                "sd": row.deviations.get(name),
                "low": self.intervals[row.name].get(name, (None, None))[0],
                "high": self.intervals[row.name].get(name, (None, None))[1],
                "train_seconds": row.train_seconds,
                "test_seconds": row.test_seconds,
                "parameters": row.parameters,
                "problem": "",
            }
            for row in self.finished
            for name, value in row.means.items()
        ]
        failed = [{"model": row.name, "recipe": row.recipe, "runs": 0, "problem": row.problem} for row in self.failed]
        return pl.DataFrame([*lines, *failed], infer_schema_length=None)

    def protocol(self) -> list[str]:
        """What every number must be printed with, in lines."""
        header, row = self.header, self.finished[0]
        cold = header["cold"]["test"]
        seeds = ", ".join(map(str, row.seeds))
        splits = len({run.metrics["header"]["split"] for run in row.runs})
        return [
            f"{header['dataset']} (sha256 {header['sha256'][:12]}): {header['users']:,} users, {header['items']:,} "
            f"items; filter {header['filter']}; relevant: {header['relevance']}",
            f"{header['split']}{f' and {splits - 1} more splits' if splits > 1 else ''}; {header['candidates']}",
            f"cold in the test part, without a training row: {cold['users']:,} users, {cold['items']:,} items",
            f"seeds {seeds}; {len(self.users):,} users tested; {LEVEL:.0%} intervals: bootstrap over users; "
            "differences: randomisation tests over the same users, Holm-corrected",
        ]


def _chief(rows: Sequence[Row]) -> str:
    shared = [name for name in rows[0].means if all(name in row.means for row in rows)]
    if all(row.task == "rating" for row in rows):
        return "rmse"
    ranked = [name for name in shared if name.startswith("ndcg@") and "_" not in name]
    if not ranked:
        raise RecflowError(f"The models share no nDCG: choose a --metric among {', '.join(shared)}.")
    return "ndcg@10" if "ndcg@10" in ranked else ranked[-1]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below .001"


def _below(value: float) -> str:
    return "below .001" if value < 0.001 else f"at most {value:.3f}"
