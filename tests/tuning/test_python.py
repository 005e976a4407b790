"""``recflow.tune``."""

import optuna
import polars as pl
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

import recflow
from recflow.errors import RecflowError
from recflow.tuning.tune import _as_data

SMALL = {"name": "sample:ratings=3000"}


class TestTune:
    def test_it_gives_the_winners_run_the_untuned_ones_and_the_trials_and_goes_on(self, tmp_path):
        found = recflow.tune(
            "ease",
            data=SMALL,
            trials=2,
            search={"model.reg": FloatDistribution(10, 100, log=True)},
            objective="val/recall@10",
            sampler="random",
            seed=3,
            runs_dir=tmp_path,
            plots=False,
        )
        assert found.path == tmp_path / "tune" / "ease-sample"
        assert found.trials["state"].to_list() == ["COMPLETE"] * 2
        assert found.trials["model.reg"].is_between(10, 100).all()
        best = found.trials.sort("val/recall@10").row(-1, named=True)
        assert found.best.metrics["val"]["recall@10"] == best["val/recall@10"] == found.study.best_value
        assert found.best.config["model"]["reg"] == best["model.reg"] == found.study.best_params["model.reg"]
        assert found.best.config["seed"] == 3
        assert found.default.config["model"]["reg"] == 250
        assert {"test", "val"} <= set(found.default.metrics)
        assert isinstance(found.study, optuna.Study)
        further = recflow.tune(resume=found.path, trials=1)
        assert further.trials[:2].equals(found.trials)
        assert further.trials.height == 3
        assert pl.read_csv(found.path / "trials.csv")["val/recall@10"].equals(further.trials["val/recall@10"])

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"trails": 5}, "did you mean --trials"),
            ({"trials": 2.5}, "expects a whole number, got '2.5'"),
            ({"timeout": -1}, "expects a duration"),
            ({"objective": ["val/ndcg@10", "val/nonsense"]}, "'val/nonsense' is no validation metric"),
            ({"search": {"model.regg": [1, 2]}}, "did you mean search.model.reg"),
            ({"search": {"model.reg": object()}}, "search holds .* which YAML reads as a object"),
            ({"search": [1]}, "expects distributions by key"),
            ({"model": {"regg": 1}}, "regg"),
            ({"resume": "nothing"}, "A resumed study keeps what it is about"),
        ],
    )
    def test_a_mistake_is_told_and_nothing_is_written(self, given, said, tmp_path):
        with pytest.raises(RecflowError, match=said):
            recflow.tune("ease", data=SMALL, runs_dir=tmp_path, **given)
        assert list(tmp_path.iterdir()) == []


def test_optunas_distributions_are_what_a_file_would_say():
    space = {"model": {"lr": FloatDistribution(0.1, 1, log=True), "hidden": CategoricalDistribution([[8, 4], [8]])}}
    assert _as_data(space) == {"model": {"lr": {"low": 0.1, "high": 1.0, "log": True}, "hidden": [[8, 4], [8]]}}
