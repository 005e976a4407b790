"""The run folder: everything that a fit leaves behind, complete without the dataset. No Lightning here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from recflow.atomic import write_text
from recflow.errors import RecflowError

if TYPE_CHECKING:
    import polars as pl

    from recflow.exports import Written
    from recflow.ranking.catalog import Id
    from recflow.ranking.recommender import Recommendation, Recommender

CONFIG, METRICS, HISTORY, PER_USER, CURVES = (
    "config.yaml",
    "metrics.json",
    "history.csv",
    "per_user.parquet",
    "curves.png",
)
PER_ITEM, USER_GROUPS = "per_item.parquet", "user_groups.parquet"
PLOTS = "plots"  # pictures of the test, each beside the table that it is drawn from
CROSS_VALIDATION = "cross_validation.json"  # in the folder that holds the runs fold-1 … fold-k

HEADER = "header.json"  # what data a fit was begun on, written before it trains

COMPARABLE = ("dataset", "sha256", "filter", "split", "relevance", "candidates", "start")
"""Entries of a header: numbers of two runs may be compared only where all of these are equal."""


_OF_MANY = {"compare", "reproduce"}  # folders under runs/ that hold the parts of something greater
_LESS_IS_BETTER = {"loss", "rmse", "mae", "mse", "gini", "arp", "miscalibration"}


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric is the better one: errors, losses, inequality and mere popularity.

    >>> lower_is_better("val/rmse"), lower_is_better("gini@10"), lower_is_better("val/ndcg@10")
    (True, True, False)
    """
    return metric.rpartition("/")[2].partition("@")[0] in _LESS_IS_BETTER


