"""A fitted model in bulk, as files for other tools: recommendations for every user, and the vectors it learnt.

Everything is written beside and then renamed: whoever reads a file finds the older one or the whole new one.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Full, Queue
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from polars.io.plugins import register_io_source
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.catalog import Id, Item
from recflow.ranking.rankers import FactorRanker
from recflow.ranking.recommender import Recommender
from recflow.ranking.topk import TopK

SINKS: dict[str, Callable[..., Any]] = {
    ".parquet": pl.LazyFrame.sink_parquet,
    ".csv": pl.LazyFrame.sink_csv,
    ".jsonl": pl.LazyFrame.sink_ndjson,
}
_EMBEDDINGS = {"parquet": ("users.parquet", "items.parquet"), "tsv": ("vectors.tsv", "metadata.tsv")}


class Written(NamedTuple):
    """What :func:`write_recommendations` wrote.

    Attributes:
        path: The file.
        users: Users that were asked for, each counted once.
        rows: Recommendations.
        repeated: How often a user was named again.
        exhausted: Users without a row: they have interacted with every item.
        seconds: From the first score to the finished file.
    """

    path: Path
    users: int
    rows: int
    repeated: int
    exhausted: int
    seconds: float


def write_recommendations(
    recommender: Recommender,
    out: Path,
    k: int = 10,
    users: Iterable[Id] | None = None,
    *,
    titles: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write k recommendations for each of many users; see :meth:`recflow.runs.Run.recommend_all`."""
    _check_out(out)
    catalog = recommender.catalog
    if users is None:
        asked, repeated = torch.arange(recommender.ranker.num_users), 0
    else:
        named = np.array(catalog.users(users), dtype=np.int64)
        first = np.unique(named, return_index=True)[1]
        asked, repeated = torch.from_numpy(named[np.sort(first)]), len(named) - len(first)
    if len(asked) == 0:
        raise RecflowError("No user is named: give at least one user id, or 'all'.")
    columns = {"item_id": pl.Series(catalog.item_ids())}
    if titles:
        columns["title"] = pl.Series([item.title for item in catalog.items(range(recommender.ranker.num_items))])
    started, done, rows, served = time.perf_counter(), 0, 0, 0
    chunks = recommender.recommend_many(asked, k)
    with _written_beside(out) as scratch, _FrameWriter(scratch) as writer:
        for chunk, best in chunks:
            frame = _frame(pl.Series(catalog.user_ids(chunk.tolist())), best, columns)
            writer.write(frame)
            done, rows = done + len(chunk), rows + len(frame)
            served += int((best.items[:, 0] >= 0).sum())
            if progress is not None:
                progress(done, len(asked))
    return Written(out, done, rows, repeated, done - served, time.perf_counter() - started)


def write_embeddings(recommender: Recommender, folder: Path, form: Literal["parquet", "tsv"] = "parquet") -> list[Path]:
    """Write the vectors of a factor model: ``score = mean + bias(user) + bias(item) + <vector(user), vector(item)>``.

    Args:
        recommender: The fitted model.
        folder: Where to; an older export of the same form is replaced.
        form: ``"parquet"``: ``users.parquet`` (user_id, vector, bias) and ``items.parquet`` (item_id, title, year,
            genres, vector, bias); ``"tsv"``: the items for TensorBoard's projector, ``vectors.tsv`` and
            ``metadata.tsv``.

    Returns:
        The files.

    Raises:
        RecflowError: If the model has no vectors, or the folder holds anything else.
    """
    ranker, catalog = recommender.ranker, recommender.catalog
    if not isinstance(ranker, FactorRanker) or ranker.item_factors.shape[1] == 0:
        raise RecflowError(
            f"{recommender.about['plugin']} has no vector per user and item to export; models such as lightgcn have."
        )
    names = _EMBEDDINGS[form]
    if folder.exists() and (not folder.is_dir() or not {path.name for path in folder.iterdir()} <= {*names}):
        raise RecflowError(f"{folder} holds something else than {' and '.join(names)}; name a new folder.")
    items = catalog.items(range(ranker.num_items))
    with _written_beside(folder) as scratch:
        scratch.mkdir()
        if form == "tsv":
            _write_projector(scratch, ranker, items)
        else:
            users = pl.Series("user_id", catalog.user_ids()).to_frame()
            users.with_columns(*_vectors(*_users(recommender, ranker))).write_parquet(scratch / "users.parquet")
            about = _about(items).with_columns(*_vectors(ranker.item_factors, ranker.item_bias))
            about.write_parquet(scratch / "items.parquet")
    return [folder / name for name in names]


def _check_out(out: Path) -> None:
    if out.suffix not in SINKS:
        raise RecflowError(f"Recommendations go to a file that ends in {', '.join(SINKS)}, got {str(out)!r}.")
    if not out.parent.is_dir():
        raise RecflowError(f"There is no folder {out.parent} to write {out.name} to; make it first.")
    if out.is_dir():
        raise RecflowError(f"{out} is a folder; name a file.")


