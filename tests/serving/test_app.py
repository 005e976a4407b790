import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from recflow.errors import RecflowError
from recflow.serving.app import WEB, make_app


@pytest.fixture(scope="module")
def client(models):
    return TestClient(make_app(models))


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
            "genres": list(best.item.genres),
            "popularity": best.item.popularity,
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
        assert [found["score"] for found in answer["recommendations"]] == [None, None]  # no model was asked
        assert answer["recommendations"][0]["popularity"] == 60 - len(history)

    def test_nobody_in_particular_gets_what_is_popular(self, client):
        got = client.get("/api/recommend?top_k=2").json()
        assert got["path"] == "popular"
        assert client.post("/recommend", json={"top_k": 2}).json() == got

    @pytest.mark.parametrize("who", [{"user_id": 3}, {"history": [{"item": 105}]}, {}])
    def test_filters_leave_all_k_that_fit(self, client, who):
        wishes = {"genres": ["comedy"], "exclude_genres": ["Drama"], "year_from": 1950, "year_to": 1990}
        body = {**who, **wishes, "exclude": [111, "Movie 16 <&>"], "top_k": 60}
        answer = client.post("/recommend", json=body).json()
        found = {item["item_id"] for item in answer["recommendations"]}
        fitting = {item for item in range(110, 151) if item % 5 == 1} - {111, 116}
        seen = fitting - {
            item["item_id"] for item in client.post("/recommend", json={**who, "top_k": 60}).json()["recommendations"]
        }
        assert found == fitting - seen
        assert len(found) >= 3

    def test_get_filters_as_post_does(self, client):
        query = "user_id=3&genres=Comedy&genres=Sci-Fi&year_from=1950&exclude=111&diversity=0.5"
        body = {"user_id": 3, "genres": ["Comedy", "Sci-Fi"], "year_from": 1950, "exclude": [111], "diversity": 0.5}
        assert client.get(f"/api/recommend?{query}").json() == client.post("/recommend", json=body).json()

    def test_diversity_changes_the_list_and_keeps_its_first(self, client):
        plain, varied = (
            [
                found["item_id"]
                for found in client.get(f"/api/recommend?user_id=3&diversity={d}").json()["recommendations"]
            ]
            for d in (0, 0.9)
        )
        assert plain[0] == varied[0]
        assert plain != varied
        assert len(set(varied)) == 10

    def test_the_other_model_answers_when_asked(self, client, models):
        answer = client.get("/api/recommend?user_id=3&top_k=5&model=bpr-mf").json()
        expected = models.get("bpr-mf").recommender.recommend(3, 5).recommendations
        assert answer["model"] == "bpr-mf"
        assert [found["item_id"] for found in answer["recommendations"]] == [found.item.item_id for found in expected]
        assert client.get("/api/recommend?user_id=3&top_k=5").json()["model"] == "lightgcn"

    def test_many_users_get_what_each_gets_alone(self, client):
        body = {"user_ids": [7, "3", 7], "top_k": 4, "genres": ["Drama"]}
        answer = client.post("/batch_recommend", json=body).json()
        assert [user["user_id"] for user in answer["users"]] == [7, 3, 7]
        for user in answer["users"]:
            alone = client.get(f"/api/recommend?user_id={user['user_id']}&top_k=4&genres=Drama").json()
            assert user["path"] == alone["path"] == "known user"
            assert [found["item_id"] for found in user["recommendations"]] == [
                found["item_id"] for found in alone["recommendations"]
            ]

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
        assert by_id["item"] == {
            "item_id": 109,
            "title": "Movie 9 <&> (1949)",
            "year": 1949,
            "genres": [],
            "popularity": 51,
        }
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
            ("/api/recommend?user_id=1_0", None, "There is no user '1_0'"),  # which Python would take for 10
            ("/api/recommend?user_id=٣", None, "There is no user '٣'"),
            ("/recommend", {"user_id": "nobody"}, "There is no user 'nobody'"),
            ("/batch_recommend", {"user_ids": [1, "nobody"]}, "There is no user 'nobody'"),
            ("/recommend", {"user_id": 1, "exclude": [7]}, "There is no item"),
            ("/api/movie?movie_id=7", None, "There is no item"),
            ("/api/recommend?user_id=1&model=x", None, "There is no model 'x'; served are: lightgcn, bpr-mf."),
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
            ("recommend?year_from=2000&year_to=1990", "body", "year_from 2000 is after year_to 1990"),
            ("recommend?user_id=1&reasons=true&top_k=101", "body", "with reasons, top_k is 100 at most, got 101"),
            ("recommend?diversity=1.5", "diversity", "less than or equal to 1"),
            ("recommend?diversity=nan", "diversity", "finite"),
            ("recommend?genres=Comedi", "genres.0", "did you mean 'Comedy'?"),
            ("search?q=" + "x" * 201, "q", "at most 200"),
            ("search?q=a&top_k=101", "top_k", "less than or equal to 100"),
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
            ({"diversity": "0.5"}, "diversity", "valid number"),
            ({"genres": "Comedy"}, "genres", "valid list"),
            ({"exclude_genres": ["Comedy", "Western"]}, "exclude_genres.1", "There is no genre 'Western'"),
            ({"exclude": [1] * 1001}, "exclude", "at most 1000"),
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

    def test_a_thousand_made_up_fields_are_one_mistake(self, client):
        made_up = {f"field {number}": 1 for number in range(1000)}
        assert refusal(client.post("/recommend", json=made_up)) == (
            "body",
            "has 1000 fields, which is more than there are",
        )
        name, why = refusal(client.post("/recommend", json={"history": [{"item": 100}, made_up]}))
        assert (name, why) == ("history.1", "has 1000 fields, which is more than there are")

    def test_a_whole_number_may_be_written_with_a_point(self, client):
        body = {"user_id": 3, "top_k": 5, "year_from": 1950}
        with_points = {name: float(number) for name, number in body.items()}
        assert client.post("/recommend", json=with_points).json() == client.post("/recommend", json=body).json()

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

    @pytest.mark.parametrize(
        ("body", "field", "reason"),
        [
            ({"user_ids": []}, "user_ids", "at least 1"),
            ({"user_ids": [1] * 257}, "user_ids", "at most 256"),
            ({"user_ids": [1], "top_k": 101}, "top_k", "less than or equal to 100"),
        ],
    )
    def test_a_batch_is_bounded(self, client, body, field, reason):
        name, why = refusal(client.post("/batch_recommend", json=body))
        assert name == field
        assert reason in why

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"user_id": ' + "9" * 10_000 + "}"])
    def test_a_body_that_strains_the_reader_is_refused(self, client, text):
        response = client.post("/recommend", content=text, headers={"Content-Type": "application/json"})
        assert response.status_code in {400, 422}
        assert "error" in response.json()

    def test_a_validation_error_of_our_own_is_not_the_clients(self, models, recommender, monkeypatch):
        class Strict(BaseModel):
            number: int

        monkeypatch.setattr(recommender, "recommend", lambda *_, **__: Strict(number="no"))
        response = TestClient(make_app(models), raise_server_exceptions=False).get("/api/recommend?user_id=1")
        assert response.status_code == 500
        assert set(response.json()) == {"error"}
        assert "number" not in response.text

    def test_no_such_method(self, client):
        response = client.delete("/recommend")
        assert response.status_code == 405
        assert response.json() == {"error": "Method Not Allowed"}
        assert response.headers["Allow"] == "POST"
        assert client.delete("/api/recommend").headers["Allow"] == "GET, POST"


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
        "models": ["lightgcn", "bpr-mf"],
    }


