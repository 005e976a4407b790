"""Which bundles are served: those that are named, or else the newest that was packaged, or else the newest run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from recflow.errors import RecflowError
from recflow.runs import Run, newest_run
from recflow.serving import store

BUNDLE = "RECFLOW_BUNDLE"
CHECKED = "RECFLOW_BUNDLE_CHECKED"  # what `recflow serve` has tried already, lest BentoML's process does so again


def find_bundles() -> tuple[list[Path], str]:
    """The folders of the bundles to serve, and a few words on why these.

    Raises:
        RecflowError: If what ``RECFLOW_BUNDLE`` names is not there, or if it names nothing and there is nothing else.
    """
    if named := os.environ.get(BUNDLE, "").strip():
        return [_folder(name) for name in _split(named)], f"named by {BUNDLE}"
    latest = f"{store.NAME}:latest"
    if (packaged := store.find(latest)) is not None:
        return [packaged], f"{store.NAME}:{packaged.name}, the newest in BentoML's model store"
    if (newest := newest_run("runs")) is not None:
        return [newest.path / "bundle"], f"{newest.path}, the newest run"
    raise RecflowError(
        f"There is nothing to serve: set {BUNDLE} to a run folder or to its bundle/, "
        "or make a run by: recflow fit --plugin lightgcn"
    )


def join(folders: Sequence[Path]) -> str:
    """The value of ``RECFLOW_BUNDLE`` that names just these folders."""
    return json.dumps([str(folder.resolve()) for folder in folders])


def _split(named: str) -> list[str]:
    """Paths and tags, separated by commas or as in PATH, or a JSON list of them.

    >>> _split("runs/a, recflow:abc"), _split("/x/a:/x/b"), _split('["a,b"]')
    (['runs/a', 'recflow:abc'], ['/x/a', '/x/b'], ['a,b'])
    """
    if named.startswith("["):
        try:
            return [str(name) for name in json.loads(named)]
        except ValueError as error:
            raise RecflowError(f"{BUNDLE} starts like a JSON list and is none: {error}.") from error
    names = []
    for part in filter(None, (part.strip() for part in named.split(","))):
        whole = Path(part).exists() or re.fullmatch(r"[a-z0-9._-]+:[a-z0-9._-]+", part)
        names += [part] if whole else [piece for piece in part.split(os.pathsep) if piece]
    return names


def _folder(name: str) -> Path:
    folder = Path(name)
    if not folder.exists():
        if (packaged := store.find(name)) is not None:
            return packaged
        raise RecflowError(
            f"{BUNDLE} names {name!r}: there is no such folder, nor such a tag in BentoML's model store; "
            "`bentoml models list` shows what is there."
        )
    return folder / "bundle" if Run(folder).finished else folder
