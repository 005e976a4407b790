"""BentoML's model store: where `recflow package` puts a bundle, and where the service finds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # read when bentoml is imported

import bentoml
from bentoml.exceptions import BentoMLException, NotFound

from recflow.errors import RecflowError

NAME = "recflow"
CARD = "README.md"  # the model card, beside the bundle's own files


def put(bundle: Path, card: str, *, name: str = NAME, labels: Mapping[str, str], histories: bool = True) -> str:
    """Copy a bundle into the store.

    Args:
        bundle: The bundle's folder; it is checked first.
        card: The model card, in Markdown.
        name: What the store calls it; every packing is a new version.
        labels: What ``bentoml models list`` filters by.
        histories: Whether to take along what users have rated.

    Returns:
        The tag, ``name:version``.

    Raises:
        RecflowError: If the bundle cannot be used, the name cannot be a tag, or the histories cannot be left out.
    """
    from recflow.ranking.bundle import copy_bundle  # and torch: who only looks for a bundle does without

    try:
        with bentoml.models.create(name, labels=dict(labels)) as model:
            folder = Path(model.path)
            copy_bundle(bundle, folder, histories=histories)
            (folder / CARD).write_text(card, encoding="utf-8")
        return str(model.tag)
    except (BentoMLException, ValueError, OSError) as error:
        raise RecflowError(f"{name!r} cannot be put into BentoML's model store: {error}") from error


def find(tag: str) -> Path | None:
    """The folder of a stored bundle; None if there is none of that tag."""
    try:
        return Path(bentoml.models.get(tag).path)
    except (NotFound, ValueError):
        return None
