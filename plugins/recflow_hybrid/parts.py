"""The parts of a hybrid: finished runs, or plugins that are fitted first."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recflow import RecflowError, Run, load_run, registry
from recflow.data.dataset import Dataset
from recflow.ranking.kinds import kind_of
from recflow.ranking.rankers import Ranker
from recflow.training.fit import check_fit
from recflow.training.warm_start import refuse_other_rows

SETTINGS = ("model", "trainer", "optimizer", "lr_scheduler", "monitor", "patience")


class Part(NamedTuple):
    """A fitted part.

    Attributes:
        plugin: The model's name.
        ranker: What scores.
        kind: What the ranker is saved as.
        liked_from: The rating from which it has learnt from a row; None if it learns from every row.
    """

    plugin: str
    ranker: Ranker
    kind: str
    liked_from: float | None

    @classmethod
    def of(cls, run: Run) -> Part:
        """What a finished run has left behind."""
        ranker, about = run.recommender.ranker, run.recommender.about
        liked_from = None if about["task"] == "rating" else about["relevant_from"]
        return cls(about["plugin"], ranker, kind_of(ranker, about["plugin"]), liked_from)


def refuse_unusable(parts: Sequence[str], settings: Mapping[str, Any], weights: Sequence[float] | None) -> None:
    """Refuse what cannot be an ensemble, whatever the data.

    Raises:
        ValueError: If so.
    """
    if len(parts) < 2:
        raise ValueError(f"parts must be two or more runs or plugins, got {list(parts)}")
    if "hybrid" in parts:
        raise ValueError(
            "parts must not name hybrid itself, which has parts of its own; give the folder of a finished one"
        )
    twice = [part for part, count in Counter(str(Path(part)) for part in parts).items() if count > 1]
    if twice:
        raise ValueError(f"parts must be distinct, got {twice[0]} twice; give runs of different seeds or settings")
    if weights is not None and len(weights) != len(parts):
        raise ValueError(f"weights must be one for each of {len(parts)} parts, got {len(weights)}")
    if weights is not None and not (min(weights) >= 0 and 0 < max(weights) < float("inf")):
        raise ValueError(f"weights must be at least 0, finite and not all 0, got {list(weights)}")
    for name, given in settings.items():
        if name not in parts:
            raise ValueError(f"settings are for parts that are plugins, got some for {name}, which is no part")
        if not isinstance(given, Mapping) or not set(given) <= set(SETTINGS):
            got = ", ".join(given) if isinstance(given, Mapping) else repr(given)
            raise ValueError(f"settings.{name} may hold {', '.join(SETTINGS)}, each as recflow fit takes it, got {got}")


def is_plugin(part: str) -> bool:
    """Whether a part names a plugin; otherwise it is a run's folder."""
    return part in registry.names()


def check_plugin(part: str, settings: Mapping[str, Any], data: Dataset) -> None:
    """Refuse a plugin that cannot be fitted on these data with these settings, before any other is.

    Raises:
        RecflowError: If so.
    """
    try:
        check_fit(part, data, **settings)
    except RecflowError as error:
        raise RecflowError(f"Part {part}: {error}") from error


def check_run(part: str, data: Dataset) -> Run:
    """Find a run that was fitted on these very data.

    Raises:
        RecflowError: If there is none, it has not finished, or it was fitted on anything else.
    """
    run = _find_run(part)
    run.require_finished()
    refuse_other_rows(run, data)
    return run


def _find_run(part: str) -> Run:
    try:
        return load_run(part)
    except RecflowError:
        if Path(part).exists() or Path(part).name != part:
            raise
    known = [name for name in registry.names() if name != "hybrid"]
    close = difflib.get_close_matches(part, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"plugins are: {', '.join(known)}."
    raise RecflowError(f"Part {part!r} is neither a plugin nor the folder of a run; {hint}")


def labels(plugins: Sequence[str]) -> list[str]:
    """One name for each part: its model's, numbered where that comes again.

    >>> labels(["ease", "lightgcn", "ease"])
    ['ease', 'lightgcn', 'ease-2']
    """
    return [
        f"{plugin}-{count}" if (count := plugins[: place + 1].count(plugin)) > 1 else plugin
        for place, plugin in enumerate(plugins)
    ]
