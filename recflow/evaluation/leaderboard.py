"""A leaderboard: models on the same test rows, with intervals, tests of every difference, and words for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from recflow.errors import RecflowError
from recflow.evaluation.scores import ERRORS, Row, require_comparable
from recflow.evaluation.significance import FLIPS, LEVEL, Floats, PerUser, holm, paired_test
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
        known = [row for row in finished if np.isfinite(row.means.get(self.metric, np.nan))]
        if not known:
            names = ", ".join(dict.fromkeys(name for row in finished for name in row.means))
            raise RecflowError(f"No model has {self.metric}; there are: {names}.")
        if all(self.metric not in row.per_user(row.users[:1]) for row in known):
            raise RecflowError(f"{self.metric} is no mean over users: choose another --metric to test differences in.")
        sign = 1 if lower_is_better(self.metric) else -1
        self.ranked = sorted(known, key=lambda row: sign * row.means[self.metric])
        self.finished = [*self.ranked, *(row for row in finished if row not in known)]
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

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """The intervals of every row, by its name."""
        return {row.name: row.intervals for row in self.finished}

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """Every two rows that have the metric, in their order: randomisation tests over shared users, Holm-corrected.

        A user counts with the mean over all runs, if there is one in both rows; for errors, once a rating.
        """
        pairs = list(combinations(self.ranked, 2))
        if not pairs:
            return {}
        kept = {row.name: row.per_user(self.users)[self.metric] for row in self.ranked}
        tested = np.stack([_differences(kept[a.name], kept[b.name]) for a, b in pairs], axis=1)
        corrected = holm(paired_test(tested, max(FLIPS, 100 * len(pairs))))
        sign = 1 if lower_is_better(self.metric) else -1
        return {
            (a.name, b.name): Difference(
                *((a.name, b.name) if sign * total <= 0 else (b.name, a.name)),
                abs(a.means[self.metric] - b.means[self.metric]),
                float(p),
            )
            for (a, b), total, p in zip(pairs, tested.sum(axis=0), corrected, strict=True)
        }

    def sentences(self) -> list[str]:
        """What the tests say: one sentence about the best, and one for each row that ties with others."""
        names = [row.name for row in self.ranked]
        if len(names) < 2:
            return []
        said = []
        for place, name in enumerate(names[:-1]):
            found = {other: self.differences[name, other] for other in names[place + 1 :]}
            ties = {other: one.p for other, one in found.items() if not one.told}
            beaten = {other: one.p for other, one in found.items() if one.told and one.better == name}
            if ties:
                listed = ", ".join(f"{other} (p = {_p(p)})" for other, p in ties.items())
                said.append(f"No difference in {self.metric} can be told between {name} and {listed}.")
            if beaten and place == 0:
                others = "every other model" if len(beaten) == len(found) > 1 else ", ".join(beaten)
                better = f"better in {self.metric} than {others}"
                said.append(f"{name} as fitted here is {better} (p {_below(max(beaten.values()))}).")
        if self.metric not in ERRORS and any(row.task == "rating" for row in self.ranked):
            said.append("Models of ratings are made for small errors, not for lists: compare those by --metric rmse.")
        if all(len(row.runs) == 1 for row in self.ranked):
            said.append("One seed each: fitted again with another, models that learn by chance may change places.")
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
        seeds = ", ".join(map(str, sorted({seed for row in self.finished for seed in row.seeds})))
        splits = len({run.metrics["header"]["split"] for run in row.runs})
        return [
            f"{header['dataset']} (sha256 {header['sha256'][:12]}): {header['users']:,} users, {header['items']:,} "
            f"items; filter {header['filter']}; relevant: {header['relevance']}",
            f"{header['split']}{f' and {splits - 1} more splits' if splits > 1 else ''}; {header['candidates']}",
            f"cold in the test part, without a training row: {cold['users']:,} users, {cold['items']:,} items",
            f"seeds {seeds}; {len(self.users):,} users tested; {LEVEL:.0%} intervals: bootstrap over users; "
            "differences: randomisation tests over the same users, Holm-corrected",
        ]


def refuse_unknown_metric(metric: str) -> None:
    """Refuse what cannot be the name of a test metric.

    Raises:
        RecflowError: If so; the message names close ones.
    """
    kinds = ["precision", "recall", "ndcg", "hit", "map", "mrr", "arp", "novelty", "diversity", "miscalibration"]
    kind, _, cutoff = metric.partition("@")
    known = kind in (*kinds, "serendipity", "coverage", "gini") and re.fullmatch(r"\d+(_neg\d+)?", cutoff)
    if not known and metric not in (*ERRORS, "auc"):
        close = difflib.get_close_matches(kind, [*kinds, *ERRORS, "serendipity"], n=1)
        hint = f"did you mean {close[0]}{'' if close[0] in ERRORS else '@10'}?" if close else "such as ndcg@10 or rmse."
        raise RecflowError(f"There is no metric {metric!r}; {hint}")


def _differences(a: PerUser, b: PerUser) -> Floats:
    """Each user's difference, 0 for those whom only one of the two knows, weighted by ratings where those count."""
    shared = (a.counts > 0) & (b.counts > 0)
    weights = a.counts if a.by_ratings else shared.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a.totals / a.counts - b.totals / b.counts) * weights
    return np.where(shared, found, 0.0)


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
