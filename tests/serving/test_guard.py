"""What the outside is kept from: by real requests against the guarded app."""

import asyncio
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from recflow.errors import RecflowError
from recflow.serving import guard
from recflow.serving.app import endpoints, make_app
from recflow.serving.guard import Guard
from recflow.serving.settings import Settings
from recflow.serving.watch import _AsJson, exposition


def client_of(models, **settings):
    app = make_app(models)
    return TestClient(Guard(app, endpoints(app), Settings(**settings)))


class TestBody:
    @pytest.fixture
    def client(self, models):
        return client_of(models, max_body=200)

    def test_a_body_that_says_it_is_long_is_not_read(self, client):
        response = client.post("/recommend", content=b"x" * 201)
        assert response.status_code == 413
        assert response.json() == {"error": "The body is longer than 200 bytes."}

    def test_a_body_that_does_not_say_so_is_read_no_further_than_the_bound(self, client):
        sent = 0

        def endless():
            nonlocal sent
            while sent < 10_000:
                sent += 1
                yield b"x" * 50

        assert client.post("/recommend", content=endless()).status_code == 413

    def test_a_chunked_body_of_allowed_length_is_answered(self, client):
        pieces = (piece.encode() for piece in ('{"user_', 'id": 3', ', "top_k": 2}'))
        response = client.post("/recommend", content=pieces, headers={"Content-Type": "application/json"})
        assert len(response.json()["recommendations"]) == 2

    def test_a_body_that_does_not_arrive_is_waited_for_no_longer_than_agreed(self, models, monkeypatch):
        monkeypatch.setattr(guard, "PATIENCE", 0.05)
        app = make_app(models)
        sent = []

        async def hang():
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": [(b"content-length", b"50")]}
        asyncio.run(Guard(app, endpoints(app), Settings())(scope, hang, send))
        assert sent[0]["status"] == 408
        assert b"has not arrived" in sent[1]["body"]


class TestKey:
    KEY = "a-long-enough-key"

    @pytest.fixture
    def client(self, models):
        return client_of(models, api_key=self.KEY)

    @pytest.mark.parametrize("path", ["/api/recommend?user_id=3", "/api/models", "/metrics", "/nothing/here"])
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X-API-Key": "wrong"},
            {"X-API-Key": ""},
            {"Authorization": "Basic a-long-enough-key"},
            {"X-API-Key": "é"},
        ],
    )
    def test_without_it_nothing_of_the_data_is_told(self, client, path, headers):
        headers = {name: value.encode() for name, value in headers.items()}
        response = client.get(path, headers=headers)
        assert response.status_code == 401
        assert "X-API-Key" in response.json()["error"]
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("headers", [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}])
    def test_with_it_everything_is_answered(self, client, headers):
        assert client.get("/api/recommend?user_id=3", headers=headers).status_code == 200

    @pytest.mark.parametrize("path", ["/", "/web/main.js", "/docs", "/openapi.json", "/api/health"])
    def test_health_and_the_page_are_open(self, client, path):
        assert client.get(path).status_code == 200


