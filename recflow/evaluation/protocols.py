"""Published figures with their protocols, as data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from recflow.errors import RecflowError
from recflow.runs import lower_is_better

Verdict = Literal["reached", "within tolerance", "short"]


@dataclass(frozen=True)
class Protocol:
    """A published figure, and how to arrive at it.

    Args:
        name: What ``recflow reproduce`` knows it by.
        what: Model, data and protocol, in words.
        paper: Where the model comes from.
        figures: Where the figures stand; empty where nobody has published any.
        code: The reference code.
        recipe: Ours, under ``experiments/``.
        published: Test metrics as printed there.
        minutes: How long ours takes, about, on two cores.
        settings: What is changed of the recipe.
        of: Protocols to run first, whose run folders become settings.
        seeds: One fit each.
        resplit: Whether each seed splits the data anew.
        folds: One fit each, instead of seeds; 0 for none.
        tolerance: How far short of a figure still counts as within tolerance; 0 where nothing is said.
        target: What recflow holds itself to where that is stricter than the published figure, or where there is none.
        ours: What recflow measured before.
        chosen_on: ``test`` where the source chose its epoch on the test part.
        note: How the source's protocol differs from ours; empty if it does not.
    """

    name: str
    what: str
    paper: str
    figures: str
    code: str
    recipe: str
    published: Mapping[str, float]
    minutes: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    of: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = (42,)
    resplit: bool = False
    folds: int = 0
    tolerance: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    ours: Mapping[str, float] = field(default_factory=dict)
    chosen_on: Literal["test"] | None = None
    note: str = ""

    @property
    def metrics(self) -> list[str]:
        """The published metrics, then those of our own aims."""
        return list(dict.fromkeys([*self.published, *self.target]))

    @property
    def held_to(self) -> Mapping[str, float]:
        """What ours is judged by: own targets, else the published figures that have a tolerance, or all if none has."""
        return self.target or {name: self.published[name] for name in self.tolerance or self.published}

    def verdict(self, metric: str, measured: float) -> Verdict:
        """Whether a figure was reached, rounded to four digits as the published ones are."""
        ahead = round(measured - self.held_to[metric], 4)
        if lower_is_better(metric):
            ahead = -ahead
        if ahead >= 0:
            return "reached"
        return "within tolerance" if ahead >= -round(self.tolerance.get(metric, 0.0), 4) else "short"


@cache
def protocols() -> Mapping[str, Protocol]:
    """All of them, by name."""
    content = yaml.safe_load((files("recflow.evaluation") / "protocols.yaml").read_text(encoding="utf-8"))
    return {name: Protocol(name=name, **entry) for name, entry in content.items()}


def find_protocol(name: str) -> Protocol:
    """One of them.

    Raises:
        RecflowError: If there is none of that name.
    """
    if name not in protocols():
        close = difflib.get_close_matches(name, protocols(), n=1)
        hint = f"did you mean {close[0]}?" if close else "recflow reproduce --list shows them."
        raise RecflowError(f"There is no protocol {name!r}; {hint}")
    return protocols()[name]
