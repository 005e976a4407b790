import html
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from recflow.errors import RecflowError
from recflow.serving.app import make_app


@pytest.fixture(scope="module")
def client(recommender):
    return TestClient(make_app(recommender))


def refusal(response):
    """Field and reason of a refused request with one thing wrong."""
    assert response.status_code == 422, response.text
    answer = response.json()
    assert set(answer) == {"error", "fields"}
    (only,) = answer["fields"]
    assert answer["error"] == f"{only['field']}: {only['reason']}"
    return only["field"], only["reason"]


class TestRecommend:
    def test_get_answers_a_user_of_the_data(self, client, recommender):
        answer = client.get("/api/recommend", params={"user_id": 3, "top_k": 4}).json()
        expected = recommender.recommend(3, 4).recommendations
        assert {name: answer[name] for name in ("path", "model", "data")} == {
            "path": "known user",
            "model": "lightgcn",
            "data": "made-up",
        }
        assert [found["rank"] for found in answer["recommendations"]] == [1, 2, 3, 4]
        first, best = answer["recommendations"][0], expected[0]
        assert first == {
            "rank": 1,
            "item_id": best.item.item_id,
            "title": best.item.title,
            "year": best.item.year,
            "genres": ["Drama"],
            "score": pytest.approx(best.score),
            "because": [],
        }

    def test_ten_items_unless_told(self, client):
        assert len(client.get("/api/recommend?user_id=3").json()["recommendations"]) == 10

    def test_get_and_post_agree(self, client):
        got = client.get("/api/recommend?user_id=3&top_k=7&reasons=true").json()
        for user_id in (3, "3"):
            posted = client.post("/recommend", json={"user_id": user_id, "top_k": 7, "reasons": True}).json()
            assert posted == got
        assert any(found["because"] for found in got["recommendations"])

    def test_someone_new_gets_a_fold_in_of_the_history(self, client, recommender):
        history = [{"item": 105, "rating": 4.5}, {"item": "movie 7 <&> (1947)"}, {"item": 108, "rating": 1}]
        answer = client.post("/recommend", json={"history": history, "top_k": 60, "reasons": True}).json()
        expected = recommender.recommend_for_history({105: 4.5, 107: None, 108: 1}, 60)
        assert answer["path"] == "fold-in"
        items = [found["item_id"] for found in answer["recommendations"]]
        assert items == [found.item.item_id for found in expected.recommendations]
        assert len(items) == 57
        assert not {105, 107, 108} & set(items)
        spoken_for = {title for found in answer["recommendations"] for title in found["because"]}
        assert spoken_for == {"Movie 5 <&> (1945)", "Movie 7 <&> (1947)"}

    def test_one_item_named_twice_counts_once_and_the_last_rating_holds(self, client):
        once = {"history": [{"item": 107, "rating": 5}, {"item": 105, "rating": 2}]}
        twice = {"history": [{"item": "105", "rating": 5}, {"item": 107}, {"item": 105, "rating": 2}]}
        assert client.post("/recommend", json=twice).json() == client.post("/recommend", json=once).json()

    @pytest.mark.parametrize("history", [[], [{"item": 100, "rating": 1}]])
    def test_nothing_liked_gives_what_is_popular(self, client, history):
        answer = client.post("/recommend", json={"history": history, "top_k": 2}).json()
        assert answer["path"] == "popular"
        first = 100 + len(history)
        assert [found["item_id"] for found in answer["recommendations"]] == [first, first + 1]

    def test_eight_threads_get_what_one_gets(self, client):
        bodies = [{"user_id": user} for user in range(1, 21)]
        bodies += [{"history": [{"item": f"Movie {item} <&>"}], "reasons": True} for item in range(20)]
        alone = [client.post("/recommend", json=body).json() for body in bodies]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda body: client.post("/recommend", json=body).json(), bodies * 5))
        assert together == alone * 5


