"""Build the image of the service and run it, on a Debian machine without a Docker engine.

    python scripts/try_image.py                     # as root; it names the Debian packages that it needs and lacks
    python scripts/try_image.py --rootfs FOLDER     # keeps the base system there, or takes it from there: minutes less

A popularity model of the embedded sample is packaged, built into a Bento and an image, and served from a container
whose file system is read-only. The base image is a stand-in of the same Debian and Python, made by debootstrap, with
this machine's pip settings and certificates: the image proves the build and is never published. Everything, model
store and images too, lies in one temporary folder and is gone afterwards.

Prints a line a step. Exits with 1 if a check failed, with 2 if something that it needs is missing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
BASE = "docker.io/library/python:3.11-slim"
IMAGE = "localhost/recflow:tried"
MOST_MB = 1500
PATIENCE = 120  # seconds until the service answers
NEEDED = ("buildah", "podman", "runc", "debootstrap")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# A container gets the rights of any user's, and can write nowhere but in /tmp.
RUN = ["--runtime=runc", "--network=host", "--cap-drop=all", "--security-opt=no-new-privileges"]
RUN += ["--read-only", "--tmpfs=/tmp", "--ulimit=nofile=20000:20000", "--ulimit=nproc=30000:30000"]


MEMORY = """
import pathlib, re
rollups = [process / "smaps_rollup" for process in pathlib.Path("/proc").glob("[0-9]*")]
print(sum(int(kb) for rollup in rollups for kb in re.findall(r"(?m)^Pss: +([0-9]+)", rollup.read_text())) // 1000)
"""


class Trial:
    """The temporary folder, the commands in it, and how many checks passed and failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passed = self.failed = 0
        storage = folder / "storage.conf"  # images and containers of our own, apart from the machine's
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/running"\n'
        )
        self.environment = {
            **os.environ,
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "BUILDAH_FORMAT": "docker",  # the OCI's own format has no health check
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(storage),
        }

    def do(self, *command: object, cwd: Path | None = None, **environment: str) -> str:
        """Run a command and return what it printed; show that and stop if it failed."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd or self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            print(done.stdout + done.stderr)
            raise SystemExit(f"{' '.join(map(str, command))} failed with {done.returncode}")
        return done.stdout.strip()

    def recflow(self, *arguments: object, cwd: Path | None = None, module: str = "recflow", **environment: str) -> str:
        """Run recflow, or another of this Python's modules."""
        return self.do(sys.executable, "-m", module, *arguments, cwd=cwd, **environment)

    def succeeds(self, *command: object) -> bool:
        """Whether a command does."""
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def check(self, what: str, holds: bool) -> None:
        """Print and count what was checked."""
        print(f"{'passed' if holds else 'FAILED'}  {what}", flush=True)
        self.passed += holds
        self.failed += not holds


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print what is done and how long it took."""
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:5.0f} s  {what}", flush=True)


@contextlib.contextmanager
def temporary_folder(keep: bool) -> Iterator[Path]:
    """A folder that is gone afterwards, unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="recflow-image-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: export CONTAINERS_STORAGE_CONF={folder}/storage.conf; podman images")
        else:
            subprocess.run(["umount", folder / "images/overlay"], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(folder)


def pip_settings() -> dict[str, str]:
    """The settings of pip on this machine, by name; the environment's win."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = [line.split("=", 1) for line in listed.stdout.splitlines()]
    pairs.sort(key=lambda pair: pair[0].startswith(":env:"))
    return {name.rpartition(".")[2]: ast.literal_eval(value) for name, value in pairs}


def make_base(trial: Trial, rootfs: Path | None, settings: dict[str, str]) -> None:
    """The stand-in for the base image."""
    container = trial.do("buildah", "from", "scratch")
    root = Path(trial.do("buildah", "mount", container))
    if rootfs is None or not rootfs.exists():
        included = "python3,python3-pip,python3-venv,ca-certificates"
        target = rootfs or root
        trial.do("debootstrap", "--variant=minbase", f"--include={included}", "bookworm", target)
    if rootfs is not None:
        trial.do("cp", "-a", f"{rootfs}/.", root)
    for waste in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / waste)
    next(root.glob("usr/lib/python3*/EXTERNALLY-MANAGED")).unlink()
    (root / "usr/bin/python").symlink_to("python3")
    shutil.copy(settings.get("cert", CERTIFICATES), root / CERTIFICATES[1:])
    environment = {
        "SSL_CERT_FILE": CERTIFICATES,
        "PIP_INDEX_URL": settings.get("index-url"),
        "UV_DEFAULT_INDEX": settings.get("index-url"),
        "PIP_FIND_LINKS": settings.get("find-links"),
        "UV_FIND_LINKS": settings.get("find-links"),
    }
    for name, value in environment.items():
        if value:
            trial.do("buildah", "config", "--env", f"{name}={value}", container)
    trial.do("buildah", "commit", "--rm", container, BASE)


def build(trial: Trial, settings: dict[str, str]) -> None:
    """The Bento, with the packaged model, and its image."""
    folders = [link for link in settings.get("find-links", "").split() if Path(link).is_dir()]
    # Where torch lies in a folder, that is where it is meant to come from; else its index of CPU builds is asked.
    index = {"RECFLOW_TORCH_INDEX": ""} if any(list(Path(folder).glob("torch-*")) for folder in folders) else {}
    with step("bentoml build"):
        trial.recflow("build", module="bentoml", cwd=CHECKOUT, **index)
    volumes = [word for folder in folders for word in ("--opt", f"volume={folder}:{folder}:ro")]
    with step("bentoml containerize"):
        trial.recflow("containerize", "recflow:latest", "--backend=buildah", "-t", IMAGE, *volumes, module="bentoml")


def get(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def plugin(url: str) -> str:
    """What is served."""
    return str(json.loads(get(f"{url}/api/models")[1])["models"][0]["plugin"])


@contextlib.contextmanager
def container(trial: Trial, *options: object) -> Iterator[tuple[str, str]]:
    """A container that answers: its name and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name, url = f"recflow-{port}", f"http://127.0.0.1:{port}"
    trial.do("podman", "run", "--detach", "--name", name, "--env", f"PORT={port}", *RUN, *options, IMAGE)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if get(f"{url}/readyz")[0] == 200:
                    break
            if time.monotonic() > deadline:
                subprocess.run(["podman", "logs", name], env=trial.environment, check=False)
                raise SystemExit(f"no answer within {PATIENCE} s")
            time.sleep(0.2)
        yield name, url
    finally:
        trial.do("podman", "rm", "--force", "--time=10", name)


def stops_gracefully(trial: Trial, name: str, url: str) -> bool:
    """Whether a request that is under way when the container is stopped is answered, and the container ends well."""
    body = b'{"user_id": 1, "top_k": 4}'
    fields = ("POST /recommend HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "".join(f"{field}\r\n" for field in (*fields, ""))
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=PATIENCE) as caller:
        caller.sendall(head.encode() + body[:10])
        time.sleep(0.5)  # until the worker has begun to read it
        quiet = subprocess.DEVNULL
        stop = ["podman", "stop", "--time=20", name]
        stopping = subprocess.Popen(stop, env=trial.environment, stdout=quiet, stderr=quiet)
        time.sleep(0.5)
        caller.sendall(body[10:])
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
    stopping.wait()
    code = trial.do("podman", "inspect", "--format={{.State.ExitCode}}", name)
    return answer.startswith(b"HTTP/1.1 200") and answer.count(b'"rank"') == 4 and code in {"0", "143"}


def try_image(trial: Trial, bundle: Path) -> None:
    """Run the image with its own model, then with one that is mounted."""
    size = int(trial.do("podman", "image", "inspect", "--format={{.Size}}", IMAGE)) / 1e6
    trial.check(f"the image has {size:,.0f} MB, of {MOST_MB:,}", size <= MOST_MB)
    start = time.monotonic()
    with container(trial) as (name, url):
        trial.check(f"/readyz answers, {time.monotonic() - start:.1f} s after the start", True)
        status, answer = get(f"{url}/api/recommend?user_id=1&top_k=5")
        trial.check("a recommendation", status == 200 and len(json.loads(answer)["recommendations"]) == 5)
        trial.check("of the packaged model", plugin(url) == "popularity")
        trial.check("the page", "web/main.js" in get(f"{url}/")[1] and get(f"{url}/web/main.js")[0] == 200)
        user = trial.do("podman", "exec", name, "id", "-un"), trial.do("podman", "exec", name, "id", "-u")
        trial.check(f"runs as {user[0]} ({user[1]}), not as root", user[1] != "0")
        trial.check("the health check passes", trial.succeeds("podman", "healthcheck", "run", name))
        memory = trial.do("podman", "exec", name, "python", "-c", MEMORY)
        print(f"        {memory} MB of memory")
        trial.check("a request under way at SIGTERM is answered", stops_gracefully(trial, name, url))
    with container(trial, "--volume", f"{bundle}:/bundle:ro", "--env=RECFLOW_BUNDLE=/bundle") as (name, url):
        trial.check("a mounted bundle wins over the image's model", plugin(url) == "random")
    done = subprocess.run(
        ["podman", "run", "--rm", *RUN, "--env=RECFLOW_BUNDLE=/nowhere", IMAGE],
        env=trial.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    trial.check("a bundle that is not there is named and refused", done.returncode != 0 and "/nowhere" in done.stderr)


def main() -> int:
    """Try it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rootfs", type=Path, help="folder of the base system; debootstrap makes it if it is not there"
    )
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder, image and all, in place")
    options = parser.parse_args()
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        print(f"missing: {', '.join(missing)}; apt-get install --no-install-recommends {' '.join(NEEDED)}")
        return 2
    if os.geteuid() != 0:
        print("debootstrap and buildah's chroot need root")
        return 2
    settings = pip_settings()
    with temporary_folder(options.keep) as folder:
        trial = Trial(folder)
        with step("the base image"):
            make_base(trial, options.rootfs and options.rootfs.absolute(), settings)
        with step("two models of the embedded sample, one of them packaged"):
            trial.recflow("fit", "--plugin", "random", "--name", "mounted")
            trial.recflow("fit", "--plugin", "popularity", "--name", "packaged")
            trial.recflow("package")
        build(trial, settings)
        try_image(trial, folder / "runs/random/sample/mounted/bundle")
    print(f"{trial.passed} passed, {trial.failed} failed")
    return min(trial.failed, 1)


if __name__ == "__main__":
    sys.exit(main())
