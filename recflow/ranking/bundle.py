"""The bundle: the one saved form of a fitted model, which the command line and the service read.

A folder of safetensors, JSON and SQLite, never pickle: ``bundle.json`` names the ranker, its settings, the format's
version and the SHA-256 of every other file; all are checked before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.catalog import Catalog, Id, Item, write_catalog
from recflow.ranking.histories import Histories
from recflow.ranking.kinds import kind_of, ranker_class
from recflow.ranking.rankers import Ranker

FORMAT_VERSION = 1
_MANIFEST, _WEIGHTS, _HISTORIES, _CATALOG = (
    "bundle.json",
    "weights.safetensors",
    "histories.safetensors",
    "catalog.sqlite",
)

_UNTRAINED = "untrained"  # beside the histories, without which nobody can be folded in


@dataclass(frozen=True)
class Bundle:
    """A fitted model with all that is needed to recommend by it.

    Attributes:
        ranker: Scores items.
        histories: What each user is known to have interacted with, and never gets recommended; may be left out.
        catalog: Raw ids and titles.
        about: Plugin, task, data, metrics and the like, as JSON values.
        untrained: Indices of users whom the model has not been trained on, int64, ascending: they are folded in from
            their histories.
    """

    ranker: Ranker
    histories: Histories | None
    catalog: Catalog
    about: dict[str, Any]
    untrained: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


def save_bundle(
    folder: Path,
    *,
    plugin: str,
    ranker: Ranker,
    histories: Histories | None,
    items: Iterable[Item],
    user_ids: Iterable[Id],
    about: dict[str, Any],
    untrained: Tensor | None = None,
) -> None:
    """Write a bundle, whole or not at all; an older one in the same place is replaced. See :class:`Bundle`.

    Raises:
        RecflowError: If the ranker is neither built in nor the plugin's registered one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    kind = kind_of(ranker, plugin)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    older = Path(f"{scratch}-older")
    try:
        _save(_apart(ranker.state_dict()), scratch / _WEIGHTS)
        if histories is not None:
            extra = {} if untrained is None else {_UNTRAINED: untrained}
            _save(_apart({**histories._asdict(), **extra}), scratch / _HISTORIES)
        write_catalog(scratch / _CATALOG, items, user_ids)
        manifest = {
            "format_version": FORMAT_VERSION,
            "plugin": plugin,
            "ranker": kind,
            "settings": ranker.settings(),
            "about": about,
            "sha256": {path.name: _sha256(path) for path in sorted(scratch.iterdir())},
        }
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        scratch.chmod(0o755)  # mkdtemp's 0700 would keep a service under another account out
        if folder.exists():
            os.replace(folder, older)
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        if older.exists() and not folder.exists():
            os.replace(older, folder)
        raise
    shutil.rmtree(older, ignore_errors=True)


def copy_bundle(source: Path, folder: Path, *, histories: bool = True) -> None:
    """Copy a bundle into a folder that is there already.

    Args:
        source: The bundle; it is checked first.
        folder: Where its files go.
        histories: Whether to take along what users have rated. Without them known users can still be recommended to,
            but what they have seen is not left out.

    Raises:
        RecflowError: If the bundle cannot be used, or its ranker cannot do without histories.
    """
    bundle = load_bundle(source)
    manifest = json.loads((source / _MANIFEST).read_text(encoding="utf-8"))
    if not histories:
        if bundle.ranker.holds_histories:
            raise RecflowError(
                f"{manifest['plugin']} knows users by what they have rated, which is part of the model itself: "
                "its histories cannot be left out; package a model that has a vector for each user."
            )
        manifest["sha256"].pop(_HISTORIES, None)
    for name in manifest["sha256"]:
        shutil.copyfile(source / name, folder / name)
    if not histories and len(bundle.untrained):  # nothing is known of them: they get what is popular
        _save({_UNTRAINED: bundle.untrained}, folder / _HISTORIES)
        manifest["sha256"][_HISTORIES] = _sha256(folder / _HISTORIES)
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle after checking its version and every file's checksum.

    Raises:
        RecflowError: If the folder is no bundle, is of an unknown version, is incomplete or was changed, or if its
            ranker is not a registered one.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        version, sums = manifest["format_version"], dict(manifest["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        raise RecflowError(f"{folder} holds no {_MANIFEST}: it is not a bundle, or its run has not finished.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise RecflowError(f"{folder / _MANIFEST} cannot be read: {reason}; fit the model again.") from error
    if version != FORMAT_VERSION:
        raise RecflowError(
            f"{folder} is of bundle format {version!r}; this recflow reads format {FORMAT_VERSION}: "
            "use the recflow that wrote it, or fit the model again."
        )
    for name, expected in sums.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise RecflowError(f"{folder} is incomplete: {name} is missing; fit the model again.")
        if _sha256(path) != expected:
            raise RecflowError(f"{path} was changed or cut short since it was written (its checksum differs).")
    if not {_WEIGHTS, _CATALOG} <= sums.keys():
        raise RecflowError(f"{folder / _MANIFEST} names no checksum for {_WEIGHTS} or {_CATALOG}.")

    kind = str(manifest.get("ranker"))
    found = ranker_class(kind)
    try:
        about = {"plugin": manifest["plugin"], **manifest["about"]}
        ranker = found.rebuild(manifest["settings"], load_file(folder / _WEIGHTS))
        known = load_file(folder / _HISTORIES) if _HISTORIES in sums else {}
        untrained = known.pop(_UNTRAINED, torch.empty(0, dtype=torch.int64))
        histories = Histories(**known) if known else None
        catalog = Catalog(folder / _CATALOG)
    except (SafetensorError, sqlite3.Error, IndexError, KeyError, TypeError, ValueError) as error:
        raise RecflowError(f"{folder} does not fit its ranker {kind!r}: {type(error).__name__}: {error}") from error
    return Bundle(ranker.eval(), histories, catalog, about, untrained)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own: safetensors refuses those that overlap."""
    apart: dict[str, Tensor] = {}
    taken = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return apart


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    path.chmod(0o644)  # safetensors' 0600 would keep out a service under another account, a container's for one


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecflowError(f"{path} cannot be read: {error.strerror}.") from error
