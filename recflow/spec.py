"""What a plugin says about its model: a name, a task, and where the code is."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

Task = Literal["ranking", "rating"]


@dataclass(frozen=True)
class ModelSpec:
    """One model, described without importing it.

    Code is named by strings, ``"package.module:Class"``, and loaded on demand: listing plugins stays quick, and a
    plugin whose imports fail is named instead of taking the others down.

    Args:
        name: The name after ``--plugin``: lower-case letters, digits and hyphens; equal to the entry point's name.
        task: ``"ranking"`` (learns from which items a user liked) or ``"rating"`` (predicts stars; ranks too).
        summary: One line for ``recflow plugins``.
        module: The Lightning module, a subclass of one of the bases in :mod:`recflow.training.modules`.
        paper: Where the model comes from, as a URL; empty if nowhere in particular.
        search_space: Optuna distributions by configuration key, ``"package.search:SPACE"``.
        ranker: The model's own :class:`~recflow.ranking.rankers.Ranker`, where none of the built-in ones fits. It
            must live in a file that imports torch and :mod:`recflow.ranking` only.

    Raises:
        ValueError: If a field does not have the form above.
    """

    name: str
    task: Task
    summary: str
    module: str
    paper: str = ""
    search_space: str = ""
    ranker: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name):
            raise ValueError(f"name must be lower-case words joined by hyphens, such as 'bias-mf', got {self.name!r}")
        if self.task not in get_args(Task):
            raise ValueError(f"task must be one of {', '.join(get_args(Task))}, got {self.task!r}")
        for field in ("module", "search_space", "ranker"):
            target = getattr(self, field)
            if (target or field == "module") and not re.fullmatch(r"[\w.]+:\w+", target):
                raise ValueError(f"{field} must read 'package.module:Name', got {target!r}")


def load_object(target: str) -> Any:
    """Import the object that ``"package.module:Name"`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
