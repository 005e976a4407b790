"""The run folder: everything that a fit leaves behind, complete without the dataset. No Lightning here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recflow.errors import RecflowError

if TYPE_CHECKING:
    import polars as pl

    from recflow.ranking.catalog import Id
    from recflow.ranking.recommender import Recommendation, Recommender

CONFIG, METRICS, HISTORY, PER_USER, CURVES = (
    "config.yaml",
    "metrics.json",
    "history.csv",
    "per_user.parquet",
    "curves.png",
)


class Run:
    """One fitted model and how it came about.

    ==================  ==================================================================================
    ``config.yaml``     the whole configuration, resolved: ``recflow fit --config`` repeats the run
    ``metrics.json``    header (data, split, seed, versions …), validation and test metrics, baselines
    ``history.csv``     losses, metrics and seconds by epoch; ``curves.png`` draws them
    ``per_user.parquet``  each test user's metrics
    ``bundle/``         what recommends: see :mod:`recflow.ranking.bundle`
    ``checkpoints/``    ``best.ckpt`` and ``last.ckpt``; ``tensorboard/``: event files
    ==================  ==================================================================================

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def finished(self) -> bool:
        """Whether the fit came to its end."""
        return (self.path / METRICS).is_file()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        loaded = yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))
        return dict(loaded)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What was measured: ``header``, ``val``, ``test``, ``baselines`` and more."""
        self.require_finished()
        return dict(json.loads((self.path / METRICS).read_text(encoding="utf-8")))

    @cached_property
    def recommender(self) -> Recommender:
        """The bundle, loaded once."""
        from recflow.ranking.recommender import Recommender

        self.require_finished()
        return Recommender.load(self.path / "bundle")

    def recommend(
        self,
        user: Id | None = None,
        like: Sequence[Id] | Mapping[Id, float | None] | None = None,
        k: int = 10,
        *,
        reasons: bool = False,
    ) -> pl.DataFrame:
        """Recommend k items to a known user, or to someone new from a history.

        Args:
            user: A user id of the data.
            like: Item ids or titles that someone new liked, if wished with stars: ``{"Heat (1995)": 4}``.
            k: How many.
            reasons: Whether to add the history items that speak for each recommendation.

        Returns:
            One row an item, best first: ``rank, item_id, title, year, genres, score`` and, if asked, ``because``.

        Raises:
            RecflowError: If a user or item is unknown, or if neither or both of ``user`` and ``like`` are given.
        """
        if (user is None) == (like is None):
            raise RecflowError("Give either a user id or a list of liked items, not both and not neither.")
        if user is not None:
            answer = self.recommender.recommend(user, k, reasons=reasons)
        else:
            assert like is not None
            answer = self.recommender.recommend_for_history(like, k, reasons=reasons)
        return _frame(answer.recommendations, reasons)

    def similar(self, item: Id, k: int = 10) -> pl.DataFrame:
        """The k items most like one, given by id or title; columns as in :meth:`recommend`."""
        return _frame(self.recommender.similar(item, k)[1], reasons=False)

    def require_finished(self) -> None:
        """Refuse a run that was broken off.

        Raises:
            RecflowError: If so; the message says how to go on.
        """
        if not self.finished:
            raise RecflowError(f"{self.path} has not finished; go on by: recflow fit --resume {self.path}")

    def write_text(self, name: str, content: str) -> None:
        """Write a file of the run, whole or not at all."""
        scratch = self.path / f".{name}.tmp"
        scratch.write_text(content, encoding="utf-8")
        os.replace(scratch, self.path / name)


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RecflowError: If there is none at that path.
    """
    run = Run(path)
    if not (run.path / CONFIG).is_file():
        newest = newest_run("runs")
        hint = f"the newest run is {newest.path}" if newest else "recflow fit makes one"
        raise RecflowError(f"{run.path} is no run: it holds no {CONFIG}; {hint}.")
    return run


def newest_run(root: str | Path) -> Run | None:
    """The finished run under ``root/plugin/dataset/name`` that ended last, if there is any."""
    finished = sorted(Path(root).glob(f"*/*/*/{METRICS}"), key=lambda path: path.stat().st_mtime)
    return Run(finished[-1].parent) if finished else None


def create_run(root: str | Path, plugin: str, dataset: str, name: str | None = None) -> Run:
    """Make a new folder ``root/plugin/dataset/name``; without a name, the time is the name.

    Raises:
        RecflowError: If the name is taken or cannot be a folder's name, or the folder cannot be made.
    """
    parent = Path(root) / plugin / re.sub(r"[^\w.=-]+", "_", dataset)
    if name is not None and (not re.fullmatch(r"[\w.=-]+", name) or name in {".", ".."}):
        raise RecflowError(f"A run's name is made of letters, digits, '.', '_', '=' and '-', got {name!r}.")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    names = [name] if name is not None else [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    for chosen in names:
        try:
            (parent / chosen).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RecflowError(
                f"The run folder {parent / chosen} cannot be made: {error.strerror}; choose another --runs_dir."
            ) from error
        return Run(parent / chosen)
    raise RecflowError(
        f"{parent / names[0]} is there already: choose another --name, or go on by --resume {parent / names[0]}."
    )


def _frame(recommendations: Sequence[Recommendation], reasons: bool) -> pl.DataFrame:
    import polars as pl

    columns: dict[str, list[Any]] = {
        "rank": list(range(1, len(recommendations) + 1)),
        "item_id": [found.item.item_id for found in recommendations],
        "title": [found.item.title for found in recommendations],
        "year": [found.item.year for found in recommendations],
        "genres": [list(found.item.genres) for found in recommendations],
        "score": [found.score for found in recommendations],
    }
    schema: dict[str, Any] = {
        "rank": pl.Int64,
        "title": pl.String,
        "year": pl.Int64,
        "genres": pl.List(pl.String),
        "score": pl.Float64,
    }
    if reasons:
        columns["because"] = [list(found.because) for found in recommendations]
        schema["because"] = pl.List(pl.String)
    return pl.DataFrame(columns, schema_overrides=schema)
