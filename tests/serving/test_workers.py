"""Workers that are killed, and services that are stopped, while clients are asking."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter

import httpx
import psutil
import pytest

from tests.serving.processes import PATIENCE, bentoml_serve, free_port, server

CLIENTS = 8
BROKEN = {"ConnectError", "ReadError", "RemoteProtocolError", "WriteError"}  # never an answer that is none


@contextlib.contextmanager
def asking(url):
    """Clients that ask until the end; gives what they were answered, by status or by the kind of failure."""
    answered, over = Counter(), threading.Event()

    def client():
        with httpx.Client(base_url=url, timeout=PATIENCE) as session:
            while not over.is_set():
                try:
                    answered[session.get("/api/recommend?user_id=3").status_code] += 1
                except httpx.TransportError as error:
                    answered[type(error).__name__] += 1
                    time.sleep(0.05)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def workers(pid):
    return {one.pid for one in psutil.Process(pid).children() if one.status() != psutil.STATUS_ZOMBIE}


def wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def more(answered, status=200, number=20):
    """Whether some more requests are answered so from now on."""
    goal = answered[status] + number
    wait_for(lambda: answered[status] >= goal)
    return True


@pytest.fixture(scope="module")
def running(bundle, tmp_path_factory):
    port, settings = free_port(), {"RECFLOW_BUNDLE": str(bundle), "RECFLOW_WORKERS": "2"}
    with server(bentoml_serve(port), port, tmp_path_factory.mktemp("workers"), **settings) as one:
        wait_for(lambda: started(one) == 2)
        yield one


def started(running):
    return running.log.read_text().count("Completed async startup hook")


def test_killed_workers_cost_their_own_connections_and_come_back(running):
    url, log, pid = running
    first, second = workers(pid)
    with asking(url) as answered:
        assert more(answered)
        os.kill(first, signal.SIGKILL)
        assert more(answered)  # by the other one
        os.kill(second, signal.SIGKILL)  # now there is none: who asks waits until one is back
        wait_for(lambda: started(running) == 4)
        assert more(answered)
    assert len(workers(pid)) == 2
    assert not workers(pid) & {first, second}
    assert set(answered) <= {200, *BROKEN}
    assert answered.total() - answered[200] <= 2 * CLIENTS
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert 'recflow_requests_total{endpoint="/api/recommend",status="200"}' in httpx.get(f"{url}/metrics").text
    assert "Traceback" not in log.read_text()


def test_a_stop_under_load_leaves_nobody_behind(running):
    """Runs last. That what is under way is answered is tested by itself, beside ``bentoml serve``."""
    url, log, pid = running
    main = psutil.Process(pid)
    family = [main, *main.children(recursive=True)]
    with asking(url) as answered:
        assert more(answered)
        os.kill(pid, signal.SIGTERM)
        assert main.wait(PATIENCE) == 0
    assert set(answered) <= {200, *BROKEN}
    # an idle connection that was closed as its client asked, and then one that no worker had taken any more
    assert answered.total() - answered[200] - answered["ConnectError"] <= 3 * CLIENTS
    assert not any(one.is_running() for one in family)
    assert "Traceback" not in log.read_text()
