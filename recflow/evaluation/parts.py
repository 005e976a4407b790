"""One fit that is a part of something greater: taken as it is if it is there, gone on with if it was broken off."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.runs import CONFIG, Run
from recflow.training.configuration import FitConfiguration
from recflow.training.fit import configure, run_fit

DECISIVE = (
    *("plugin", "seed", "data", "metrics", "model", "trainer", "optimizer", "lr_scheduler"),
    *("patience", "monitor", "init_from"),
)
"""Sections of a configuration that decide what a fit comes to; the others say where it goes and what is logged."""


def fit_part(folder: Path, arguments: Sequence[str], console: Console, prepared: Dataset | None = None) -> Run:
    """Fit into a folder, unless what is asked for is there already.

    Args:
        folder: The part's run folder.
        arguments: What ``recflow fit`` would be given.
        console: Where progress is shown.
        prepared: The data, where they have been made ready already.

    Raises:
        RecflowError: If something else was fitted there, or the fit fails.
    """
    run = Run(folder)
    configuration = check_part(folder, arguments, prepared)
    if run.finished:
        if run.metrics["header"]["sha256"] != configuration.datamodule.dataset.header()["sha256"]:
            raise RecflowError(f"{folder} was fitted on other data: choose another --name, or delete it.")
        console.print(f"[dim]fitted before: {folder}[/]", highlight=False)
        return run
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return run_fit(*configure([f"--resume={folder}"], prepared), console)
    if folder.exists():
        shutil.rmtree(folder)
    return run_fit(configuration, None, console, folder)


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
                f"{folder} was fitted with other settings ({', '.join(differing)}): "
                "choose another --name, or delete it."
            )
    return configuration
