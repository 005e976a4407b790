"""The real thing: BentoML in a process of its own, asked over a socket."""

import os
import shutil
import socket
import subprocess
import sys

import httpx
import pytest

from recflow.cli import main
from tests.serving.processes import PATIENCE, bentoml_serve, server


def test_bentoml_serves_the_service(bundle, recommender, port, tmp_path):
    with (
        server(bentoml_serve(port), port, tmp_path, RECFLOW_BUNDLE=str(bundle)) as (url, log),
        httpx.Client(base_url=url) as client,
    ):
        got = client.get("/api/recommend?user_id=3&top_k=4").json()
        expected = [found.item.item_id for found in recommender.recommend(3, 4).recommendations]
        assert [found["item_id"] for found in got["recommendations"]] == expected
        assert client.post("/recommend", json={"user_id": 3, "top_k": 4}).json() == got
        assert client.post("/recommend", json={"history": []}).json()["path"] == "popular"
        assert client.get("/api/similar?item_id=101&top_k=5").json()["item"]["item_id"] == 101
        assert client.get("/api/health").json()["status"] == "ok"

        missing = client.post("/recommend", json={"user_id": 99})
        assert (missing.status_code, set(missing.json())) == (404, {"error"})
        refused = client.post("/recommend", json={"user_id": 3, "top_k": 0})
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (422, "top_k")

        assert "web/main.js" in client.get("/").text  # not BentoML's own page
        assert "web/docs.js" in client.get("/docs").text
        assert client.get("/static_content/swagger-ui-bundle.js").status_code == 200  # which that page needs
        for listing in ("/openapi.json", "/docs.json"):
            assert {"/recommend", "/api/recommend", "/api/similar"} <= set(client.get(listing).json()["paths"])
        assert client.get("/metrics").status_code == 200
        assert "Traceback" not in log.read_text()


def test_recflow_serve_serves_a_run(finished, port, tmp_path):
    program = "import sys; from recflow.cli import main; sys.exit(main())"
    command = [
        sys.executable,
        "-c",
        program,
        "serve",
        "--run",
        str(finished),
        "--host",
        "localhost",
        "--port",
        str(port),
    ]
    with server(command, port, tmp_path) as (url, log):
        assert httpx.get(f"{url}/api/health").json()["data"] == "made-up"
        assert f"curl 'http://127.0.0.1:{port}/api/recommend?user_id=1&top_k=5'" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_bentoml_without_a_model_stops_with_one_line(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RECFLOW_BUNDLE"}
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", "recflow.serving.service:Recommender", "--port", "0"],
        cwd=tmp_path,
        env={**environment, "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "set RECFLOW_BUNDLE to a run folder" in done.stderr


class TestMistakes:
    """``recflow serve`` says what is wrong on one line, before BentoML is started."""

    @pytest.fixture(autouse=True)
    def _never_start(self, monkeypatch):
        monkeypatch.setattr(os, "execvpe", lambda *_: pytest.fail("was started"))

    def one_line(self, capsys, *argv):
        assert main(["serve", *argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("recflow: error: ")
        assert len(error.splitlines()) == 1
        return error

    def test_a_run_that_has_not_finished(self, tmp_path, capsys):
        (tmp_path / "config.yaml").write_text("{}\n")
        assert "has not finished" in self.one_line(capsys, "--run", str(tmp_path))

    def test_a_folder_that_is_no_run(self, tmp_path, capsys):
        assert "is no run" in self.one_line(capsys, "--run", str(tmp_path / "nowhere"))

    def test_a_damaged_bundle(self, finished, tmp_path, capsys):
        shutil.copytree(finished, tmp_path / "run")
        (tmp_path / "run" / "bundle" / "weights.safetensors").write_bytes(b"half")
        assert "was changed or cut short" in self.one_line(capsys, "--run", str(tmp_path / "run"))

    def test_a_port_in_use(self, finished, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            error = self.one_line(capsys, "--run", str(finished), "--port", port)
        assert f"127.0.0.1:{port}: Address already in use" in error

    def test_a_host_that_is_not_here(self, finished, capsys):
        assert "203.0.113.1" in self.one_line(capsys, "--run", str(finished), "--host", "203.0.113.1")

    @pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
    def test_a_port_that_is_none(self, port, capsys):
        assert "--port" in self.one_line(capsys, f"--port={port}")