class TestSimilar:
    def test_neighbours_by_id_and_by_title(self, client, recommender):
        by_id = client.get("/api/similar", params={"item_id": 109, "top_k": 5}).json()
        by_title = client.get("/api/similar", params={"item_id": "movie 9 <&>", "top_k": 5}).json()
        assert by_id == by_title
        assert by_id["item"] == {"item_id": 109, "title": "Movie 9 <&> (1949)", "year": 1949, "genres": ["Drama"]}
        expected = recommender.similar(109, 5)[1]
        assert [found["item_id"] for found in by_id["similar"]] == [found.item.item_id for found in expected]
        assert [found["rank"] for found in by_id["similar"]] == [1, 2, 3, 4, 5]


class TestProblems:
    @pytest.mark.parametrize(
        ("path", "body", "sentence"),
        [
            ("/api/recommend?user_id=99", None, "There is no user '99'"),
            ("/api/recommend?user_id=nobody", None, "There is no user 'nobody'"),
            ("/api/recommend?user_id=" + "9" * 30, None, "There is no user"),
            ("/api/similar?item_id=7", None, "There is no item"),
            ("/recommend", {"user_id": "nobody"}, "There is no user 'nobody'"),
            ("/recommend", {"history": [{"item": "Movie 9 <& (1949)"}]}, "did you mean 'Movie 9 <&> (1949)'"),
        ],
    )
    def test_the_unknown_is_not_found(self, client, path, body, sentence):
        response = client.get(path) if body is None else client.post(path, json=body)
        assert response.status_code == 404
        assert set(response.json()) == {"error"}
        assert sentence in response.json()["error"]

    @pytest.mark.parametrize(
        ("query", "field", "reason"),
        [
            ("recommend?user_id=1&top_k=0", "top_k", "greater than or equal to 1"),
            ("recommend?user_id=1&top_k=1001", "top_k", "less than or equal to 1000"),
            ("recommend?user_id=1&top_k=ten", "top_k", "valid integer"),
            ("recommend?user_id=1&topk=3", "topk", "there is no such field"),
            ("recommend", "user_id", "required"),
            ("recommend?user_id=", "user_id", "1 to 500"),
            ("recommend?user_id=" + "x" * 501, "user_id", "1 to 500"),
            ("similar?item_id=101&reasons=true", "reasons", "there is no such field"),
        ],
    )
    def test_a_query_that_cannot_be_used(self, client, query, field, reason):
        name, why = refusal(client.get(f"/api/{query}"))
        assert name == field
        assert reason in why

    @pytest.mark.parametrize(
        ("body", "field", "reason"),
        [
            ({}, "body", "neither"),
            ({"user_id": None}, "body", "neither"),
            ({"user_id": 1, "history": []}, "body", "both"),
            ({"user_id": 1, "top_k": 0}, "top_k", "greater than or equal to 1"),
            ({"user_id": 1, "top_k": "3"}, "top_k", "valid integer"),
            ({"user_id": 1, "reasons": "yes"}, "reasons", "valid boolean"),
            ({"user_id": True}, "user_id", "whole number, or text"),
            ({"user_id": 1.5}, "user_id", "whole number, or text"),
            ({"user_id": 1, "because": True}, "because", "there is no such field"),
            ({"history": [{"item": 100}] * 1001}, "history", "at most 1000"),
            ({"history": [{"item": 101}, {"item": 100, "rating": 7}]}, "history.1.rating", "from 1 to 5, got 7"),
            ({"history": [{"item": 100, "rating": "4"}]}, "history.0.rating", "valid number"),
            ({"history": [{"rating": 4}]}, "history.0.item", "required"),
            ({"history": [{"item": 100, "stars": 4}]}, "history.0.stars", "there is no such field"),
            ([], "body", "JSON object"),
            ("user 1", "body", "JSON object"),
        ],
    )
    def test_a_body_that_cannot_be_used(self, client, body, field, reason):
        name, why = refusal(client.post("/recommend", json=body))
        assert name == field
        assert reason in why

    @pytest.mark.parametrize("text", ["{", "", '{"history": [{"item": 100, "rating": NaN}]}'])
    def test_a_body_that_is_no_json(self, client, text):
        refusal(client.post("/recommend", content=text, headers={"Content-Type": "application/json"}))

    @pytest.mark.parametrize(
        ("text", "field"), [(r'{"user_id": "\ud800"}', "user_id"), (r'{"user_id": 1, "\ud800": 1}', "body")]
    )
    def test_half_a_character_is_refused(self, client, text, field):
        name, _ = refusal(client.post("/recommend", content=text, headers={"Content-Type": "application/json"}))
        assert name == field

    def test_a_body_sent_as_a_form_is_told_what_it_lacks(self, client):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        _, reason = refusal(client.post("/recommend", content='{"user_id": 1}', headers=headers))
        assert "Content-Type: application/json" in reason

    def test_many_mistakes_are_not_all_listed(self, client):
        answer = client.post("/recommend", json={"history": [{}] * 1000}).json()
        assert len(answer["fields"]) == 10

    def test_what_a_model_cannot_do_is_one_sentence(self, client, recommender, monkeypatch):
        def refuse(*_):
            raise RecflowError("This model has no notion of similar items.")

        monkeypatch.setattr(recommender, "similar", refuse)
        response = client.get("/api/similar?item_id=101")
        assert response.status_code == 422
        assert response.json() == {"error": "This model has no notion of similar items.", "fields": []}

    def test_a_validation_error_of_our_own_is_not_the_clients(self, recommender, monkeypatch):
        class Strict(BaseModel):
            number: int

        monkeypatch.setattr(recommender, "recommend", lambda *_, **__: Strict(number="no"))
        response = TestClient(make_app(recommender), raise_server_exceptions=False).get("/api/recommend?user_id=1")
        assert response.status_code == 500
        assert set(response.json()) == {"error"}
        assert "number" not in response.text

    def test_no_such_method(self, client):
        response = client.get("/recommend")
        assert response.status_code == 405
        assert response.json() == {"error": "Method Not Allowed"}


