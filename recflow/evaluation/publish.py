"""A leaderboard's files: Markdown, CSV, Parquet, pictures, and one page that holds everything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from recflow.atomic import replacing, write_text
from recflow.evaluation.compare import make_folder
from recflow.evaluation.leaderboard import Leaderboard
from recflow.evaluation.page import Picture, Table, write_page
from recflow.evaluation.pictures import plot_costs, plot_differences, plot_intervals
from recflow.evaluation.scores import Row

SHOWN = ("rmse", "mae", "ndcg", "recall", "hit", "mrr", "coverage", "novelty")
"""The metrics of the short table; the files have all of them."""


def publish(board: Leaderboard, folder: Path) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv``, ``.parquet``, ``.html`` and three pictures.

    Args:
        board: What to write.
        folder: Where to; it is made, and older files are replaced.

    Returns:
        What was written, the page first.
    """
    make_folder(folder)
    table = board.table()
    with replacing(folder / "leaderboard.parquet") as path:
        table.write_parquet(path)
    write_text(folder / "leaderboard.csv", table.write_csv())
    write_text(folder / "leaderboard.md", markdown(board))
    drawn = {"intervals": plot_intervals, "costs": plot_costs}
    if board.differences:
        drawn["differences"] = plot_differences
    pictures = []
    for name, plot in drawn.items():
        plot(folder / f"{name}.png", board)
        pictures.append(Picture(folder / f"{name}.png", name))
    write_page(
        folder / "leaderboard.html",
        title=f"{board.header['dataset']}: {len(board.finished)} models compared",
        lead=board.sentences(),
        small=board.protocol(),
        tables=[Table("Leaderboard", *short_table(board)), *_full_tables(board)],
        pictures=pictures,
    )
    names = ["leaderboard.html", "leaderboard.md", "leaderboard.csv", "leaderboard.parquet"]
    return [folder / name for name in names] + [picture.path for picture in pictures]


def markdown(board: Leaderboard) -> str:
    """The short table, what the tests say, and the protocol."""
    head, body = short_table(board)
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|"]
    lines += ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in body]
    lines += ["", *(f"- {sentence}" for sentence in board.sentences())]
    lines += ["", *(f"*{line}*  " for line in board.protocol())]
    return "\n".join(lines) + "\n"


def short_table(board: Leaderboard) -> tuple[list[str], list[list[str]]]:
    """The leaderboard as people read it: heads and cells, best first."""
    names = shown_metrics(board)
    head = ["model", *names, "train s", "test s", "parameters", "settings"]
    body = [
        [
            row.name,
            *(_cell(board, row, name) for name in names),
            f"{row.train_seconds:.3g}",
            f"{row.test_seconds:.3g}",
            f"{row.parameters:,}",
            row.recipe,
        ]
        for row in board.finished
    ]
    body += [[row.name, f"failed: {row.problem}", *[""] * (len(head) - 2)] for row in board.failed]
    return head, body


def shown_metrics(board: Leaderboard) -> list[str]:
    """The chief metric, then one of each kind at its cut-off."""
    cutoff = board.metric.partition("@")[2] or "10"
    wanted = [name if name in ("rmse", "mae") else f"{name}@{cutoff}" for name in SHOWN]
    return list(dict.fromkeys([board.metric, *(name for name in wanted if name in board.metrics)]))


def _cell(board: Leaderboard, row: Row, name: str) -> str:
    """A value: the chief metric's with its deviation over seeds and its interval."""
    if name not in row.means:
        return "–"
    if name != board.metric:
        return f"{row.means[name]:.4f}"
    spread = f" ± {row.deviations[name]:.4f}" if name in row.deviations else ""
    ends = board.intervals[row.name].get(name)
    return f"{row.means[name]:.4f}{spread}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")


def _full_tables(board: Leaderboard) -> Sequence[Table]:
    """Every metric with its interval, one table."""
    names = board.metrics
    body = [[name, *(_with_interval(board, row, name) for row in board.finished)] for name in names]
    return [Table("All metrics", ["metric", *(row.name for row in board.finished)], body)]


def _with_interval(board: Leaderboard, row: Row, name: str) -> str:
    if name not in row.means:
        return "–"
    ends = board.intervals[row.name].get(name)
    return f"{row.means[name]:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends else "")


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return re.sub(r"([|<>*_`\\])", r"\\\1", text)
