"""recflow: from ratings to a served recommender.

The public names are imported on first use, so that ``import recflow`` stays instant and a plugin's package, which
needs only :class:`ModelSpec` and :data:`hookimpl`, never pulls in torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recflow.errors import RecflowError
    from recflow.evaluation.compare import compare, compare_runs
    from recflow.evaluation.publish import publish
    from recflow.evaluation.report import report
    from recflow.evaluation.reproduce import reproduce
    from recflow.hookspecs import Plugin, hookimpl
    from recflow.runs import Run, load_run
    from recflow.spec import ModelSpec
    from recflow.training.fit import fit
    from recflow.training.folds import CrossValidation, cross_validate
    from recflow.tuning.finish import Tuned
    from recflow.tuning.tune import tune

__version__ = "0.1.0"

_HOMES = {
    "CrossValidation": "recflow.training.folds",
    "ModelSpec": "recflow.spec",
    "Plugin": "recflow.hookspecs",
    "RecflowError": "recflow.errors",
    "Run": "recflow.runs",
    "Tuned": "recflow.tuning.finish",
    "compare": "recflow.evaluation.compare",
    "compare_runs": "recflow.evaluation.compare",
    "cross_validate": "recflow.training.folds",
    "fit": "recflow.training.fit",
    "hookimpl": "recflow.hookspecs",
    "load_run": "recflow.runs",
    "publish": "recflow.evaluation.publish",
    "report": "recflow.evaluation.report",
    "reproduce": "recflow.evaluation.reproduce",
    "tune": "recflow.tuning.tune",
}

__all__ = [
    "CrossValidation",
    "ModelSpec",
    "Plugin",
    "RecflowError",
    "Run",
    "Tuned",
    "compare",
    "compare_runs",
    "cross_validate",
    "fit",
    "hookimpl",
    "load_run",
    "publish",
    "report",
    "reproduce",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recflow' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
