"""``recflow plugins``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from recflow import registry
from recflow.cli.main import Parser


def run(argv: Sequence[str]) -> int:
    """List the plugins, or show one."""
    parser = Parser(prog="recflow plugins", description="List the models, or show one with its hyper-parameters.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this model's hyper-parameters")
    args = parser.parse_args(argv)
    return _show(args.name) if args.name else _list()


def _list() -> int:
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    for column in ("plugin", "task", "what it is", "from"):
        table.add_column(column, overflow="fold", style="dim" if column == "from" else None)
    for listed in registry.listing():
        if listed.spec is None:
            table.add_row(escape(listed.name), "[red]broken[/]", escape(listed.problem), escape(listed.owner))
        else:
            table.add_row(
                f"[bold]{listed.name}[/]", listed.spec.task, escape(listed.spec.summary), escape(listed.owner)
            )
    console.print(table)
    console.print("\n[dim]recflow plugins NAME shows one; recflow fit --plugin NAME fits it[/]")
    return 0


def _show(name: str) -> int:
    console = Console(highlight=False)
    spec = registry.load(name)
    module = registry.load_target(spec, "module")
    console.print(f"[bold]{spec.name}[/]  ({spec.task})\n{escape(spec.summary)}")
    if spec.paper:
        console.print(f"[dim]{spec.paper}[/]")
    console.print("\nhyper-parameters, by default and where tuning looks for them")
    meanings = _documented_arguments(module)
    space = registry.load_target(spec, "search_space") if spec.search_space else {}
    for parameter in inspect.signature(module.__init__).parameters.values():
        if parameter.name in {"self", "num_users", "num_items"}:
            continue
        default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
        where = _range(space.get(f"model.{parameter.name}", ""))
        console.print(
            f"\n[bold]--model.{parameter.name}[/]{escape(default)}{f'  [dim]{escape(where)}[/]' if where else ''}"
        )
        console.print(Padding(escape(" ".join(meanings.get(parameter.name, "").split())), (0, 0, 0, 4)))
    epochs: int = module.default_max_epochs
    console.print(f"\n[dim]by default up to {epochs} epoch{'s' * (epochs > 1)}, the best by {module.monitor}[/]")
    return 0


def _documented_arguments(module: type) -> dict[str, str]:
    from docstring_parser import parse

    # a variant may leave its arguments to be documented by the base that takes them
    documented = [inspect.getdoc(owner) or "" for owner in reversed(module.__mro__) if owner.__module__ != "builtins"]
    return {entry.arg_name: entry.description or "" for text in documented for entry in parse(text).params}


def _range(distribution: object) -> str:
    """An Optuna distribution as people write it."""
    if not distribution:
        return ""
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return ", ".join(map(str, choices))
    low, high = (getattr(distribution, end) for end in ("low", "high"))
    return f"{low:g} … {high:g}{' (log)' if getattr(distribution, 'log', False) else ''}"
