"""Fits models on the same rows and makes a leaderboard of them; a killed comparison goes on where it was."""

from __future__ import annotations

import copy
import json
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from recflow import registry
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.evaluation.leaderboard import Leaderboard, refuse_unknown_metric
from recflow.evaluation.parts import DECISIVE, check_part, fit_part
from recflow.evaluation.scores import Row
from recflow.recipes import find_recipe, read_recipe
from recflow.runs import Run, load_run
from recflow.training.configuration import flatten
from recflow.training.fit import configure, without_frames

BASELINES = {"ranking": ("popularity", "random", "item-knn"), "rating": ("bias-only", "item-knn-rating")}
"""What always stands beside the models: the first three always, the others where a model predicts ratings."""

_SECTIONS = ("data", "metrics", "trainer", "model", "optimizer", "lr_scheduler")
_SINGLE = ("patience", "monitor", "threads", "loggers", "plots")
_OF_A_RECIPE = ("model", "trainer", "optimizer", "lr_scheduler", "patience", "monitor")


@dataclass(frozen=True)
class Comparison:
    """A leaderboard, and the folder with its runs and files.

    Args:
        path: The folder.
        leaderboard: The rows.
    """

    path: Path
    leaderboard: Leaderboard


@dataclass(frozen=True)
class _Entry:
    """A model that is to be compared."""

    name: str
    plugin: str
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None


def compare(
    plugins: Sequence[str],
    data: Any = None,
    seeds: Sequence[int] = (42,),
    *,
    name: str | None = None,
    metric: str | None = None,
    recipes: bool = True,
    baselines: bool = True,
    resplit: bool = False,
    runs_dir: str | Path = "runs",
    console: Console | None = None,
    **settings: Any,
) -> Comparison:
    """Fit models on the same rows, and compare them.

    Args:
        plugins: Their names, or recipes (``.yaml`` files as under ``experiments/``).
        data: As :func:`recflow.fit` takes it.
        seeds: One fit a seed and model.
        name: The folder under ``runs_dir/compare``; the dataset's name if None. Parts that are finished there and were
            fitted alike are taken as they are, and others go on where they were.
        metric: What the leaderboard is ordered and tested by; see :class:`~recflow.evaluation.leaderboard.Leaderboard`.
        recipes: Whether a plugin takes the settings that come with recflow for this dataset, where there are any.
        baselines: Whether popularity, random and item-knn stand beside the models.
        resplit: Whether each seed splits the data anew, too; otherwise all share one split.
        runs_dir: See ``fit``.
        console: Where progress is shown; nowhere if None.
        settings: Anything else that ``fit`` takes, for all models alike.

    Raises:
        RecflowError: If something given cannot be used, or every model fails.
    """
    console = console or Console(quiet=True)
    if not seeds or len(set(seeds)) != len(seeds):
        raise RecflowError(f"seeds must be different whole numbers, one at least, got {list(seeds)}.")
    _refuse_settings(settings)
    if metric is not None:
        refuse_unknown_metric(metric)
    given = {"data": without_frames(data), **settings}
    base = _prepare(given)
    entries = _entries(plugins, base, recipes, baselines)
    if changed := [f"{name} {value}" for name, value in settings.items() if name.partition(".")[0] in _OF_A_RECIPE]:
        entries = [replace(entry, recipe=f"{entry.recipe}, {', '.join(changed)}") for entry in entries]
    path = Path(runs_dir) / "compare" / _folder_name(name, base)
    first = _prepare({**given, "data.seed": seeds[0]}) if resplit else base
    for entry in entries:  # a mistake in the settings is refused before anything is fitted
        try:
            check_part(path / f"{entry.name}-{seeds[0]}", _arguments(entry, first, seeds[0], settings), first)
        except RecflowError as error:
            raise RecflowError(f"{entry.name}: {error}") from error
    make_folder(path)
    try:
        with FileLock(path / ".lock", timeout=0):
            rows = _fit_all(path, entries, base, seeds, given if resplit else None, settings, console)
    except Timeout as error:
        raise RecflowError(
            f"Another comparison is at work in {path}: wait for it, or choose another --name."
        ) from error
    except OSError as error:
        raise RecflowError(f"{path} cannot be written to: {error.strerror}; choose another --runs_dir.") from error
    except KeyboardInterrupt:
        console.print(f"\nbroken off; what is done stays in {path}: the same command goes on", highlight=False)
        raise
    if metric is None and all(registry.load(entry.plugin).task == "rating" for entry in entries[: len(plugins)]):
        metric = "rmse"
    return Comparison(path, Leaderboard(rows, metric))


def compare_runs(paths: Sequence[str | Path], metric: str | None = None) -> Leaderboard:
    """Compare finished runs; those of one plugin that differ by their seeds alone become one row.

    Args:
        paths: Run folders.
        metric: See :func:`compare`.

    Raises:
        RecflowError: If a run cannot be read, or they may not be compared.
    """
    groups: dict[str, list[Run]] = {}
    for path in paths:
        run = load_run(path)
        run.require_finished()
        same = {name: value for name, value in run.config.items() if name in DECISIVE and name != "seed"}
        same["data"] = {name: value for name, value in same.get("data", {}).items() if name != "seed"}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(run)
    named: dict[str, Row] = {}
    plugins = [runs[0].metrics["plugin"] for runs in groups.values()]
    for runs in groups.values():
        plugin = runs[0].metrics["plugin"]
        label = plugin if plugins.count(plugin) == 1 else f"{plugin} {runs[0].path.name}"
        while label in named:
            label += "'"
        named[label] = Row(label, tuple(runs), "as fitted")
    return Leaderboard(list(named.values()), metric)