class Run:
    """One fitted model and how it came about.

    ==================  ==================================================================================
    ``config.yaml``     the whole configuration, resolved: ``recflow fit --config`` repeats the run
    ``header.json``     what data the fit was begun on: a resumed fit must find the same
    ``metrics.json``    header (data, split, seed, versions …), validation and test metrics, baselines
    ``history.csv``     losses, metrics and seconds by epoch; ``curves.png`` draws them
    ``per_user.parquet``  each test user's metrics; ``user_groups.parquet``: that user's activity, gender and age
    ``per_item.parquet``  each item's popularity, and how often it was recommended
    ``plots/``          pictures of the test, each beside its table: see :mod:`recflow.pictures`
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
        """The resolved configuration.

        Raises:
            RecflowError: If the file cannot be read.
        """
        return read_mapping(self.path / CONFIG)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What was measured: ``header``, ``val``, ``test``, ``baselines`` and more.

        Raises:
            RecflowError: If the run has not finished, or the file cannot be read.
        """
        self.require_finished()
        return read_mapping(self.path / METRICS)

    @cached_property
    def groups(self) -> pl.DataFrame:
        """The test metrics by group of users and of items.

        Returns:
            ``grouping``, ``group``, ``users``, ``small`` (too few users to conclude from) and the metrics, one row a
            group; rules, gaps and worst groups stand in :attr:`metrics` under ``"groups"``.

        Raises:
            RecflowError: If the run has not finished, or was not tested.
        """
        import polars as pl

        if "groups" not in self.metrics:
            raise RecflowError(f"{self.path} has no metrics by group: it was not tested, or by an earlier version.")
        rows = [
            {"grouping": grouping, **{name: row[name] for name in ("group", "users", "small")}, **row["metrics"]}
            for grouping, content in self.metrics["groups"].items()
            for row in content["groups"]
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

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

    def recommend_all(
        self,
        out: str | Path,
        k: int = 10,
        users: Iterable[Id] | None = None,
        *,
        titles: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Written:
        """Write k recommendations for each of many users to a file; memory does not grow with their number.

        Args:
            out: A ``.parquet``, ``.csv`` or ``.jsonl`` file: ``user_id, rank, item_id, score``, users in the order
                given and each one's items best first. An older file is replaced.
            k: How many; who has fewer unseen items left gets those.
            users: User ids of the data, each counted once; all users if None.
            titles: Whether to add the items' titles.
            progress: Called now and then with the number of users done and of all.

        Returns:
            What was written.

        Raises:
            RecflowError: If a user is unknown, k is below 1, or the file cannot be written; then nothing is.
        """
        from recflow.exports import write_recommendations

        return write_recommendations(self.recommender, Path(out), k, users, titles=titles, progress=progress)

    def export_embeddings(self, folder: str | Path, form: Literal["parquet", "tsv"] = "parquet") -> list[Path]:
        """Write the model's vectors for other tools; see :func:`recflow.exports.write_embeddings`.

        Raises:
            RecflowError: If the model has no vectors, or the folder holds anything else.
        """
        from recflow.exports import write_embeddings

        return write_embeddings(self.recommender, Path(folder), form)

    def require_finished(self) -> None:
        """Refuse a run that was broken off.

        Raises:
            RecflowError: If so; the message says how to go on.
        """
        if (self.path / CROSS_VALIDATION).is_file():
            raise RecflowError(
                f"{self.path} holds the runs of a cross-validation: name one, such as {self.path}/fold-1."
            )
        if not self.finished:
            raise RecflowError(f"{self.path} has not finished; go on by: recflow fit --resume {self.path}")

    def write_text(self, name: str, content: str) -> None:
        """Write a file of the run, whole or not at all."""
        write_text(self.path / name, content)


def load_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises:
        RecflowError: If there is none at that path.
    """
    run = Run(path)
    named = Run(Path("runs") / path)  # as `recflow runs list` names them
    if not (run.path / CONFIG).is_file() and (named.path / CONFIG).is_file():
        return named
    if not run.path.exists():
        raise RecflowError(f"{run.path} is no run: it is not there; recflow runs list shows what there is.")
    if not (run.path / CONFIG).is_file():
        newest = newest_run("runs")
        hint = f"the newest run is {newest.path}" if newest else "recflow fit makes one"
        raise RecflowError(f"{run.path} is no run: it holds no {CONFIG}; {hint}.")
    return run


def find_runs(root: str | Path) -> list[Run]:
    """Every run ``root/plugin/dataset/name``, finished or not, and every fold of a cross-validation.

    The folder that holds the folds, ``root/plugin/dataset/name`` too, is not itself a run.
    """
    found = [path.parent for pattern in ("*/*/*", "*/*/*/fold-*") for path in Path(root).glob(f"{pattern}/{CONFIG}")]
    # a name that starts with a dot is on its way in or out
    visible = {path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)}
    return [Run(path) for path in sorted(visible - {path.parent for path in visible})]


def newest_run(root: str | Path) -> Run | None:
    """The finished run under ``root`` that ended last, if there is any; see :func:`find_runs`.

    Parts of comparisons and reproductions, mostly baselines or folds, are taken only if there is no other.
    """
    finished = [run for run in find_runs(root) if run.finished]
    own = [run for run in finished if run.path.relative_to(root).parts[0] not in _OF_MANY]
    finished = own or finished
    return max(finished, key=lambda run: (run.path / METRICS).stat().st_mtime, default=None)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of a run.

    Raises:
        RecflowError: If it cannot be read, or holds anything but names and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise RecflowError(f"{path} cannot be read: {reason}; fit the model again.") from error
    if not isinstance(loaded, dict):
        raise RecflowError(f"{path} is damaged: it holds a {type(loaded).__name__}, not names and values; fit again.")
    return loaded


def create_run(root: str | Path, plugin: str, dataset: str, name: str | None = None) -> Run:
    """Make a new folder ``root/plugin/dataset/name``; without a name, the time is the name.

    Raises:
        RecflowError: If the name is taken or cannot be a folder's name, or the folder cannot be made.
    """
    parent = Path(root) / plugin / (re.sub(r"[^\w.=-]+", "_", dataset).lstrip(".") or "data")
    if name is not None and (not re.fullmatch(r"[\w=-][\w.=-]*", name)):
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
