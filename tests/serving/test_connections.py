"""A connection of a worker that has been told to stop."""

import signal
import socket
import threading
import time

import pytest
import uvicorn

from recflow.serving import connections
from recflow.serving.connections import Bounded, notice_stops

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def stopping(monkeypatch):
    monkeypatch.setattr(connections, "STOPPING", threading.Event())
    return connections.STOPPING


@pytest.fixture
def caller():
    listening = socket.create_server(("127.0.0.1", 0))
    served = uvicorn.Server(uvicorn.Config(app, http=Bounded, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
    thread.start()
    with socket.create_connection(listening.getsockname(), timeout=10) as connection:
        yield connection
    served.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def asked(caller):
    """One answer; empty if there is none."""
    try:
        caller.sendall(ASK)
        time.sleep(0.05)
        return caller.recv(65536)
    except ConnectionError:
        return b""


def test_it_is_kept_between_requests_until_then_and_answers_one_more(stopping, caller):
    assert asked(caller).endswith(b"ok")
    assert asked(caller).endswith(b"ok")
    stopping.set()
    assert asked(caller).endswith(b"ok")  # what is under way is answered
    assert asked(caller) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_is_noticed_and_passed_on(stopping, number):
    passed = []
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(number, lambda *given: passed.append(given[0]))
    try:
        notice_stops()
        assert not stopping.is_set()
        signal.raise_signal(number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert stopping.is_set()
    assert passed == [number]