def _frame(user_ids: pl.Series, best: TopK, columns: dict[str, pl.Series]) -> pl.DataFrame:
    items, scores = best.items.numpy(), best.scores.numpy()  # [chunk, k]
    row, place = np.nonzero(items >= 0)
    chosen = items[row, place]
    return pl.DataFrame(
        {
            "user_id": user_ids.gather(row),
            "rank": (place + 1).astype(np.int32),
            **{name: values.gather(chosen) for name, values in columns.items()},
            "score": scores[row, place],
        }
    )


class _FrameWriter:
    """Writes frames to one file, a few at a time.

    Polars' sinks pull frames, and a Ctrl-C reaches Python twice where one runs. So the sink runs in a thread of its own
    and pulls from a short queue, while the caller's thread makes the frames and is the one that is interrupted.

    Args:
        path: A new file; its suffix says what it will be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: Queue[pl.DataFrame | None] = Queue(maxsize=2)
        self._pool = ThreadPoolExecutor(1)
        self._sink: Future[Any] | None = None

    def __enter__(self) -> _FrameWriter:
        return self

    def write(self, frame: pl.DataFrame) -> None:
        """Hand a frame over; waits while the sink is behind.

        Raises:
            RecflowError: If the sink has failed.
        """
        if self._sink is None:
            lazy = register_io_source(lambda *_: self._frames(), schema=frame.schema)
            self._sink = self._pool.submit(SINKS[self._path.suffix], lazy, self._path)
        self._put(frame)
        _take_ctrl_c_back()

    def __exit__(self, *_: object) -> None:
        if self._sink is not None:
            self._put(None)
            self._raise_failure(self._sink)
        self._pool.shutdown(wait=False)

    def _frames(self) -> Iterator[pl.DataFrame]:
        while (frame := self._queue.get()) is not None:
            yield frame

    def _put(self, frame: pl.DataFrame | None) -> None:
        assert self._sink is not None
        while True:
            try:
                return self._queue.put(frame, timeout=0.1)
            except Full:
                if self._sink.done():  # nobody will ever take it
                    self._raise_failure(self._sink)

    def _raise_failure(self, sink: Future[Any]) -> None:
        try:
            sink.result()
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise RecflowError(f"The recommendations cannot be written: {reason}") from error


@torch.inference_mode()
def _users(recommender: Recommender, ranker: FactorRanker) -> tuple[Tensor, Tensor]:
    """Users' vectors and biases; of those whom the model was not trained on, what recommending folds in."""
    vectors, biases = ranker.user_factors.clone(), ranker.user_bias.clone()
    untrained, tastes = recommender.bundle.untrained, recommender.tastes
    if len(untrained) and tastes is not None:
        biases[untrained], vectors[untrained] = ranker.fold_in_vectors(tastes, untrained)
    return vectors, biases


def _take_ctrl_c_back() -> None:
    """Give SIGINT to Python again: polars' own handler, set while a sink runs, makes threads panic on the screen."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))


def _about(items: list[Item]) -> pl.DataFrame:
    columns = {
        "item_id": [item.item_id for item in items],
        "title": [item.title for item in items],
        "year": [item.year for item in items],
        "genres": [list(item.genres) for item in items],
    }
    return pl.DataFrame(columns, schema_overrides={"year": pl.Int32, "genres": pl.List(pl.String)})


def _vectors(factors: torch.Tensor, bias: torch.Tensor) -> Iterator[pl.Series]:
    yield pl.Series("vector", factors.numpy(), dtype=pl.Array(pl.Float32, factors.shape[1]))
    yield pl.Series("bias", bias.numpy())


def _write_projector(folder: Path, ranker: FactorRanker, items: list[Item]) -> None:
    vectors = pl.DataFrame(ranker.item_factors.numpy())
    vectors.write_csv(folder / "vectors.tsv", separator="\t", include_header=False)
    about = _about(items).select(
        pl.col("title"), pl.col("year"), pl.col("genres").list.join("|"), pl.col("item_id").cast(pl.String)
    )
    plain = about.with_columns(pl.col(pl.String).str.replace_all(r"[\t\r\n]+", " "))  # the projector knows no quotes
    plain.write_csv(folder / "metadata.tsv", separator="\t", quote_style="never")


@contextmanager
def _written_beside(final: Path) -> Iterator[Path]:
    """The path of a new file or folder that replaces `final` when the block ends well, and else vanishes.

    Raises:
        RecflowError: If nothing can be written there.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".new-", dir=final.parent))
    except OSError as error:
        raise RecflowError(f"{final} cannot be written: {error.strerror}.") from error
    try:
        yield aside / final.name
        if final.is_dir():
            os.replace(final, aside / "older")
        os.replace(aside / final.name, final)
    except BaseException:
        if (aside / "older").exists():
            os.replace(aside / "older", final)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
