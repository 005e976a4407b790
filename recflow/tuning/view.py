"""What is seen of a study while it runs: each trial's end on a line and, on a terminal, the state of all below."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recflow.tuning.report import shown
from recflow.tuning.study import Study
from recflow.tuning.trial_queue import REASON
from recflow.tuning.trials import UNTUNED
from recflow.tuning.winner import choose_winner

_WORDS = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
_COLOURS = {TrialState.COMPLETE: "green", TrialState.PRUNED: "yellow", TrialState.FAIL: "red"}


class StudyView:
    """Shows a study.

    Args:
        study: The study.
        console: Where to.
        deadline: When time is up, in seconds since 1970; may be infinite.
        jobs: How many trials run at once.
    """

    def __init__(self, study: Study, console: Console, deadline: float, jobs: int) -> None:
        self.study, self.console, self.deadline, self.jobs = study, console, deadline, jobs
        self.directions = study.optuna().directions
        self.endless = study.queue.endless
        self._told = {trial.number for trial in [*study.trials, *study.lost] if trial.state.is_finished()}
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.state, console=self.console, refresh_per_second=2, redirect_stderr=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def poll(self) -> None:
        """Tell of the trials that have ended since."""
        for trial in self.study.lost:
            if trial.number not in self._told:
                self._told.add(trial.number)
                why = escape(str(trial.user_attrs[REASON]))
                self.console.print(f"[yellow]trial {trial.number:3} {why}: it is tried again[/]", soft_wrap=True)
        trials = self.study.trials
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                self.console.print(self._line(trial, trials), highlight=False, soft_wrap=not self.console.is_terminal)

    def state(self) -> RenderableType:
        """The live part: how far, how good, how long."""
        trials = self.study.trials
        ended = [trial for trial in trials if trial.state.is_finished()]
        parts: list[RenderableType] = [self._progress(trials, ended)]
        best = choose_winner(trials, self.directions)
        if best is not None:
            parts.append(
                Text.from_markup(f"best   [bold]{self._values(best)}[/]  trial {best.number}: {self._drawn(best)}")
            )
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        parts += [Text.from_markup(f"[dim]now    {self._running(trial)}[/]", overflow="ellipsis") for trial in running]
        return Group(*parts)

    def _progress(self, trials: list[FrozenTrial], ended: list[FrozenTrial]) -> RenderableType:
        counts = [
            f"{sum(trial.state == state for trial in ended)} {word}"
            for state, word in _WORDS.items()
            if state == TrialState.COMPLETE or any(trial.state == state for trial in ended)
        ]
        bar = Table.grid(padding=(0, 1))
        total = None if self.endless else len(trials)
        of = f"{len(ended)}" if total is None else f"{len(ended)}/{total}"
        bar.add_row(
            Text("trials", style="bold"),
            ProgressBar(total=total, completed=len(ended), width=24, pulse=total is None),
            f"{of}  {', '.join(counts)}",
            f"[cyan]{self._left(trials, ended)}[/]",
        )
        return bar

    def _left(self, trials: list[FrozenTrial], ended: list[FrozenTrial]) -> str:
        seconds = [float(trial.user_attrs["seconds"]) for trial in ended if "seconds" in trial.user_attrs]
        left = self.deadline - time.time()
        if seconds and not self.endless:
            left = min(left, (len(trials) - len(ended)) * sum(seconds) / len(seconds) / self.jobs)
        return "" if left == float("inf") else f"about {_duration(max(0.0, left))} left"

    def _line(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> str:
        state = f"[{_COLOURS[trial.state]}]{trial.state.name:8}[/]"
        best = choose_winner([each for each in trials if each.number in self._told], self.directions)
        mark = " [bold green]*[/]" if best is not None and best.number == trial.number else "  "
        what = escape(str(trial.user_attrs.get(REASON, ""))) if trial.state == TrialState.FAIL else self._values(trial)
        seconds = f"{trial.user_attrs['seconds']:.1f} s  " if "seconds" in trial.user_attrs else ""
        untuned = "untuned: " if UNTUNED in trial.user_attrs else ""
        return f"trial {trial.number:3} {state}{mark} {what}  [dim]{seconds}{untuned}{self._drawn(trial)}[/]"

    def _running(self, trial: FrozenTrial) -> str:
        epoch = trial.last_step
        value = f", {trial.intermediate_values[epoch]:.4f}" if epoch is not None else ""
        of = f" of {self.study.plan.max_epochs}" if self.study.plan.max_epochs > 0 else ""
        at = f"epoch {epoch}{of}{value}" if epoch is not None else "beginning"
        return f"trial {trial.number}, {at}: {self._drawn(trial)}"

    def _values(self, trial: FrozenTrial) -> str:
        values = zip(self.study.plan.objectives, trial.values or [], strict=False)
        return "  ".join(f"{name} {value:.4f}" for name, value in values)

    def _drawn(self, trial: FrozenTrial) -> str:
        return escape(shown(trial.params, self.study.plan))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
