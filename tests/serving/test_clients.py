"""Clients that hang, leave, or send what no client should: against the service in a process of its own."""

import contextlib
import gzip
import json
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from recflow.serving.connections import MOST, PATIENCE
from tests.serving.processes import bentoml_serve, free_port, server

SECRET = "the-key-of-this-service"


@pytest.fixture(scope="module")
def running(bundle, tmp_path_factory):
    port, settings = free_port(), {"RECFLOW_API_KEY": SECRET, "RECFLOW_LOG_REQUESTS": "1"}
    with server(
        bentoml_serve(port), port, tmp_path_factory.mktemp("clients"), RECFLOW_BUNDLE=str(bundle), **settings
    ) as one:
        yield one


@pytest.fixture
def worker(running):
    (only,) = psutil.Process(running.pid).children()
    return only


def connected(running):
    url = httpx.URL(running.url)
    return socket.create_connection((url.host, url.port), timeout=3 * PATIENCE)


def head(method="GET", target="/api/recommend?user_id=3", **headers):
    fields = {"Host": "x", "X-API-Key": SECRET, **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(body, **headers):
    return head("POST", "/recommend", Content_Type="application/json", Content_Length=len(body), **headers) + body


def answer(caller):
    """All that comes until the connection is closed, by whichever side."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := caller.recv(65536):
            got += piece
    return got


def seconds_to_be_answered(running):
    started = time.perf_counter()
    response = httpx.get(f"{running.url}/api/recommend?user_id=3", headers={"X-API-Key": SECRET}, timeout=3 * PATIENCE)
    assert response.status_code == 200
    return time.perf_counter() - started


CLOSE = {"Connection": "close"}
GARBAGE = {
    "noise": b"\x00\xff\xfe noise \r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + b"\x01" * 150,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /api/health HTTP/1.1\r\n\r\n",
    "a long head": head(X="a" * 400_000),
    "many headers": head(**{f"X{number}": number for number in range(50_000)}),
    "a long path": head(target="/" + "a" * 400_000),
    "two lengths": post(b"{}", content_length=3),
    "a length below nothing": head("POST", "/recommend", Content_Length=-2) + b"{}",
    "a length of 5,000 digits": head("POST", "/recommend", Content_Length="9" * 5_000),
    "chunks that are none": head("POST", "/recommend", Transfer_Encoding="chunked") + b"zz\r\n{}\r\n0\r\n\r\n",
    "WebSocket": head(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="AAAA", Sec_WebSocket_Version=13),
    "no such method": head("BREW", **CLOSE),
    "an escape that is none": head(target="/api/%zz", **CLOSE),
    "a zero byte in the path": head(target="/web/%00", **CLOSE),
    "a zero byte in the query": head(target="/api/recommend?user_id=%00", **CLOSE),
    "a way out of the folder": head(target="/web/..%2f..%2fapp.py", **CLOSE),
    "no UTF-8": post(b'{"user_id": "\xff\xfe"}', **CLOSE),
    "nested": post(b"[" * 500_000, **CLOSE),
    "nested objects": post(b'{"a":' * 100_000, **CLOSE),
    "nested within what the reader bears": post(b'{"user_id":' + b"[" * 900 + b"]" * 900 + b"}", **CLOSE),
    "no number": post(b'{"user_id": NaN}', **CLOSE),
    "beyond all numbers": post(b'{"diversity": 1e999}', **CLOSE),
    "minus infinity": post(b'{"history": [{"item": 101, "rating": -Infinity}]}', **CLOSE),
    "an id of 400 digits": post(b'{"user_id": 1' + b"0" * 400 + b"}", **CLOSE),
    "a rating of 400 digits": post(b'{"history": [{"item": 101, "rating": 1' + b"0" * 400 + b"}]}", **CLOSE),
    "a year of 5,000 digits": post(b'{"year_from": 1' + b"0" * 5_000 + b"}", **CLOSE),
    "half a character": post(rb'{"model": "\ud800"}', **CLOSE),
    "another encoding": post(gzip.compress(b'{"user_id": 3}'), Content_Encoding="gzip", **CLOSE),
    "70,000 fields": post(json.dumps({f"k{number}": 1 for number in range(70_000)}).encode(), **CLOSE),
    "another type": head("POST", "/recommend", Content_Type="multipart/form-data", Content_Length=2, **CLOSE) + b"{}",
}


class TestGarbage:
    @pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
    def test_what_is_no_request_is_refused_at_once(self, running, sent):
        with connected(running) as caller:
            with contextlib.suppress(ConnectionError):  # it may hang up on us before we are done
                caller.sendall(sent)
            started = time.perf_counter()
            got = answer(caller)
        assert time.perf_counter() - started < PATIENCE - 1
        assert got.startswith(b"HTTP/1.1 4") or not got, got[:200]
        assert b"Traceback" not in got

    def test_of_two_equal_keys_the_last_holds(self, running):
        with connected(running) as caller:
            caller.sendall(post(b'{"user_id": 99, "user_id": 3, "top_k": 1}', **CLOSE))
            assert answer(caller).startswith(b"HTTP/1.1 200")


class TestHanging:
    def test_who_hangs_is_hung_up_on_and_nobody_else_waits(self, running, worker):
        seconds_to_be_answered(running)
        files = worker.num_fds()

        def silent(caller):
            pass

        def half_a_head(caller):
            caller.sendall(head()[:30])

        def drop_by_drop(caller):
            with contextlib.suppress(ConnectionError):
                for byte in head(X="a" * 1000):
                    caller.sendall(bytes([byte]))
                    time.sleep(0.1)

        def half_a_body(caller):
            caller.sendall(post(b'{"user_id": 3}')[:-5])

        def half_a_second_head(caller):
            caller.sendall(head() + head()[:30])

        def unread(caller):  # far more than the buffers of both sides hold
            with contextlib.suppress(ConnectionError, TimeoutError):
                caller.settimeout(1)
                for _ in range(100):
                    caller.sendall(head(target="/openapi.json") * 10)

        kinds = [silent, half_a_head, drop_by_drop, half_a_body, half_a_second_head, unread]
        callers = [connected(running) for kind in kinds for _ in range(20 if kind is not drop_by_drop else 3)]
        with ThreadPoolExecutor(len(callers)) as pool:
            started, each = time.perf_counter(), iter(callers)
            done = [
                pool.submit(kind, next(each)) for kind in kinds for _ in range(20 if kind is not drop_by_drop else 3)
            ]
            waits = [seconds_to_be_answered(running) for _ in range(10)]
            assert sorted(waits)[5] < 1, waits
            while worker.num_fds() > files and time.perf_counter() - started < 4 * PATIENCE:
                time.sleep(0.2)
            assert worker.num_fds() <= files
            assert all(one.exception(timeout=4 * PATIENCE) is None for one in done)
        for caller in callers:
            caller.close()

    def test_who_leaves_in_the_middle_leaves_nothing_behind(self, running, worker):
        seconds_to_be_answered(running)
        files = worker.num_fds()
        for sent in (head()[:30], head(), post(b'{"user_id": 3}')[:-5], post(b'{"user_id": 3}'), b"") * 20:
            with connected(running) as caller:
                caller.sendall(sent)
        seconds_to_be_answered(running)
        deadline = time.monotonic() + PATIENCE
        while worker.num_fds() > files and time.monotonic() < deadline:
            time.sleep(0.1)
        assert worker.num_fds() <= files

    def test_more_connections_than_there_is_room_for_push_out_the_oldest(self, running, worker):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 2 * MOST:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * MOST, hard), hard))
        with contextlib.ExitStack() as all_of_them:
            callers = [all_of_them.enter_context(connected(running)) for _ in range(MOST + 50)]
            assert seconds_to_be_answered(running) < PATIENCE
            assert worker.num_fds() < MOST + 40
            assert callers[0].recv(1) == b""
        assert seconds_to_be_answered(running) < PATIENCE


def test_the_log_says_nothing_of_all_that(running):
    """Runs last: what the requests above held must not have been written down."""
    marks = ("key-of-this", "user_id", "history", "a-guess", "aaaa", "1000000", "Traceback", "Movie", "\x00")
    httpx.get(f"{running.url}/api/recommend?user_id=13", headers={"X-API-Key": "a-guess"})
    for line in running.log.read_text().splitlines():
        assert not any(mark in line for mark in marks), line
        assert line.startswith(("{", "20")), line  # JSON of ours, or BentoML's with its time
    logged = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
    assert {401, 404, 408, 422, 499} <= {entry["status"] for entry in logged}
    assert all(entry["status"] < 500 for entry in logged)
    assert {entry["method"] for entry in logged} <= {"GET", "POST", "other"}
