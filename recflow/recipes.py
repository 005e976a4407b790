"""The recipes that come with recflow: settings that were chosen on validation, by plugin and dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from recflow.errors import RecflowError

_PACKAGE = Path(__file__).parent


def recipes_folder() -> Path:
    """``experiments/``: inside an installed package, beside it in a checkout."""
    inside = _PACKAGE / "experiments"
    return inside if inside.is_dir() else _PACKAGE.parent / "experiments"


def find_recipe(plugin: str, dataset: str) -> Path | None:
    """The recipe of a plugin for a dataset, if there is one."""
    path = recipes_folder() / plugin / f"{dataset}.yaml"
    return path if path.is_file() else None


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe's settings.

    Raises:
        RecflowError: If it cannot be read, or names no plugin.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise RecflowError(f"The recipe {path} cannot be read: {reason}.") from error
    if not isinstance(content, dict) or "plugin" not in content:
        raise RecflowError(f"{path} is no recipe: it names no plugin; see recflow fit --print_config.")
    return content