class TestLoad:
    def test_one_more_than_can_be_borne_is_sent_away_at_once_and_later_served(self, models, recommender, monkeypatch):
        client, entered, go = client_of(models, max_in_flight=2), threading.Semaphore(0), threading.Event()
        answer = recommender.recommend

        def slow(*given, **named):
            entered.release()
            assert go.wait(30)
            return answer(*given, **named)

        monkeypatch.setattr(recommender, "recommend", slow)
        with client, ThreadPoolExecutor(2) as pool:  # `with`: all requests share one event loop
            under_way = [pool.submit(client.get, "/api/recommend?user_id=3") for _ in range(2)]
            assert all(entered.acquire(timeout=30) for _ in range(2))
            refused = client.get("/api/recommend?user_id=3")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert "Too many requests" in refused.json()["error"]
            assert client.get("/api/health").status_code == 200  # which stays quick
            go.set()
            assert [one.result().status_code for one in under_way] == [200, 200]
            assert client.get("/api/recommend?user_id=3").status_code == 200

    def test_who_is_slow_to_fetch_an_answer_holds_no_place(self):
        async def answering(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def main():
            fetched, load = asyncio.Event(), guard.Load(answering, 1, frozenset({"/slow"}))
            waiting = asyncio.create_task(load({"type": "http", "path": "/slow"}, None, lambda _: fetched.wait()))
            await asyncio.sleep(0)
            assert not waiting.done()
            assert load.under_way == 0
            fetched.set()
            await waiting
            assert load.under_way == 0

        asyncio.run(main())


class TestHeaders:
    def test_every_answer_is_careful(self, models):
        client = client_of(models)
        for path in ("/", "/api/recommend?user_id=3", "/api/recommend?user_id=99", "/web/main.js", "/nothing"):
            headers = client.get(path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
        assert "script-src 'self';" in client.get("/docs").headers["Content-Security-Policy"]

    def test_other_sites_may_call_only_where_they_are_named(self, models):
        for origins, allowed in (((), None), (("https://here.example",), "https://here.example")):
            client = client_of(models, cors_origins=origins, api_key="a-long-enough-key")
            response = client.get("/api/models", headers={"Origin": "https://here.example"})
            assert response.status_code == 401  # a page must be able to read this, too
            assert response.headers.get("Access-Control-Allow-Origin") == allowed
            other = client.get("/api/health", headers={"Origin": "https://there.example"})
            assert "Access-Control-Allow-Origin" not in other.headers


class TestWatch:
    def test_a_scanner_leaves_one_label_behind(self, models):
        client = client_of(models)
        client.get("/api/recommend?user_id=3")
        client.get("/nothing")
        before = exposition().count(b"\n")
        for number in range(50):
            client.get(f"/nothing/{number}")
            client.get(f"/web/{number}.php")
            client.get(f"/api/recommend?user_id=3&model=lightgcn&top_k={number + 1}")
        assert exposition().count(b"\n") == before

    def test_paths_and_unknown_users_are_counted(self, models):
        client = client_of(models)

        def count(line):
            found = [row for row in exposition().decode().splitlines() if row.startswith(line)]
            return float(found[0].split()[-1]) if found else 0

        known = 'recflow_recommendations_total{model="bpr-mf",path="known user"}'
        popular = 'recflow_recommendations_total{model="bpr-mf",path="popular"}'
        unknown = 'recflow_unknown_users_total{model="bpr-mf"}'
        before = count(known), count(popular), count(unknown)
        client.post("/batch_recommend", json={"user_ids": [1, 2, 3], "model": "bpr-mf"})
        client.get("/api/recommend?model=bpr-mf")
        client.get("/api/recommend?model=bpr-mf&user_id=nobody")
        assert (count(known), count(popular), count(unknown)) == (before[0] + 3, before[1] + 1, before[2] + 1)

    def test_the_log_says_what_happened_and_nothing_of_who_asked(self, models, caplog):
        client = client_of(models, log_requests=True)
        with caplog.at_level(logging.INFO, "recflow.serving"):
            client.post("/recommend", json={"history": [{"item": "Movie 17 <&>", "rating": 4.5}]})
            client.get("/api/recommend?user_id=13")
        lines = [_AsJson().format(record) for record in caplog.records if record.name == "recflow.serving"]
        first, second = map(json.loads, lines)
        lines = [json.dumps({**entry, "time": "", "ms": 0}) for entry in (first, second)]  # 4.5 ms tell nothing
        assert (first["endpoint"], first["status"], first["paths"]) == ("/recommend", 200, {"fold-in": 1})
        assert (second["model"], second["paths"]) == ("lightgcn", {"known user": 1})
        assert not any(told in line for line in lines for told in ("Movie", "4.5", "13,", "user_id", "history"))

    def test_a_method_that_a_client_made_up_is_not_logged(self, models, caplog):
        with caplog.at_level(logging.INFO, "recflow.serving"):
            client_of(models, log_requests=True).request("USER-13-LIKES-HEAT", "/recommend")
        assert [record.entry["method"] for record in caplog.records if record.name == "recflow.serving"] == ["other"]

    def test_a_client_that_left_is_no_fault_of_the_service(self, models, caplog):
        async def left():
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        app, sent = make_app(models), []
        scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": []}
        with caplog.at_level(logging.INFO, "recflow.serving"):
            asyncio.run(Guard(app, endpoints(app), Settings(log_requests=True))(scope, left, send))
        (record,) = caplog.records
        assert (record.levelname, record.entry["status"]) == ("INFO", 499)
        assert sent  # else BentoML would wait for an answer until its time limit

    def test_an_overload_is_logged_once_a_second_and_counted_in_full(self, models, caplog):
        client = client_of(models, max_in_flight=0)

        def count():
            rows = exposition().decode().splitlines()
            found = [
                row for row in rows if row.startswith('recflow_requests_total{endpoint="/api/movie",status="503"}')
            ]
            return float(found[0].split()[-1]) if found else 0

        before = count()
        with caplog.at_level(logging.INFO, "recflow.serving"):
            for _ in range(20):
                assert client.get("/api/movie?movie_id=101").status_code == 503
        assert count() == before + 20
        assert len([record for record in caplog.records if record.name == "recflow.serving"]) in {1, 2}

    def test_a_fault_is_counted_as_one_and_its_cause_is_not_told(self, models, recommender, monkeypatch, caplog):
        monkeypatch.setattr(recommender, "recommend", lambda *_, **__: 1 / 0)
        app = make_app(models)
        client = TestClient(Guard(app, endpoints(app), Settings()), raise_server_exceptions=False)
        with caplog.at_level(logging.INFO, "recflow.serving"):
            response = client.get("/api/recommend?user_id=13")
        assert (response.status_code, "ZeroDivision" in response.text) == (500, False)
        (entry,) = [record.entry for record in caplog.records if record.name == "recflow.serving"]
        assert (entry["status"], entry["endpoint"]) == (500, "/api/recommend")

    def test_what_goes_well_is_not_logged_unless_asked(self, models, caplog):
        with caplog.at_level(logging.INFO, "recflow.serving"):
            client_of(models).get("/api/recommend?user_id=3")
        assert not caplog.records


class TestSettings:
    def test_everything_has_a_default(self):
        assert Settings.read({}) == Settings()

    def test_what_is_set_is_read(self):
        environment = {
            "RECFLOW_API_KEY": "12345678",
            "RECFLOW_CORS_ORIGINS": "https://a.example, http://localhost:8000",
            "RECFLOW_MAX_IN_FLIGHT": "3",
            "RECFLOW_MAX_BODY": "1000",
            "RECFLOW_LOG_REQUESTS": "yes",
            "RECFLOW_WORKERS": "2",
            "RECFLOW_INDEX": "off",
        }
        assert Settings.read(environment) == Settings(
            "12345678", ("https://a.example", "http://localhost:8000"), 3, 1000, True, 2, False
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("RECFLOW_API_KEY", "short"),
            ("RECFLOW_API_KEY", "with a space in it"),
            ("RECFLOW_CORS_ORIGINS", "example.org"),
            ("RECFLOW_MAX_IN_FLIGHT", "0"),
            ("RECFLOW_MAX_BODY", "1 MB"),
            ("RECFLOW_WORKERS", "two"),
            ("RECFLOW_INDEX", "on"),
        ],
    )
    def test_what_cannot_be_used_is_refused_by_name(self, name, value):
        with pytest.raises(RecflowError, match=name):
            Settings.read({name: value})
