"""A PostgreSQL server of the tests' own, started from the system's packages and thrown away."""

import os
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path


def binaries():
    """The folder of initdb and pg_ctl; None if PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return Path(found).parent if found else installed[-1].parent if installed else None


@contextmanager
def server():
    """Run a server; gives its URL. It refuses to run as root, who therefore borrows the package's user."""
    folder = Path(tempfile.mkdtemp(prefix="recflow-postgres-"))
    as_user = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(name, *args):
        subprocess.run([*as_user, str(binaries() / name), *args], check=True, stdout=subprocess.DEVNULL, cwd="/tmp")

    data, log = str(folder / "data"), str(folder / "log")
    run("initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off -c unix_socket_directories={folder}"
    run("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
