"""Requests that Schemathesis makes up from the service's own OpenAPI page, sensible and otherwise."""

from collections import Counter

import schemathesis
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from recflow.serving.app import endpoints, make_app
from recflow.serving.guard import Guard
from recflow.serving.schemas import LONGEST_ID
from recflow.serving.settings import Settings
from tests.serving.made_up import NUM_ITEMS, NUM_USERS

CONFIG = {
    "seed": 1,
    "generation": {"max-examples": 8, "deterministic": True, "database": "none"},
    "phases": {"stateful": {"enabled": False}},
    "checks": {"positive_data_acceptance": {"enabled": False}},  # the data refuse more than a schema can say: see below
}
REFUSED_BY_THE_DATA = (
    "There is no genre",
    "is after year_to",
    "both were given",
    "must be from 1 to 5",
    "with reasons, top_k is",
    "knows items by their ratings alone",
)


def known(asked):
    """A request in which numbers are users and items of the data, and any other model one of those that are served."""
    if isinstance(asked, list):
        return [known(one) for one in asked]
    if not isinstance(asked, dict):
        return asked
    users, items = {"user_id", "user_ids"}, {"item", "item_id", "movie_id", "exclude"}
    return {
        name: among(value, 1, NUM_USERS)
        if name in users
        else among(value, 100, NUM_ITEMS)
        if name in items
        else "bpr-mf"
        if name == "model" and isinstance(value, str) and 0 < len(value) <= LONGEST_ID
        else known(value)
        for name, value in asked.items()
    }


def among(value, first, count):
    if isinstance(value, list):
        return [among(one, first, count) for one in value]
    return first + value % count if type(value) is int else value


def test_whatever_is_asked_the_answer_is_one_that_the_openapi_page_promises(models):
    app = make_app(models)
    guarded, config = Guard(app, endpoints(app), Settings()), SchemathesisConfig.from_dict(CONFIG)
    schema = schemathesis.openapi.from_asgi("/openapi.json", guarded, config=config)
    schema.hook("map_body")(lambda context, body: known(body))
    schema.hook("map_query")(lambda context, query: known(query))
    wrong, answered = [], Counter()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if not isinstance(event, events.ScenarioFinished):
            continue
        for case, checks in event.recorder.checks.items():
            wrong += [(event.recorder.label, check.failure_info.failure) for check in checks if check.failure_info]
            interaction = event.recorder.interactions[case]
            status, text = interaction.response.status_code, interaction.response.content.decode()
            answered[status] += 1
            meant = event.recorder.cases[case].value.meta
            if status == 422 and meant is not None and meant.generation.mode is GenerationMode.POSITIVE:
                assert any(reason in text for reason in REFUSED_BY_THE_DATA), text
    assert not wrong, wrong
    assert set(answered) == {200, 400, 404, 405, 422}
    assert answered[200] > 100
