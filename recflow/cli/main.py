"""``recflow COMMAND``: finds the command, runs it, and turns mistakes into one line and exit code 2."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from recflow import __version__
from recflow.errors import RecflowError

COMMANDS = {
    "fit": "train a model, choose its best epoch, test it, and keep all of it in a run folder",
    "tune": "look for better hyper-parameters, and test the winner beside the untuned model",
    "test": "measure a run on its test part again",
    "compare": "fit models on the same rows and say which differences are real",
    "reproduce": "run a published protocol and compare with its figures",
    "report": "write a run onto one page, with pictures",
    "recommend": "recommend to a known user, or to someone new from movies they liked",
    "similar": "list the items most like one",
    "export": "write a run's embeddings to files for other tools",
    "runs": "list, show, compare and clean up runs",
    "data": "list, describe, download and export datasets",
    "plugins": "list the models, or show one with its hyper-parameters",
    "package": "put a run into BentoML's model store, with a model card",
    "serve": "answer recommendations over HTTP",
}

_EPILOG = """\
first steps:
  recflow fit --plugin lightgcn                          the embedded sample, in a minute or two
  recflow fit --plugin lightgcn --data ml-latest-small   real ratings
  recflow recommend --user 42                            from the newest run
"""


class Parser(argparse.ArgumentParser):
    """Reports a mistake on one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise RecflowError(f"{' '.join(message.split())}; see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; the process's own if None.

    Returns:
        The exit code: 0, 2 for a mistake in what was given, 130 when interrupted.
    """
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except RecflowError as error:
        print(f"recflow: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("\nrecflow: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:  # `recflow … | head`: whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in {"-h", "--help"}:
        _parser().print_help()
        return 0
    if argv[0] in {"-V", "--version"}:
        print(f"recflow {__version__}")  # noqa: T201
        return 0
    name = argv[0]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"commands are: {', '.join(COMMANDS)}."
        raise RecflowError(f"There is no command {name!r}; {hint}")
    command = importlib.import_module(f"recflow.cli.{name}")
    return int(command.run(argv[1:]) or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recflow",
        description="From ratings to a served recommender.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"recflow {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser
