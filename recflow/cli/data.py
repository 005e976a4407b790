"""``recflow data``: list, describe, download and export datasets."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from recflow.arguments import data_argument, one_line
from recflow.cli.main import Parser
from recflow.errors import RecflowError

if TYPE_CHECKING:
    from recflow.data.dataset import DataConfig

_EPILOG = """\
examples:
  recflow data list
  recflow data describe ml-100k --data.split temporal --out pictures/
  recflow data describe my.csv --data.user member --data.item film
  recflow data download ml-1m
  recflow data export ml-100k --out exported/ --format csv --data.drop_below 3

recflow data COMMAND --help tells more of each.
"""
_NUMBERS = "describe.json"
_YOUR_OWN = """
Your own: --data my.csv, or TSV, Parquet, or a folder in a published form; name its columns by --data.user, --data.item,
--data.rating and --data.time where they have unusual names. recflow data describe NAME|PATH shows any of them.
sample:ratings=1000000 makes a sample of any size."""
_DESCRIBE = """\
Describe a dataset as a model would be given it: counts, ratings, skew, times, genres, users' features, and how many
users and items of the held-out parts have no training row. The settings are those of recflow fit.
"""
_EXPORT = """\
Write a dataset's split as files for other tools: train, val, test (and fold_in, where users are held out) in the
dataset's own ids, items, users, tags where there are any, and header.json, which says how they came about. The
settings are those of recflow fit.
"""


def run(argv: Sequence[str]) -> int:
    """Run one of the commands."""
    parser = Parser(
        prog="recflow data",
        description="List, describe, download and export datasets.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (summary, _) in _COMMANDS.items():
        commands.add_parser(name, help=summary)
    if not argv or argv[0] in {"-h", "--help"}:
        parser.print_help()
        return 0
    if argv[0] not in _COMMANDS:
        close = difflib.get_close_matches(argv[0], _COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(_COMMANDS)}"
        raise RecflowError(f"recflow data has no command {argv[0]!r}; {hint}")
    return _COMMANDS[argv[0]][1](argv[1:])


def _list(argv: Sequence[str]) -> int:
    Parser(
        prog="recflow data list", description="List the datasets that --data can name, and where each of them is."
    ).parse_args(argv)

    from recflow.cli.data_tables import catalogue_table
    from recflow.data.cache import default_cache
    from recflow.data.catalog import DATASETS, available, names

    console = Console(highlight=False)
    console.print(catalogue_table({name: available(name) for name in names()}, _other_folders()))
    root = os.environ.get("RECFLOW_DATA_DIR", "")
    legend = [f"data folder: RECFLOW_DATA_DIR, which is {root or 'not set'}", f"cache: {default_cache()}"]
    legend += ["download: fetched when first used", "by hand: recflow data download NAME says from where"]
    licences: dict[str, list[str]] = {}
    for name, dataset in DATASETS.items():
        licences.setdefault(dataset.licence, []).append(name)
    console.print()
    for line in (*legend, "", *(f"{', '.join(named)}: {licence}" for licence, named in licences.items())):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    console.print(_YOUR_OWN, markup=False, soft_wrap=True)
    return 0


def _other_folders() -> dict[str, str]:
    """What else lies under `RECFLOW_DATA_DIR` in a form that can be read, and can be named like a dataset."""
    from recflow.data.catalog import DATASETS
    from recflow.data.published import form_of

    root = os.environ.get("RECFLOW_DATA_DIR")
    listed = {folder for dataset in DATASETS.values() for folder in dataset.folders}
    others = {}
    for path in sorted(Path(root).expanduser().iterdir()) if root else ():
        if path.name not in listed and not path.name.startswith("."):
            with suppress(RecflowError, OSError):  # any other folder or file is nobody's mistake
                others[path.name] = form_of(path, path.name).describe
    return others


def _download(argv: Sequence[str]) -> int:
    parser = Parser(
        prog="recflow data download",
        description="Fetch datasets into the cache, verified; what is at hand already is not fetched again.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a dataset of recflow data list")
    args = parser.parse_args(argv)

    from recflow.data.catalog import DATASETS, available, download

    for name in args.names:
        available(name)  # a misspelt name is told before anything is fetched
    console = Console(highlight=False, soft_wrap=True)
    for name in args.names:
        found = download(name)
        done = {"download": "downloaded and verified", "cached": "in the cache already", "embedded": "embedded"}
        place = "" if found.folder is None else f": {found.folder}"
        console.print(f"[bold]{escape(name)}[/]  {done.get(found.source, f'under {found.source}')}{escape(place)}")
        for notice in found.notices:
            console.print(f"  [yellow]{escape(notice)}[/]")
        if name in DATASETS:
            console.print(f"  [dim]licence: {escape(DATASETS[name].licence)}[/]")
    console.print("\nNext:")
    for command in (f"recflow data describe {name}", f"recflow fit --plugin lightgcn --data {name}"):
        console.print(f"  {command}", markup=False)
    return 0


def _describe(argv: Sequence[str]) -> int:
    parser = _settings_parser("describe", _DESCRIBE)
    _add_out(parser, "Where to write describe.json and pictures as PNG; by default, none are made.", _NUMBERS)
    given, config = _parse(parser, argv)

    from recflow.cli.data_tables import print_description
    from recflow.data.dataset import load, prepare
    from recflow.data.describe import describe, describe_source
    from recflow.data.export import refuse_taken, whole_folder

    out = None if given.out is None else Path(given.out).expanduser()
    if out is not None:
        refuse_taken(out, _NUMBERS, overwrite=given.overwrite)
    source = describe_source(load(config))
    data = prepare(config)
    description = {"source": source, **describe(data.interactions, data.parts, config.relevant_from)}
    console = Console(highlight=False)
    print_description(console, description)
    if out is None:
        console.print("\n[dim]--out FOLDER writes these numbers as JSON, and pictures[/]")
        return 0

    from recflow.data_plots import plot_data

    with whole_folder(out, _NUMBERS, overwrite=given.overwrite) as folder:
        text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / _NUMBERS).write_text(text + "\n", encoding="utf-8")
        pictures = plot_data(folder, description, data.interactions)
    names = ", ".join([_NUMBERS, *(picture.name for picture in pictures)])
    console.print(f"\nIn [bold]{escape(str(out))}[/]: {names}", soft_wrap=True)
    return 0


def _export(argv: Sequence[str]) -> int:
    parser = _settings_parser("export", _EXPORT)
    _add_out(parser, "Where the files go; required.", "header.json")
    help_ = "parquet, csv (lists joined by |) or recbole (its atomic files, with benchmark splits)."
    parser.add_argument("--format", type=str, default="parquet", metavar="FORMAT", help=help_)
    given, config = _parse(parser, argv)
    if given.out is None:
        raise RecflowError("recflow data export needs a folder to write into: --out FOLDER")

    from recflow.cli.data_tables import size_text
    from recflow.data.dataset import load, prepare
    from recflow.data.export import HEADER, check_format, export, refuse_taken

    if config.folds is not None and config.fold is None:
        raise RecflowError(f"An export holds one split: choose one of the {config.folds} folds by --data.fold N")
    out = Path(given.out).expanduser()
    check_format(given.format)
    refuse_taken(out, HEADER, overwrite=given.overwrite)
    tags = load(config).tags
    data = prepare(config)
    files = export(data, tags, out, given.format, overwrite=given.overwrite)
    console = Console(highlight=False, soft_wrap=True)
    header = data.header()
    console.print(f"{data.name}: {header['split']}; filter: {header['filter']}", markup=False)
    for file in files:
        console.print(f"  {escape(str(file))}  [dim]{size_text(file.stat().st_size)}[/]")
    if given.format == "recbole":
        place = out.absolute()
        named = "" if place.name == data.name else f", once the folder is called {data.name}"
        settings = f"dataset: {data.name}, data_path: {place.parent}, benchmark_filename: [train, valid, test]"
        console.print(f"in RecBole: {settings}{named}", markup=False)
    return 0


_COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "list": ("the datasets that --data can name, and where each of them is", _list),
    "describe": ("counts, ratings, skew, times, features and split of a dataset, as numbers and pictures", _describe),
    "download": ("fetch datasets into the cache", _download),
    "export": ("write a dataset's split to files for other tools", _export),
}


def _settings_parser(command: str, description: str) -> Any:
    """A parser with ``fit``'s data settings: the same names, types, help and errors."""
    from jsonargparse import ArgumentParser

    from recflow.data.dataset import DataConfig

    parser = ArgumentParser(
        prog=f"recflow data {command}",
        usage="%(prog)s NAME|PATH [settings]",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
    )
    help_ = "A dataset of recflow data list, or your own file or folder."
    parser.add_argument("dataset", nargs="?", type=str | None, default=None, metavar="NAME|PATH", help=help_)
    parser.add_class_arguments(DataConfig, "data", skip={"name", "path"})
    for action in parser._actions:
        if action.dest == "data":  # --data here is the dataset's name, as in fit, no file of settings
            action.help = argparse.SUPPRESS
    return parser


def _add_out(parser: Any, help_: str, marker: str) -> None:
    parser.add_argument("--out", type=str | None, default=None, metavar="FOLDER", help=help_)
    replaced = f"Replace the folder, if it holds a {marker} as written by this command."
    parser.add_argument("--overwrite", action="store_true", help=replaced)


def _parse(parser: Any, argv: Sequence[str]) -> tuple[Any, DataConfig]:
    """The command's own arguments, and the data that they and the settings name."""
    from jsonargparse import ArgumentError

    from recflow.data.dataset import DataConfig

    words = [arg.removeprefix("--data=") for arg in argv if arg != "--data"]
    try:
        given = parser.parse_args(words)
    except ArgumentError as error:
        raise RecflowError(one_line(str(error), [action.dest for action in parser._actions])) from error
    if given.dataset is None:
        raise RecflowError(f"{parser.prog} needs a dataset: a NAME of recflow data list, or the PATH of your own")
    where = {data_argument(given.dataset): given.dataset}
    return given, DataConfig(**where, **given.data.as_dict())
