"""Search spaces, and every plugin's own."""

from importlib import metadata
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from recflow import registry
from recflow.errors import RecflowError
from recflow.training.fit import configure
from recflow.tuning.arguments import read_arguments
from recflow.tuning.plan import make_plan
from recflow.tuning.space import change_space, decode, encode, encode_choices, ends, fixed_values, grid_points

SPACE = {
    "model.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "model.num_layers": IntDistribution(1, 4),
    "model.loss": CategoricalDistribution(("bce", "bpr")),
}
KNOWN = [*SPACE, "model.hidden", "trainer.max_epochs", "data.batch_size"]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WITHOUT = {"popularity", "random"}


def changed(**changes):
    return change_space(SPACE, {name.replace("__", "."): value for name, value in changes.items()}, KNOWN)


# tests beside this one bring a stranger's plugin along
OURS = [point.name for point in metadata.entry_points(group="recflow") if point.dist.name == "recflow"]


class TestEveryPlugin:
    @pytest.mark.parametrize("name", OURS)
    def test_it_has_a_space_whose_keys_are_settings_of_its_fit(self, name):
        spec = registry.load(name)
        if name in WITHOUT:
            assert not spec.search_space
            with pytest.raises(RecflowError, match=f"{name} has nothing to tune"):
                make_plan([f"--plugin={name}", "--data=sample:ratings=2000"])
            return
        space = registry.load_target(spec, "search_space")
        assert space
        model = registry.load_target(spec, "module")
        for key, distribution in space.items():
            assert key.partition(".")[0] in {"model", "trainer", "data"}
            for value in ends(encode_choices(distribution)):
                if key.startswith("model."):
                    model(num_users=30, num_items=40, **{key.removeprefix("model."): value})

    def test_a_fit_takes_what_a_space_draws(self):
        args = ["--plugin=ncf", "--data=sample:ratings=2000"]
        plan, _ = make_plan(args, search={"model.hidden": [[16, 8], [8]]})
        assert plan.space["model.hidden"].choices == ("json:[16, 8]", "json:[8]")
        config = configure([*args, "--model.hidden=[16, 8]"])[0].config
        assert config["model"]["hidden"] == decode("json:[16, 8]")


class TestChanges:
    def test_a_field_changes_alone(self):
        assert changed(model__lr={"high": 0.01})["model.lr"] == FloatDistribution(1e-4, 0.01, log=True)
        assert changed(model__num_layers={"low": 2, "step": 2})["model.num_layers"] == IntDistribution(2, 4, step=2)

    def test_a_list_is_choices_and_lists_among_them_are_encoded(self):
        assert changed(model__lr=[0.1, "1e-3"])["model.lr"] == CategoricalDistribution((0.1, 0.001))
        choices = changed(model__hidden=[[64, 32], [32], None])["model.hidden"].choices
        assert [decode(choice) for choice in choices] == [[64, 32], [32], None]

    def test_a_value_or_null_leaves_the_key_out(self):
        assert list(changed(model__lr=0.01, model__loss=None)) == ["model.num_layers"]
        assert fixed_values({"model": {"lr": "1e-2", "loss": None, "num_layers": {"low": 1}}}) == {"model.lr": 0.01}

    def test_a_new_range_is_of_whole_numbers_where_both_ends_are(self):
        space = changed(
            trainer__max_epochs={"low": 1, "high": 8, "log": True}, data__batch_size={"low": 1, "high": 2.5}
        )
        assert space["trainer.max_epochs"] == IntDistribution(1, 8, log=True)
        assert space["data.batch_size"] == FloatDistribution(1, 2.5)

    def test_nested_keys_are_dotted_ones(self):
        nested = change_space(SPACE, {"model": {"lr": {"low": "1e-3"}}}, KNOWN)
        assert nested["model.lr"] == FloatDistribution(1e-3, 1e-1, log=True)

    @pytest.mark.parametrize(
        ("key", "change", "said"),
        [
            ("model.lrr", [1, 2], "did you mean search.model.lr"),
            ("lr", [1, 2], "did you mean search.model.lr"),
            ("metrics.ks", [[5], [10]], "all trials are measured alike"),
            ("trainer.devices", [1, 2], "fitted in one process"),
            ("data.split", ["ratio"], "of data only batch_size varies"),
            ("model.lr", {"low": 1.0}, "low 1.0, high 0.1"),
            ("model.lr", {"low": 0}, "no distribution has low 0"),
            ("model.lr", {"low": "small"}, "expected a number, got 'small'"),
            ("model.lr", {"log": 3}, "expected true or false, got 3"),
            ("model.lr", {"low": 1e-3, "hihg": 1}, "did you mean high"),
            ("model.lr.lo", 3, "a distribution has no field 'lo'"),
            ("model.lr", [], "expected a list"),
            ("model.lr", {"choices": [1], "low": 1}, "choices stand alone"),
            ("model.hidden", {"high": 3}, "got no low"),
            ("model.lr", {"high": float("inf")}, "finite"),
        ],
    )
    def test_what_cannot_be_is_refused(self, key, change, said):
        with pytest.raises(RecflowError, match=said):
            change_space(SPACE, {key: change}, KNOWN)


class TestGrid:
    def test_it_has_every_combination_once(self):
        space = {
            "a": IntDistribution(1, 3),
            "b": CategoricalDistribution(("x", encode([1]))),
            "c": FloatDistribution(0, 1, step=0.5),
        }
        points = grid_points(space)
        assert len(points) == 3 * 2 * 3
        assert len({tuple(point.values()) for point in points}) == len(points)
        assert points[0] == {"a": 1, "b": "x", "c": 0.0}

    def test_a_logarithmic_range_of_whole_numbers_doubles(self):
        assert [point["a"] for point in grid_points({"a": IntDistribution(8, 100, log=True)})] == [8, 16, 32, 64, 100]

    def test_an_infinite_or_a_huge_one_is_refused(self):
        with pytest.raises(RecflowError, match=r"infinite.*--search.model.lr '\[0.0001, 0.1\]'"):
            grid_points(SPACE)
        with pytest.raises(RecflowError, match="1,000,000 points"):
            grid_points({"a": IntDistribution(1, 1000), "b": IntDistribution(1, 1000)})


@pytest.mark.data
@pytest.mark.parametrize("plugin", ["bias-mf", "ease", "lightgcn", "ncf"])
def test_the_studies_under_experiments_can_be_begun(plugin):
    given = read_arguments(["--config", str(EXPERIMENTS / plugin / "search.yaml")])
    assert given.trials == 50
    plan, data = make_plan(given.fit, objectives=given.objective, sampler=given.sampler, search=given.search)
    assert (plan.plugin, data.name) == (plugin, "ml-100k")
    assert plan.objectives == (registry.load_target(registry.load(plugin), "module").monitor,)
