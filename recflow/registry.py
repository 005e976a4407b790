"""Finds plugins by their entry points and loads the one that is asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pluggy

from recflow.errors import RecflowError
from recflow.hookspecs import PROJECT, Hooks
from recflow.spec import ModelSpec, load_object


@dataclass(frozen=True)
class Listed:
    """One line of ``recflow plugins``: a model's description, or why it cannot be had."""

    name: str
    owner: str
    spec: ModelSpec | None = None
    problem: str = ""


def names() -> list[str]:
    """The names of all installed plugins, sorted; nothing is imported."""
    return sorted({entry.name for entry in metadata.entry_points(group=PROJECT)})


def load(name: str) -> ModelSpec:
    """Load one plugin, and no other.

    Raises:
        RecflowError: If no plugin has that name, several do, or the one that does cannot be loaded.
    """
    entries = _owners(name)
    if not entries:
        known = names()
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "pip install the package that brings it."
        raise RecflowError(f"There is no plugin {name!r}; {hint} Installed are: {', '.join(known)}.")
    if len(entries) > 1:
        owners = " and ".join(_describe(entry) for entry in entries)
        raise RecflowError(f"Plugin {name!r} has {len(entries)} owners: {owners}; uninstall all but one of them.")

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    try:
        manager.load_setuptools_entrypoints(PROJECT, name=name)
        manager.check_pending()
        specs = manager.hook.recflow_model()
    except (Exception, SystemExit) as error:  # whatever a stranger's import raises is told in one line
        raise RecflowError(f"Plugin {name!r} ({_describe(entries[0])}) cannot be loaded: {_one_line(error)}") from error
    if len(specs) != 1 or not isinstance(specs[0], ModelSpec):
        got = ", ".join(type(spec).__name__ for spec in specs) or "nothing"
        raise RecflowError(
            f"Plugin {name!r} ({_describe(entries[0])}) must return one ModelSpec from recflow_model(), got {got}."
        )
    spec = specs[0]
    if spec.name != name:
        raise RecflowError(
            f"Plugin {name!r} ({_describe(entries[0])}) calls its model {spec.name!r}; "
            "the entry point and the ModelSpec must agree."
        )
    return spec


def listing() -> list[Listed]:
    """Every installed plugin, those that cannot be loaded included, with the reason."""
    listed = []
    for name in names():
        owner = " and ".join(sorted({_owner(entry) for entry in _owners(name)}))
        try:
            listed.append(Listed(name, owner, spec=load(name)))
        except RecflowError as error:
            listed.append(Listed(name, owner, problem=str(error)))
    return listed


def load_target(spec: ModelSpec, field: str) -> Any:
    """Import what ``spec.module``, ``spec.ranker`` or ``spec.search_space`` names.

    Raises:
        RecflowError: If the import fails.
    """
    target = getattr(spec, field)
    if not target:
        raise RecflowError(f"Plugin {spec.name!r} names no {field}.")
    try:
        return load_object(target)
    except Exception as error:  # as in load(): a stranger's import may raise anything
        raise RecflowError(
            f"Plugin {spec.name!r}: its {field} {target!r} cannot be imported: {_one_line(error)}"
        ) from error


def _owners(name: str) -> list[metadata.EntryPoint]:
    return list(metadata.entry_points(group=PROJECT, name=name))


def _owner(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _describe(entry: metadata.EntryPoint) -> str:
    return f"{entry.value} from {_owner(entry)}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
