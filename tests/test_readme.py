"""The README's commands and code do what it says."""

import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from recflow.data.sample import generate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUICK = ["--trainer.max_epochs", "3"]


def commands():
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line[2:], comments=True) for line in lines]


def run(arguments, folder):
    command = [sys.executable, "-m", "recflow", *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def needs_real_data(command):
    of_recipe = any(word.startswith("experiments/") for word in command)
    return of_recipe or ("--data" in command and "my.csv" not in command)


def quicker(command):
    if command[1] == "tune" and "--resume" not in command:
        return ["--trials", "2", *(QUICK if needs_real_data(command) else [])]
    return QUICK if command[1] == "fit" and (needs_real_data(command) or "my.csv" in command) else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))  # not the user's model store
        yield _filled(folder)


def _filled(folder):
    (folder / "experiments").symlink_to(ROOT / "experiments")
    own = {"user_id": "member", "item_id": "film", "rating": "stars", "time": "when"}
    generate(5_000).ratings.rename(own).write_csv(folder / "my.csv")
    return folder


@pytest.mark.slow
def test_the_commands_on_the_sample_work_in_their_order(folder):
    """The `fit` on the sample runs in full, as a new user would; those after it ask the run it leaves."""
    ran = []
    for command in commands():
        if command[0] != "recflow" or needs_real_data(command) or command[1] == "serve":
            continue
        done = run(command + quicker(command), folder)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        ran.append((command[1], done.stdout))
    names = ["fit", "recommend", "recommend", "similar", "test", "tune", "tune", "fit", "package"]
    names += ["data", "data", "fit", "recommend", "fit", "compare", "report", "reproduce"]
    assert [name for name, _ in ran] == names
    assert (folder / "recommendations.parquet").is_file()
    printed = re.search(r"^lightgcn +([\d.]+)", ran[0][1], re.MULTILINE)[1]
    stated = re.search(r"^lightgcn +([\d.]+)", README, re.MULTILINE)[1]
    assert float(printed) == pytest.approx(float(stated), abs=0.01)


@pytest.mark.data
def test_the_commands_on_real_data_work(folder):
    ran = 0
    for command in commands():
        if command[0] == "recflow" and needs_real_data(command):
            done = run(command + quicker(command), folder)
            assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
            ran += 1
    assert ran == 4


def test_the_python_code_works(folder):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_make_knows_its_targets():
    for command in commands():
        if command[0] == "make":
            subprocess.run([command[0], "--dry-run", *command[1:]], check=True, capture_output=True, cwd=ROOT)


@pytest.mark.slow
def test_serve_answers_the_curl_and_the_client(folder):
    curl = next(command for command in commands() if command[0] == "curl")
    subprocess.run(
        [sys.executable, "-m", "recflow", "fit", "--plugin", "popularity"], check=True, capture_output=True, cwd=folder
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "recflow", "serve", "--port", str(port)], cwd=folder)
    try:
        url = f"http://{curl[1].replace('localhost:3000', f'127.0.0.1:{port}')}"
        for _ in range(120):
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert b'"recommendations"' in answer.read()
                client = re.search(r"```py\n(.*?)```", README, re.DOTALL)[1].replace(
                    "localhost:3000", f"127.0.0.1:{port}"
                )
                done = subprocess.run([sys.executable, "-c", client], capture_output=True, text=True, check=True)
                assert done.stdout.startswith("known user [")
                return
            except OSError:
                time.sleep(0.5)
        pytest.fail("the service did not answer within a minute")
    finally:
        server.terminate()
        server.wait(20)
