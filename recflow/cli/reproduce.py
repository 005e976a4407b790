"""``recflow reproduce``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from recflow.cli.main import Parser
from recflow.errors import RecflowError
from recflow.runs import lower_is_better

if TYPE_CHECKING:
    from recflow.evaluation.protocols import Protocol
    from recflow.evaluation.reproduce import Reproduction

_STYLES = {"reached": "green", "within tolerance": "green", "short": "yellow"}


def run(argv: Sequence[str]) -> int:
    """List the protocols, or run one: exit code 1 if a figure was not reached."""
    parser = Parser(
        prog="recflow reproduce",
        description="Run a published protocol: paper, reference code, their figures, ours, a verdict. Exit code 1 if "
        "a figure falls short.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a protocol of --list")
    parser.add_argument("--list", action="store_true", help="list the protocols")
    parser.add_argument("--runs_dir", default="runs", metavar="DIR", help="where runs go (default runs)")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    if args.list == (args.name is not None):
        raise RecflowError("Give either the NAME of a protocol or --list; see recflow reproduce --help")
    if args.list:
        _print_list(console)
        return 0
    from recflow.evaluation.protocols import find_protocol
    from recflow.evaluation.reproduce import reproduce

    protocol = find_protocol(args.name)
    console.print(f"[bold]{protocol.name}[/]: {protocol.what}; about {protocol.minutes:g} min on two cores")
    done = reproduce(args.name, args.runs_dir, console)
    _print(console, done)
    return 0 if done.reached else 1


def _print_list(console: Console) -> None:
    from recflow.evaluation.protocols import protocols

    table = Table(box=None, pad_edge=False, padding=(0, 1), title="published protocols", title_justify="left")
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("what", overflow="fold")
    table.add_column("published", justify="right", no_wrap=True)
    table.add_column("ours", justify="right", no_wrap=True)
    table.add_column("min", justify="right")
    for protocol in protocols().values():
        names = list(protocol.held_to)[:2]
        figures = "\n".join(
            f"{name} {protocol.published[name]:.4f}" if name in protocol.published else f"{name} –" for name in names
        )
        ours = "\n".join(f"{protocol.ours[name]:.4f}" if name in protocol.ours else "–" for name in names)
        table.add_row(protocol.name, protocol.what, figures, ours, f"{protocol.minutes:g}")
    console.print(table)
    console.print("\nrun one: recflow reproduce bias-mf-ml-100k", style="dim")


def _print(console: Console, done: Reproduction) -> None:
    protocol, measured, verdicts = done.protocol, done.measured, done.verdicts
    table = Table(box=None, pad_edge=False, padding=(0, 1), title=protocol.what, title_justify="left")
    heads = ["metric", "published", "held to", "ours", "95 %", "recorded", "verdict"]
    too_good = done.chosen_on_test
    if too_good:
        heads.insert(5, "chosen on test")
    for name in heads:
        table.add_column(name, justify="left" if name in ("metric", "verdict") else "right", no_wrap=True)
    for name, value in measured.items():
        spread = f" ±{done.deviations[name]:.4f}" if name in done.deviations else ""
        ends = done.intervals.get(name)
        verdict = verdicts.get(name, "")
        table.add_row(
            name,
            f"{protocol.published[name]:.4f}" if name in protocol.published else "–",
            _held_to(protocol, name),
            f"{value:.4f}{spread}",
            f"{ends[0]:.4f}\n{ends[1]:.4f}" if ends else "–",
            *([f"{too_good[name]:.4f}"] if too_good else []),
            f"{protocol.ours[name]:.4f}" if name in protocol.ours else "–",
            f"[{_STYLES[verdict]}]{verdict}[/]" if verdict else "",
        )
    console.print()
    console.print(table)
    header = done.runs[0].metrics["header"]
    first = " and so on" if len({run.metrics["header"]["split"] for run in done.runs}) > 1 else ""
    console.print(f"[dim]{header['dataset']}; filter {header['filter']}; {header['split']}{first}[/]", soft_wrap=True)
    cold = [run.metrics["header"]["cold"]["test"] for run in done.runs]
    users, items = (_counts([one[name] for one in cold]) for name in ("users", "items"))
    console.print(
        f"[dim]cold in the test part, without a training row: {users} users, {items} items[/]", soft_wrap=True
    )
    if protocol.note:
        console.print(protocol.note, style="dim", markup=False, soft_wrap=True)
    runs = f"{len(done.runs)} {'folds' if protocol.folds else 'seeds'}" if len(done.runs) > 1 else "one seed"
    theirs = (
        "; the source chose its epoch on test, ours is chosen on validation" if protocol.chosen_on == "test" else ""
    )
    if too_good:
        decides = next(iter(protocol.published))
        theirs += f"; chosen there, too, by {decides}, it would be epoch {too_good['epoch']:g}"
    if len(done.runs) > 1:
        runs = f"means ± standard deviations over {runs}"
    if done.intervals:
        runs += "; intervals: bootstrap over users"
    console.print(f"[dim]{runs}{theirs}[/]", soft_wrap=True)
    console.print(
        f"[dim]paper {protocol.paper}\nfigures {protocol.figures or 'none published'}\ncode {protocol.code}\n"
        f"runs {done.path}[/]",
        soft_wrap=True,
    )


def _counts(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _held_to(protocol: Protocol, name: str) -> str:
    if name not in protocol.held_to:
        return ""
    sign = "≤" if lower_is_better(name) else "≥"
    within = -protocol.tolerance.get(name, 0.0) if sign == "≥" else protocol.tolerance.get(name, 0.0)
    return f"{sign} {protocol.held_to[name] + within:.4f}"
