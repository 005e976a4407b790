"""``recflow runs clean``: deletes run folders, and nothing else."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from recflow.cli.runs_list import Entry, plain_table, read_entries, when
from recflow.errors import RecflowError
from recflow.runs import CONFIG, CROSS_VALIDATION, lower_is_better

_CHECKPOINTS = ("best.ckpt", "last.ckpt")


@dataclass(frozen=True)
class Selection:
    """Which runs are to go: those that all of the given conditions fit.

    Attributes:
        older_than: Seconds since a run ended or was last written to.
        broken: Only what has not finished or is damaged.
        keep_best: Only finished runs beyond the best N of their model, data and split, on the validation part.
        checkpoints: Only the checkpoints of finished runs.
    """

    older_than: float | None = None
    broken: bool = False
    keep_best: int | None = None
    checkpoints: bool = False

    def check(self) -> None:
        """Refuse what selects nothing or contradicts itself.

        Raises:
            RecflowError: If so.
        """
        if self == Selection():
            raise RecflowError("Say what may go: --older-than 7d, --broken, --keep-best N or --checkpoints.")
        if self.broken and (self.checkpoints or self.keep_best is not None):
            raise RecflowError(
                "--broken selects unfinished runs, --keep-best and --checkpoints finished ones: not both."
            )

    def of(self, entries: list[Entry]) -> list[Entry]:
        """The entries that fit."""
        if self.broken:
            entries = [entry for entry in entries if entry.state != "finished"]
        elif self.keep_best is not None or self.checkpoints:
            entries = [entry for entry in entries if entry.state == "finished"]
        if self.keep_best is not None:
            entries = _beyond_the_best(entries, self.keep_best)
        if self.older_than is None:  # whoever gives an age has thought of what is still training
            return [entry for entry in entries if not entry.fresh]
        return [entry for entry in entries if time.time() - entry.ended >= self.older_than]


def clean_runs(console: Console, root: Path, selection: Selection, *, sure: bool) -> None:
    """Show what would go, ask, and delete it.

    Args:
        console: Where to show it.
        root: The folder of all runs.
        selection: What is to go.
        sure: Whether to delete without asking; without a terminal to ask at, nothing else does.

    Raises:
        RecflowError: If nothing is selected, or something cannot be deleted.
    """
    selection.check()
    entries = read_entries(root)
    chosen = [(entry, list(_paths(entry, selection.checkpoints))) for entry in selection.of(entries)]
    chosen = [(entry, paths) for entry, paths in chosen if paths and _is_inside(entry.path, root)]
    if selection.broken and selection.older_than is None and any(entry.fresh for entry in entries):
        console.print("left alone: unfinished runs written to within the last hour; --older-than 0m takes them, too")
    if not chosen:
        console.print("Nothing fits: nothing was deleted.")
        return
    total = _show(console, chosen, root)
    what = f"{'the checkpoints of ' if selection.checkpoints else ''}{len(chosen):,} run{'s' * (len(chosen) != 1)}"
    if not sure and not sys.stdin.isatty():
        console.print(f"\nNothing was deleted: add --yes to delete {what}, {decimal(total)}.")
        return
    if not sure and console.input(f"\nDelete {what}, {decimal(total)}? \\[y/N] ").strip().lower() not in {"y", "yes"}:
        console.print("Nothing was deleted.")
        return
    for _, paths in chosen:
        for path in paths:
            _delete(path)
    for entry, _ in chosen:
        _remove_empty(entry.path, root)
    console.print(f"\nDeleted {what}, {decimal(total)}.")


def _beyond_the_best(entries: list[Entry], keep: int) -> list[Entry]:
    """What follows the best N of each kind; what has no validation metric cannot be judged, and stays."""
    kinds: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if _validation(entry) is not None:
            kinds.setdefault((entry.plugin, entry.monitor, *entry.comparable), []).append(entry)
    beyond = []
    for kind in kinds.values():
        sign = 1 if lower_is_better(kind[0].monitor) else -1
        beyond += sorted(kind, key=lambda entry: sign * (_validation(entry) or 0.0))[keep:]
    return [entry for entry in entries if entry in beyond]


def _validation(entry: Entry) -> float | None:
    return entry.value(entry.monitor) if entry.monitor else None


def _paths(entry: Entry, checkpoints: bool) -> Iterator[Path]:
    """What goes with an entry: folders and files that recflow made."""
    for run in entry.runs:
        if checkpoints:
            files = (file for name in _CHECKPOINTS for file in run.path.glob(f"**/checkpoints/{name}"))  # of parts, too
            yield from (file for file in files if file.is_file())
        elif (run.path / CONFIG).is_file():
            yield run.path
    if not checkpoints and entry.runs[0].path != entry.path:  # the folder of a cross-validation: its own files only
        yield from (file for name in (CROSS_VALIDATION, CONFIG) if (file := entry.path / name).is_file())


def _is_inside(path: Path, root: Path) -> bool:
    """Whether no link leads out of the runs' folder."""
    return path.resolve() == root.resolve() / path.relative_to(root)


def _show(console: Console, chosen: list[tuple[Entry, list[Path]]], root: Path) -> int:
    table = plain_table("[bold]what would go[/]")
    table.add_column("run", overflow="fold")
    table.add_column("ended", style="dim", no_wrap=True)
    table.add_column("state")
    table.add_column("size", justify="right", no_wrap=True)
    total = 0
    for entry, paths in chosen:
        size = sum(map(_size, paths))
        total += size
        table.add_row(escape(str(entry.path.relative_to(root))), when(entry.ended), entry.state, decimal(size))
    console.print(table)
    return total


def _size(path: Path) -> int:
    files: Iterable[Path] = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() or file.is_symlink())


def _delete(path: Path) -> None:
    try:
        if path.is_dir():
            doomed = path.with_name(f".{path.name}.deleted")  # renamed first: half a run is never seen
            shutil.rmtree(doomed, ignore_errors=True)  # what an interrupted deletion has left
            os.replace(path, doomed)
            shutil.rmtree(doomed)
        else:
            path.unlink()
    except OSError as error:
        raise RecflowError(f"{path} cannot be deleted: {error.strerror}; what is listed before it is gone.") from error


def _remove_empty(path: Path, root: Path) -> None:
    """Remove the folders around what was deleted, as far as nothing else is in them."""
    with suppress(OSError):
        for folder in (path, *path.parents):
            if folder == root:
                break
            if folder.is_dir():
                folder.rmdir()
