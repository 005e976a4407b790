"""The real thing: BentoML in a process of its own, asked over a socket."""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from recflow.cli import main
from tests.serving.processes import PATIENCE, bentoml_serve, server


def test_bentoml_serves_the_service(bundle, finished, recommender, port, tmp_path):
    with (
        server(bentoml_serve(port), port, tmp_path, RECFLOW_BUNDLE=f"{bundle},{finished}") as (url, log, _),
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
        assert [one["default"] for one in client.get("/api/models").json()["models"]] == [True, False]

        for number in range(100):  # a scanner
            assert client.get(f"/{number}/wp-login.php").status_code == 404
        metrics = client.get("/metrics").text
        assert 'recflow_recommendations_total{model="lightgcn@' in metrics
        assert 'recflow_requests_total{endpoint="other",status="404"} 100.0' in metrics
        assert "wp-login" not in metrics
        assert len(metrics) < 100_000
        assert client.get("/docs.json").headers["X-Content-Type-Options"] == "nosniff"  # BentoML's own routes, too
        assert client.post("/recommend", content=(b"x" * 1000 for _ in range(2000))).status_code == 413
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
    with server(command, port, tmp_path) as (url, log, _):
        assert httpx.get(f"{url}/api/health").json()["data"] == "made-up"
        assert f"curl 'http://127.0.0.1:{port}/api/recommend?user_id=1&top_k=5'" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_what_is_under_way_is_answered_before_the_service_stops(bundle, port, tmp_path):
    body = b'{"user_id": 3, "top_k": 4}'
    head = (
        f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with (
        server(bentoml_serve(port), port, tmp_path, RECFLOW_BUNDLE=str(bundle)) as (_, log, leader),
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as caller,
    ):
        caller.sendall(head.encode() + body[:10])
        time.sleep(0.5)  # until the worker has begun to read it
        os.kill(leader, signal.SIGTERM)
        time.sleep(0.5)
        caller.sendall(body[10:])
        answer = b""
        while piece := caller.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b'"rank"') == 4
    assert "Traceback" not in log.read_text()


def test_a_rush_is_sent_away_quickly_and_the_service_recovers(bundle, port, tmp_path):
    key = {"X-API-Key": "a-long-enough-key"}
    settings = {"RECFLOW_MAX_IN_FLIGHT": "1", "RECFLOW_API_KEY": key["X-API-Key"], "RECFLOW_LOG_REQUESTS": "1"}
    with (
        server(bentoml_serve(port), port, tmp_path, RECFLOW_BUNDLE=str(bundle), **settings) as (url, log, _),
        httpx.Client(base_url=url, headers=key) as client,
    ):
        assert httpx.get(f"{url}/api/models").status_code == 401
        assert httpx.get(f"{url}/api/health").status_code == 200
        body = {"history": [{"item": 100 + item, "rating": 5} for item in range(50)], "reasons": True, "top_k": 60}

        def ask(_):
            started = time.perf_counter()
            response = client.post("/recommend", json=body)
            return response, time.perf_counter() - started

        def typical(answers, status):
            return statistics.median(seconds for response, seconds in answers if response.status_code == status)

        alone = typical(map(ask, range(10)), 200)
        with ThreadPoolExecutor(16) as pool:
            rush = list(pool.map(ask, range(200)))
        assert {response.status_code for response, _ in rush} == {200, 503}
        assert {response.headers.get("Retry-After") for response, _ in rush if response.status_code == 503} == {"1"}
        assert typical(rush, 503) < max(0.5, 5 * alone)  # of which most is these clients' own time
        assert typical(map(ask, range(10)), 200) < max(0.5, 3 * alone)
        logged = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        assert {"endpoint": "/recommend", "paths": {"fold-in": 1}}.items() <= logged[-1].items()
        assert "Movie" not in log.read_text()


def tampered(file):
    """One bit of a file turned over, in its middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


class TestBentoMLRefuses:
    """What cannot be served stops the start, with one line."""

    def one_line(self, tmp_path, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "serve", "recflow.serving.service:Recommender", "--port", "0"],
            cwd=tmp_path,
            env={**os.environ, "BENTOML_HOME": str(tmp_path / "store"), **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def test_nothing_to_serve(self, tmp_path):
        assert "set RECFLOW_BUNDLE to a run folder" in self.one_line(tmp_path)

    @pytest.mark.parametrize(
        ("damage", "sentence"),
        [
            (
                lambda b: (b / "weights.safetensors").write_bytes((b / "weights.safetensors").read_bytes()[:-9]),
                "cut short",
            ),
            (lambda b: tampered(b / "weights.safetensors"), "was changed or cut short"),
            (
                lambda b: (b / "bundle.json").write_text(
                    (b / "bundle.json").read_text().replace('"format_version": 1', '"format_version": 2')
                ),
                "is of bundle format 2",
            ),
        ],
        ids=["truncated", "tampered", "newer"],
    )
    def test_a_bundle_that_is_not_as_it_was_written(self, bundle, tmp_path, damage, sentence):
        shutil.copytree(bundle, tmp_path / "bundle")
        damage(tmp_path / "bundle")
        assert sentence in self.one_line(tmp_path, RECFLOW_BUNDLE="bundle")

    def test_a_setting_that_cannot_be_used(self, bundle, tmp_path):
        line = self.one_line(tmp_path, RECFLOW_BUNDLE=str(bundle), RECFLOW_MAX_BODY="1 MB")
        assert "RECFLOW_MAX_BODY must be a whole number above 0, got '1 MB'" in line


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

    @pytest.mark.parametrize(
        ("damage", "sentence"),
        [
            (lambda b: (b / "weights.safetensors").write_bytes(b"half"), "was changed or cut short"),
            (lambda b: tampered(b / "histories.safetensors"), "was changed or cut short"),
            (lambda b: tampered(b / "catalog.sqlite"), "was changed or cut short"),
            (lambda b: (b / "catalog.sqlite").unlink(), "catalog.sqlite"),
            (lambda b: (b / "bundle.json").write_text((b / "bundle.json").read_text()[:-40]), "bundle.json"),
            (lambda b: (b / "bundle.json").unlink(), "bundle"),
        ],
        ids=["truncated", "tampered histories", "tampered titles", "no titles", "half a manifest", "no manifest"],
    )
    def test_a_damaged_bundle(self, finished, tmp_path, capsys, damage, sentence):
        shutil.copytree(finished, tmp_path / "run")
        damage(tmp_path / "run" / "bundle")
        assert sentence in self.one_line(capsys, "--run", str(tmp_path / "run"))

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
