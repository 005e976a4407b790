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
from recflow.errors import RecflowError
from recflow.runs import load_run
from recflow.serving.settings import Settings

SERVICE = "recflow.serving.service:Recommender"


def run(argv: Sequence[str]) -> NoReturn:
    """Check what is to be served, and serve it; this process becomes BentoML's."""
    parser = Parser(prog="recflow serve", description="Answer recommendations over HTTP, until Ctrl-C.")
    parser.add_argument(
        "--run",
        metavar="RUN",
        action="append",
        help="a run folder; may be repeated: the first is the default model (default: what RECFLOW_BUNDLE names, else "
        "what was packaged last, else the newest run under runs/)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1; 0.0.0.0: everywhere)")
    parser.add_argument("--port", type=_port, default=3000, help="default 3000")
    args = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    from recflow.serving.models import Models
    from recflow.serving.sources import BUNDLE, CHECKED, find_bundles, join

    Settings.read()
    if args.run:
        runs = [load_run(path) for path in args.run]
        for run in runs:
            run.require_finished()
        folders, why = [run.path / "bundle" for run in runs], "named by --run"
    else:
        folders, why = find_bundles()
    models = Models.load(folders)  # loaded here for its checks: what is broken must not get as far as BentoML
    address = _free_address(args.host, args.port)

    shown = f"[{address}]" if ":" in address else address
    url = f"http://{'localhost' if address in {'0.0.0.0', '::'} else shown}:{args.port}"
    user_id = quote(str(models.default.recommender.catalog.user_id(0)))
    for served, folder in zip(models, folders, strict=True):
        console.print(f"{served.name} on {served.source()['data']}, from {folder}", markup=False)
    console.print(f"  {why}", style="dim", markup=False)
    console.print(f"  {url}  in a few seconds; Ctrl-C stops it", markup=False)
    console.print(f"  curl '{url}/api/recommend?user_id={user_id}&top_k=5'", markup=False)
    sys.stdout.flush()  # what is still in the buffer would be lost with this process

    environment = {**os.environ, BUNDLE: join(folders), CHECKED: join(folders)}
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
