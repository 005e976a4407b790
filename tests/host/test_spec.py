import dataclasses

import pytest

from recflow import ModelSpec
from recflow.spec import load_object

GOOD = {"name": "bias-mf", "task": "rating", "summary": "Biases and factors", "module": "recflow_bias_mf.model:BiasMF"}


def test_a_spec_holds_what_it_is_given_and_cannot_be_changed():
    spec = ModelSpec(**GOOD)
    assert (spec.name, spec.task, spec.paper, spec.search_space, spec.ranker) == ("bias-mf", "rating", "", "", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"


@pytest.mark.parametrize("name", ["lightgcn", "bias-mf", "svd", "item-knn-rating", "a", "k2-v3"])
def test_names_are_lower_case_words_joined_by_hyphens(name):
    assert ModelSpec(**GOOD | {"name": name}).name == name


@pytest.mark.parametrize("name", ["", "LightGCN", "bias_mf", "-mf", "mf-", "bias--mf", "2mf", "bias mf", "é", "mf\n"])
def test_other_names_are_refused_with_the_name_given(name):
    with pytest.raises(ValueError, match="name must be lower-case words") as refused:
        ModelSpec(**GOOD | {"name": name})
    assert repr(name) in str(refused.value)


def test_an_unknown_task_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match="task must be one of ranking, rating, got 'regression'"):
        ModelSpec(**GOOD | {"task": "regression"})


@pytest.mark.parametrize("field", ["module", "search_space", "ranker"])
@pytest.mark.parametrize("target", ["recflow_bias_mf.model", "a:b:c", "a.b:", ":B", "a b:C", "a/b.py:C"])
def test_code_must_be_named_as_module_and_name(field, target):
    with pytest.raises(ValueError, match=f"{field} must read 'package.module:Name', got ") as refused:
        ModelSpec(**GOOD | {field: target})
    assert repr(target) in str(refused.value)


def test_a_module_must_be_named():
    with pytest.raises(ValueError, match="module must read"):
        ModelSpec(**GOOD | {"module": ""})


def test_load_object_imports_what_a_target_names():
    assert load_object("recflow.spec:ModelSpec") is ModelSpec
    with pytest.raises(AttributeError):
        load_object("recflow.spec:Nothing")
    with pytest.raises(ImportError):
        load_object("recflow.nothing:ModelSpec")