def make_folder(path: Path) -> None:
    """Make a folder that may be there.

    Raises:
        RecflowError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecflowError(f"The folder {path} cannot be made: {error.strerror}; choose another.") from error


def _refuse_settings(settings: Mapping[str, Any]) -> None:
    """What is the comparison's own, or would make one model another."""
    for name in settings:
        section = name.partition(".")[0]
        if section not in (*_SECTIONS, *_SINGLE):
            own = {"seed": "--seeds", "plugin": "--plugins", "config": "--plugins FILE.yaml", "name": "--name"}
            hint = f"use {own[section]}" if section in own else "it belongs to recflow fit"
            raise RecflowError(f"A comparison takes no --{name}: {hint}; all models share {', '.join(_SECTIONS[:3])}.*")
    if "data.folds" in settings or "folds" in (settings.get("data") or {}):
        raise RecflowError("A comparison is of one split, or by --resplit of several: leave out --data.folds.")


def _prepare(given: Mapping[str, Any]) -> Dataset:
    """The data, as every model gets them: any plugin's parser reads these settings."""
    of_data = {"plugin": "popularity", "data": given.get("data"), **_under("data", given)}
    return configure(list(flatten(of_data)))[0].datamodule.dataset


def _under(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name.startswith(f"{section}.")}


def _entries(plugins: Sequence[str], data: Dataset, recipes: bool, baselines: bool) -> list[_Entry]:
    if not plugins:
        raise RecflowError("Name the models to compare: --plugins lightgcn,ease.")
    entries = [_entry(plugin, data, recipes) for plugin in plugins]
    if baselines:
        tasks = {registry.load(entry.plugin).task for entry in entries}
        wanted = [*BASELINES["ranking"], *(BASELINES["rating"] if "rating" in tasks else ())]
        there = {entry.plugin for entry in entries}
        entries += [_entry(plugin, data, recipes) for plugin in wanted if plugin not in there]
    doubled = sorted({entry.name for entry in entries if [other.name for other in entries].count(entry.name) > 1})
    if doubled:
        raise RecflowError(f"{', '.join(doubled)}: named twice; give recipes of different file names.")
    return entries


def _entry(named: str, data: Dataset, recipes: bool) -> _Entry:
    if named.endswith((".yaml", ".yml")):
        path: Path | None = Path(named)
    else:
        registry.load(named)
        path = find_recipe(named, data.name) if recipes and data.config.path is None else None
    if path is None:
        return _Entry(named, named, "defaults")
    content = read_recipe(path)
    plugin = str(content["plugin"])
    settings = {section: content[section] for section in _OF_A_RECIPE if section in content}
    shipped = not named.endswith((".yaml", ".yml"))
    label = plugin if shipped else re.sub(r"[^\w.-]+", "_", f"{plugin}-{path.stem}")
    return _Entry(label, plugin, f"{plugin}/{path.name}", settings, (content.get("data") or {}).get("batch_size"))


def _with_batches(data: Dataset, entry: _Entry) -> Dataset:
    """The same data in the batches of a recipe."""
    if entry.batch_size is None or entry.batch_size == data.batch_size:
        return data
    other = copy.copy(data)
    other.config, other.batch_size = replace(data.config, batch_size=entry.batch_size), entry.batch_size
    return other


def _arguments(entry: _Entry, data: Dataset, seed: int, settings: Mapping[str, Any]) -> list[str]:
    given = {name: value for name, value in settings.items() if not name.startswith("data.")}
    config = vars(_with_batches(data, entry).config)
    return list(flatten({"plugin": entry.plugin, "data": config, **entry.settings, **given, "seed": seed}))


def _folder_name(name: str | None, data: Dataset) -> str:
    if name is not None and not re.fullmatch(r"[\w=-][\w.=-]*", name):
        raise RecflowError(f"A comparison's name is made of letters, digits, '.', '_', '=' and '-', got {name!r}.")
    return name or re.sub(r"[^\w.=-]+", "_", data.name).lstrip(".") or "data"


def _fit_all(
    path: Path,
    entries: Sequence[_Entry],
    base: Dataset,
    seeds: Sequence[int],
    resplit: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    console: Console,
) -> list[Row]:
    runs: dict[str, list[Run]] = {entry.name: [] for entry in entries}
    problems: dict[str, str] = {}
    count = 0
    for seed in seeds:
        data = base if resplit is None else _prepare({**resplit, "data.seed": seed})
        for entry in entries:
            count += 1
            if entry.name in problems:
                continue
            console.print(
                f"\n[bold]{entry.name}[/], seed {seed} ({count} of {len(seeds) * len(entries)})", highlight=False
            )
            try:
                arguments = _arguments(entry, data, seed, settings)
                run = fit_part(path / f"{entry.name}-{seed}", arguments, console, _with_batches(data, entry))
            except Exception as error:  # whatever it is, the others go on
                problems[entry.name] = _problem(path, entry, seed, error)
                console.print(f"failed: {problems[entry.name]}", style="red", markup=False, highlight=False)
                continue
            runs[entry.name].append(run)
    rows = []
    for entry in entries:
        if entry.name not in problems:
            try:
                rows.append(Row(entry.name, tuple(runs[entry.name]), entry.recipe))
                continue
            except RecflowError as error:
                problems[entry.name] = str(error)
        rows.append(Row(entry.name, recipe=entry.recipe, problem=problems[entry.name]))
    return rows


def _problem(path: Path, entry: _Entry, seed: int, error: Exception) -> str:
    """One line, and the whole story in a file where the mistake is not the user's."""
    if isinstance(error, RecflowError):
        return f"seed {seed}: {' '.join(str(error).split())}"
    story = path / f"{entry.name}-{seed}.error.txt"
    story.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return f"seed {seed}: {type(error).__name__}: {' '.join(str(error).split())[:200]} ({story})"