def test_search_finds_titles_as_they_are_typed(client):
    got = client.get("/api/search", params={"q": "MOV 5", "top_k": 3}).json()
    assert [item["title"] for item in got["items"]] == [f"Movie {n} <&> (19{n + 40})" for n in (5, 50, 51)]
    assert client.post("/search", json={"q": "MOV 5", "top_k": 3}).json() == got
    assert client.get("/api/search?q=").json()["items"] == []


def test_a_movie_by_id_and_by_title(client):
    got = client.get("/api/movie?movie_id=101").json()
    assert got["item"] == {
        "item_id": 101,
        "title": "Movie 1 <&> (1941)",
        "year": 1941,
        "genres": ["Comedy"],
        "popularity": 59,
    }
    assert client.post("/movie", json={"movie_id": "movie 1 <&>"}).json() == got
    assert client.post("/api/movie", json={"movie_id": 101}).json() == got


def test_models_says_what_is_served_and_how_good_it_is(client):
    first, second = client.get("/api/models").json()["models"]
    assert [first["model"], first["default"], second["model"], second["default"]] == ["lightgcn", True, "bpr-mf", False]
    assert first["metrics"] == {"ndcg@10": 0.25}
    assert first["trained_on"]["split"] == "ratio 8:1:1 per user, random, seed 42"
    assert first["genres"] == ["Comedy", "Drama", "Sci-Fi"]
    assert first["years"] == [1940, 1999]
    assert (first["histories"], first["new_items"], first["heeds_ratings"]) == (True, False, True)
    assert client.post("/models", json={}).json()["models"] == [first, second]


def test_a_new_item_is_refused_by_a_model_that_knows_no_features(client):
    response = client.post("/new_item", json={"title": "New", "genres": ["Comedy"]})
    assert response.status_code == 422
    assert "knows items by their ratings alone" in response.json()["error"]


def test_no_page_names_another_host(client):
    page = client.get("/").text
    files = re.findall(r'(?:href|src)="(web/[^"]+)"', page + client.get("/docs").text)
    scripts = {f"web/{name}" for file in WEB.glob("*.js") for name in re.findall(r'from "./([^"]+)"', file.read_text())}
    served = {name: client.get(f"/{name}") for name in {*files, *scripts}}
    assert len(served) == len([file for file in WEB.iterdir() if file.suffix != ".html"])
    assert all(response.status_code == 200 for response in served.values())
    for text in (page, client.get("/docs").text, *(response.text for response in served.values())):
        assert not re.search(r"(?<!xmlns=\")https?://(?!www.w3.org/2000/svg)", text)
        assert "style=" not in text  # which the policy would not allow


def test_the_openapi_page_lists_every_route_with_its_problems_and_examples(client):
    paths = client.get("/openapi.json").json()["paths"]
    posts = {"recommend", "similar", "search", "movie", "batch_recommend", "new_item", "models"}
    gets = {"recommend", "similar", "search", "movie", "models", "health"}
    assert set(paths) == {f"/{name}" for name in posts} | {f"/api/{name}" for name in posts | gets}
    answered = {"200", "401", "404", "422", "503", "504"}
    assert set(paths["/api/recommend"]["get"]["responses"]) == answered
    assert set(paths["/recommend"]["post"]["responses"]) == answered | {"400", "408", "413"}
    names = {parameter["name"] for parameter in paths["/api/recommend"]["get"]["parameters"]}
    assert {"user_id", "top_k", "reasons", "genres", "year_from", "diversity", "model"} <= names
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name in posts - {"models"}:
        body = paths[f"/{name}"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for example in schemas[body.rpartition("/")[2]]["examples"]:
            sent = client.post(f"/{name}", json=example)
            assert sent.status_code in {200, 404} or "ratings alone" in sent.text  # they are of other data


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