def test_health_says_what_is_served(client):
    answer = client.get("/api/health").json()
    assert answer.pop("recflow")
    assert answer == {
        "status": "ok",
        "model": "lightgcn",
        "task": "ranking",
        "data": "made-up",
        "users": 20,
        "items": 60,
    }


def test_every_link_of_the_index_works_and_no_other_host_is_named(client):
    pages = [client.get("/").text, client.get("/docs").text]
    assert not any("//" in re.sub(r"<!--.*?-->|// .*", "", page) for page in pages)
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+)"', pages[0])]
    assert len(links) == 5
    assert all(client.get(f"/{link}").status_code == 200 for link in links)
    assert "Movie 0 &lt;&amp;&gt;" in pages[0]


def test_the_openapi_page_lists_every_route_with_its_problems(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/api/recommend", "/api/similar", "/api/health", "/recommend"}
    assert set(paths["/recommend"]["post"]["responses"]) == {"200", "404", "422"}
    names = {parameter["name"] for parameter in paths["/api/recommend"]["get"]["parameters"]}
    assert names == {"user_id", "top_k", "reasons"}


def test_the_service_imports_nothing_that_training_needs(bundle):
    program = """
import sys
from fastapi.testclient import TestClient
from recflow.serving.service import Recommender, app
assert "torch" not in sys.modules, "BentoML's parent process needs no torch"
Recommender()
assert TestClient(app).post("/recommend", json={"user_id": 1, "reasons": True}).status_code == 200
heavy = set("lightning pytorch_lightning torchmetrics torch_geometric optuna polars pandas matplotlib".split())
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    environment = {**os.environ, "RECFLOW_BUNDLE": str(bundle)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
