"""Runs a published protocol and says whether its figures were reached."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from recflow.atomic import write_text
from recflow.errors import RecflowError
from recflow.evaluation.compare import make_folder
from recflow.evaluation.parts import fit_part
from recflow.evaluation.protocols import Protocol, Verdict, find_protocol
from recflow.evaluation.scores import Row
from recflow.evaluation.selections import TestEachEpoch, chosen_on_test
from recflow.recipes import recipes_folder
from recflow.runs import Run
from recflow.training.configuration import flatten


@dataclass(frozen=True)
class Reproduction:
    """What came of a protocol.

    Args:
        protocol: What was run.
        path: The folder with the runs and ``reproduction.json``.
        runs: One a seed or fold.
    """

    protocol: Protocol
    path: Path
    runs: tuple[Run, ...]

    @property
    def measured(self) -> dict[str, float]:
        """The metrics of the protocol as measured, means over the runs."""
        return {name: self._row.means[name] for name in self.protocol.metrics}

    @property
    def deviations(self) -> dict[str, float]:
        """Sample standard deviations over the runs; none of a single run."""
        return {name: value for name, value in self._row.deviations.items() if name in self.protocol.metrics}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals over users, where a metric is kept by user; none over folds, which test different rows."""
        found = {} if self.protocol.folds else self._row.intervals
        return {name: ends for name, ends in found.items() if name in self.protocol.metrics}

    @cached_property
    def chosen_on_test(self) -> dict[str, float]:
        """The published metrics at the epoch that is best on the test part, by the first of them; means over the runs.

        Empty unless the source chose its epoch so: it is too good to be true, and only comparable with such figures.
        """
        names = list(self.protocol.published)
        found = [chosen_on_test(run, names[0]) for run in self.runs] if self.protocol.chosen_on == "test" else []
        known = [values for values in found if values is not None]
        if len(known) < len(self.runs):
            return {}
        return {name: statistics.fmean(values[name] for values in known) for name in ("epoch", *names)}

    @cached_property
    def _row(self) -> Row:
        return Row(self.protocol.name, self.runs)

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Whether each figure that ours is held to was reached."""
        return {name: self.protocol.verdict(name, self.measured[name]) for name in self.protocol.held_to}

    @property
    def reached(self) -> bool:
        """Whether none of them is short."""
        return "short" not in self.verdicts.values()


def reproduce(name: str, runs_dir: str | Path = "runs", console: Console | None = None) -> Reproduction:
    """Run a protocol, or take what is finished of it.

    Args:
        name: See :func:`~recflow.evaluation.protocols.protocols`.
        runs_dir: Its runs go to ``runs_dir/reproduce/name``.
        console: Where progress is shown; nowhere if None.

    Raises:
        RecflowError: If there is no such protocol, or a fit fails.
    """
    protocol, console = find_protocol(name), console or Console(quiet=True)
    path = Path(runs_dir) / "reproduce" / name
    make_folder(path)
    try:
        with FileLock(path / ".lock", timeout=0):
            runs = _fit_all(protocol, path, Path(runs_dir), console)
    except Timeout as error:
        raise RecflowError(f"{path} is being worked on by another process: wait for it.") from error
    except OSError as error:
        raise RecflowError(f"{path} cannot be written to: {error.strerror}; choose another --runs_dir.") from error
    except KeyboardInterrupt:
        console.print(f"\nbroken off; what is done stays in {path}: the same command goes on", highlight=False)
        raise
    done = Reproduction(protocol, path, runs)
    _write(done)
    return done


def _fit_all(protocol: Protocol, path: Path, runs_dir: Path, console: Console) -> tuple[Run, ...]:
    earlier = {setting: str(reproduce(other, runs_dir, console).runs[0].path) for setting, other in protocol.of.items()}
    given = ["--config", str(recipes_folder() / protocol.recipe), *flatten({**protocol.settings, **earlier})]
    if protocol.folds:
        folds = range(1, protocol.folds + 1)
        parts = [(f"fold-{fold}", [f"--data.folds={protocol.folds}", f"--data.fold={fold}"]) for fold in folds]
    else:
        parts = [
            (f"seed-{seed}", [f"--seed={seed}", *([f"--data.seed={seed}"] if protocol.resplit else [])])
            for seed in protocol.seeds
        ]
    runs = []
    for label, chosen in parts:
        console.print(f"\n[bold]{protocol.name}[/], {label.replace('-', ' ')}", highlight=False)
        also = [TestEachEpoch(path / label)] if protocol.chosen_on == "test" else []
        runs.append(fit_part(path / label, [*given, *chosen], console, callbacks=also))
    return tuple(runs)


def _write(done: Reproduction) -> None:
    content: dict[str, Any] = {
        "protocol": done.protocol.name,
        "what": done.protocol.what,
        "published": dict(done.protocol.published),
        "measured": done.measured,
        "chosen_on_test": done.chosen_on_test,
        "sd": done.deviations,
        "intervals": done.intervals,
        "verdicts": done.verdicts,
        "runs": [run.path.name for run in done.runs],
        "header": done.runs[0].metrics["header"],
    }
    write_text(done.path / "reproduction.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
