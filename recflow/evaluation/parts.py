"""One fit that is a part of something greater: taken as it is if it is there, gone on with if it was broken off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from rich.console import Console

from recflow import __version__
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.runs import CONFIG, METRICS, PER_USER, Run
from recflow.training.configuration import FitConfiguration
from recflow.training.fit import configure, run_fit

DECISIVE = (
    *("plugin", "seed", "data", "metrics", "model", "trainer", "optimizer", "lr_scheduler"),
    *("patience", "monitor", "init_from"),
)
"""Sections of a configuration that decide what a fit comes to; the others say where it goes and what is logged."""


def fit_part(
    folder: Path,
    arguments: Sequence[str],
    console: Console,
    prepared: Dataset | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Run:
    """Fit into a folder, unless what is asked for is there already.

    Args:
        folder: The part's run folder.
        arguments: What ``recflow fit`` would be given.
        console: Where progress is shown.
        prepared: The data, where they have been made ready already.
        callbacks: See :func:`recflow.fit`.

    Raises:
        RecflowError: If something else was fitted there, or the fit fails.
    """
    run = Run(folder)
    configuration = check_part(folder, arguments, prepared)
    if run.finished and (folder / PER_USER).is_file():
        if run.metrics["header"]["sha256"] != configuration.datamodule.dataset.header()["sha256"]:
            raise RecflowError(f"{folder} was fitted on other data: delete it, or choose another name.")
        _refuse_stale(run)
        header = run.metrics["header"]
        by = f"recflow {header['versions']['recflow']}{' at ' + header['commit'][:8] if header.get('commit') else ''}"
        console.print(f"fitted before, by {by}: {folder}", style="dim", markup=False, highlight=False)
        return run
    if not run.finished and (folder / "checkpoints" / "last.ckpt").is_file():
        console.print(f"[dim]goes on where it was broken off: {folder}[/]", highlight=False)
        return run_fit(*configure([f"--resume={folder}"], prepared), console, callbacks=callbacks)
    if folder.exists():
        shutil.rmtree(folder)
    return run_fit(configuration, None, console, folder, callbacks)


def check_part(folder: Path, arguments: Sequence[str], prepared: Dataset | None = None) -> FitConfiguration:
    """Refuse arguments that cannot be fitted, or not into this folder, for something else was fitted there.

    Raises:
        RecflowError: If so.
    """
    configuration, _ = configure(arguments, prepared)
    if (folder / CONFIG).is_file():
        there, wanted = Run(folder).config, yaml.safe_load(configuration.dump())
        differing = [name for name in DECISIVE if wanted.get(name) != there.get(name)]
        if differing:
            raise RecflowError(
                f"{folder} was fitted with other settings ({', '.join(differing)}): delete it, or choose another name."
            )
    return configuration


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _refuse_stale(run: Run) -> None:
    """A finished part must be of this recflow, and not older than the runs that it started from."""
    version = run.metrics["header"]["versions"]["recflow"]
    if version != __version__:
        raise RecflowError(f"{run.path} was fitted by recflow {version}, this is {__version__}: delete it.")
    fitted = (run.path / METRICS).stat().st_mtime
    for start in (run.config.get("init_from"), *run.config.get("model", {}).values()):
        content = Path(start) / METRICS if isinstance(start, str) else None
        if content is not None and content.is_file() and content.stat().st_mtime > fitted:
            raise RecflowError(f"{run.path} started from what {start} held before it was fitted anew: delete it.")
