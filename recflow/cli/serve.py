"""``recflow serve``."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import quote

from rich.console import Console

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run
from recflow.errors import RecflowError

SERVICE = "recflow.serving.service:Recommender"


def run(argv: Sequence[str]) -> NoReturn:
    """Check a run and serve it; this process becomes BentoML's."""
    parser = Parser(prog="recflow serve", description="Answer recommendations over HTTP, until Ctrl-C.")
    add_run_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1; 0.0.0.0: everywhere)")
    parser.add_argument("--port", type=_port, default=3000, help="default 3000")
    args = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    chosen = chosen_run(args.run, console)
    recommender = chosen.recommender  # loaded here for its checks: a broken run must not get as far as BentoML
    address = _free_address(args.host, args.port)

    shown = f"[{address}]" if ":" in address else address
    url = f"http://{'localhost' if address in {'0.0.0.0', '::'} else shown}:{args.port}"
    user_id = quote(str(recommender.catalog.user_id(0)))
    about = recommender.about
    console.print(f"{about['plugin']} on {about['header']['dataset']}, from {chosen.path}", markup=False)
    console.print(f"  {url}  in a few seconds; Ctrl-C stops it", markup=False)
    console.print(f"  curl '{url}/api/recommend?user_id={user_id}&top_k=5'", markup=False)
    sys.stdout.flush()  # what is still in the buffer would be lost with this process

    environment = {
        "BENTOML_DO_NOT_TRACK": "True",
        **os.environ,
        "RECFLOW_BUNDLE": str((chosen.path / "bundle").resolve()),
    }
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", address, "--port", str(args.port)]
    os.execvpe(command[0], command, environment)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected 1 to 65535, got {text!r}")
    return int(text)


def _free_address(host: str, port: int) -> str:
    """The numeric address of a host, which is all that BentoML takes, once it is known that one can listen there."""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.create_server(target[:2], family=family):
            return str(ipaddress.ip_address(target[0]))
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecflowError(f"Cannot listen on {host}:{port}: {reason}; choose another --host or --port.") from error
