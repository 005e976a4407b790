"""The hybrid: the kit, its likelihood against scipy, its parts, and what it refuses."""

import io
import json
import shutil
import signal

import lightning.pytorch as pl
import numpy as np
import polars
import pytest
import torch
from rich.console import Console
from scipy.optimize import minimize

import recflow
from recflow.cli.main import main
from recflow.data.dataset import config_of, prepare
from recflow.errors import RecflowError
from recflow.metrics.evaluate import Evaluator, evaluate
from recflow.ranking.ensemble import EnsembleRanker, Evidence
from recflow.ranking.rankers import Ranker
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import taste_groups
from recflow_hybrid.likelihood import _RIDGE, Choices, derivatives, learn
from recflow_hybrid.model import Hybrid

SMALL = "sample:ratings=6000"
PARTS = ["ease", "item-knn"]
SETTINGS = {"ease": {"model": {"reg": 50.0}}}


class TestHybrid(ModelConformance):
    plugin = "hybrid"
    settings = {"parts": ("ease", "bias-mf")}


class TestHybridByRanks(ModelConformance):
    plugin = "hybrid"
    settings = {"parts": ("ease", "item-knn"), "fusion": "rrf"}


def some_choices(parts=3, users=40, contenders=12, seed=0) -> Choices:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(users, parts, contenders, generator=random, dtype=torch.float64)
    hidden = torch.rand(users, contenders, generator=random) < 0.2
    values.masked_fill_(hidden[:, None], 0)
    liking = values[:, 0] + 0.5 * values[:, 1] + torch.randn(users, contenders, generator=random)
    chosen = (liking > 1.5) & ~hidden
    return Choices(values, hidden, chosen.sum(1).double(), (values * chosen[:, None]).sum((0, 2)))


def naive_loss(weights: torch.Tensor, choices: Choices) -> torch.Tensor:
    """The loss by its definition, user by user."""
    total = _RIDGE / 2 * (weights**2).sum() - weights @ choices.chosen / choices.counts.sum()
    for values, hidden, count in zip(choices.values, choices.hidden, choices.counts, strict=True):
        total = total + count / choices.counts.sum() * torch.logsumexp(weights @ values[:, ~hidden], 0)
    return total


class TestLikelihood:
    def test_loss_gradient_and_curvature_are_those_of_the_definition(self, monkeypatch):
        monkeypatch.setattr("recflow_hybrid.likelihood._CHUNK", 7 * 3 * 12)  # seven users at a time
        choices, weights = some_choices(), torch.tensor([0.3, 1.2, 0.0], dtype=torch.float64)
        found = derivatives(weights, choices)
        torch.testing.assert_close(found.loss, naive_loss(weights, choices))
        gradient = torch.autograd.functional.jacobian(lambda w: naive_loss(w, choices), weights)
        curvature = torch.autograd.functional.hessian(lambda w: naive_loss(w, choices), weights)
        torch.testing.assert_close(found.gradient, gradient)
        torch.testing.assert_close(found.curvature, curvature)

    def test_it_is_convex(self):
        for seed in range(5):
            weights = 3 * torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            curvature = derivatives(weights, some_choices(seed=seed)).curvature
            assert float(torch.linalg.eigvalsh(curvature).min()) > 0

    @pytest.mark.parametrize("seed", range(4))
    def test_the_learnt_weights_are_those_that_scipy_finds(self, seed):
        choices = some_choices(parts=4, seed=seed)
        wanted = minimize(
            lambda w: float(naive_loss(torch.from_numpy(w), choices)),
            np.ones(4),
            jac=lambda w: derivatives(torch.from_numpy(w), choices).gradient.numpy(),
            method="L-BFGS-B",
            bounds=[(0, None)] * 4,
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        found = learn(choices)
        np.testing.assert_allclose(found.numpy(), wanted.x, atol=1e-5)
        assert float(found.min()) >= 0

    def test_a_part_that_errs_gets_no_weight_and_parts_that_never_err_get_finite_ones(self):
        choices = some_choices()
        against = choices.values.clone()
        against[:, 2] = -against[:, 0]
        best = against[:, 0].masked_fill(choices.hidden, -torch.inf).argmax(1)
        chosen = torch.zeros_like(choices.hidden).scatter_(1, best[:, None], True)
        perfect = Choices(against, choices.hidden, torch.ones(40), (against * chosen[:, None]).sum((0, 2)))
        found = learn(perfect)
        assert bool(found.isfinite().all())
        assert float(found[0]) > 1
        assert float(found[2]) == 0

    def test_the_contenders_are_the_first_unseen_items_of_any_part(self, monkeypatch):
        monkeypatch.setattr("recflow_hybrid.likelihood._FIRST", 3)
        random = torch.Generator().manual_seed(0)
        values, hidden = torch.randn(6, 2, 9, generator=random), torch.rand(6, 9, generator=random) < 0.3
        hidden[1], hidden[2, :8] = True, True  # one who has seen all, one with a single item left
        values.masked_fill_(hidden[:, None], 0)
        relevant = torch.rand(6, 9, generator=random) < 0.5
        found = Choices.of_all(
            [
                Choices.among_contenders(Evidence(values[some], hidden[some]), relevant[some])
                for some in ([0, 1, 2], [3, 4, 5])
            ]
        )
        total = torch.zeros(2)
        for user in range(6):
            left = [item for item in range(9) if not hidden[user, item]]
            wanted = {i for part in values[user] for i in sorted(left, key=lambda item: -float(part[item]))[:3]}
            shown = found.values[user, :, ~found.hidden[user]].T.tolist()
            assert sorted(shown) == sorted(values[user, :, item].tolist() for item in wanted)
            liked = [item for item in wanted if relevant[user, item]]
            assert float(found.counts[user]) == len(liked)
            total += values[user][:, liked].sum(1)
        torch.testing.assert_close(found.chosen.float(), total)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def fit(root, data=SMALL, trainer=None, console=None, name=None, test=False, **model):
    model = {"parts": PARTS, "settings": SETTINGS, **model}
    return recflow.fit(
        "hybrid",
        data=data,
        model=model,
        runs_dir=str(root),
        trainer=trainer or {},
        name=name,
        test=test,
        console=console,
    )


@pytest.fixture(scope="module")
def told():
    return Console(file=io.StringIO(), width=1000)


@pytest.fixture(scope="module")
def run(root, told):
    return fit(root, name="first", test=True, console=told)


def part_of(run, name):
    return recflow.load_run(run.path / "parts" / name)


class TestParts:
    def test_each_is_a_complete_run_on_the_same_rows_with_the_test_part_unread(self, run):
        for name in PARTS:
            part = part_of(run, name)
            assert part.finished
            assert "test" not in part.metrics
            assert (part.metrics["plugin"], part.config["seed"]) == (name, run.config["seed"])
            same = ("sha256", "split", "filter", "interactions", "users", "items")
            assert [part.metrics["header"][key] for key in same] == [run.metrics["header"][key] for key in same]
            assert not part.recommend(user=42, k=3).is_empty()
        assert part_of(run, "ease").config["model"] == {"reg": 50.0}
        assert len(run.metrics["test"]) > 0

    def test_the_user_is_told_which_is_fitted_and_how_much_each_counts(self, run, told):
        said = told.file.getvalue()
        assert "the parts: ease, item-knn; fitted first, under" in said
        assert said.index("part 1 of 2 to fit: ease") < said.index("part 2 of 2 to fit: item-knn")
        assert "its metrics flatter the hybrid" in said
        history = polars.read_csv(run.path / "history.csv")
        weights = [history[f"weight/{name}"].item() for name in PARTS]
        assert sum(weights) == pytest.approx(1)
        assert f"ease {weights[0]:.3f}, item-knn {weights[1]:.3f}" in said
        assert weights == pytest.approx(run.recommender.ranker.weights)

    def test_it_is_as_good_as_the_best_on_what_it_has_learnt_from(self, run):
        assert (
            run.metrics["val"]["ndcg@10"] >= max(part_of(run, name).metrics["val"]["ndcg@10"] for name in PARTS) - 0.003
        )

    def test_its_ranker_holds_theirs(self, run):
        data = prepare(config_of(run.config["data"]))
        ranker, users = run.recommender.ranker, torch.arange(data.num_users)
        assert isinstance(ranker, EnsembleRanker)
        for name, part in zip(PARTS, ranker.parts, strict=True):
            assert torch.equal(part.score(users), part_of(run, name).recommender.ranker.score(users))
        measured = evaluate(ranker, data, "test", "ranking")
        assert measured.metrics == pytest.approx(run.metrics["test"], abs=1e-9)

    def test_a_checkpoint_needs_none_of_their_folders(self, run):
        loaded = torch.load(run.path / "checkpoints" / "best.ckpt", weights_only=True)
        hyper = {name: value for name, value in loaded["hyper_parameters"].items() if not name.startswith("_")}
        model = Hybrid(**hyper)
        model.load_state_dict(loaded["state_dict"])
        users = torch.arange(20)
        assert torch.equal(model.ranker().score(users), run.recommender.ranker.score(users))
        assert model.labels == PARTS

    def test_runs_plugins_rating_models_and_another_hybrid_mix(self, run, root):
        stars = recflow.fit(
            "bias-mf", data=SMALL, runs_dir=str(root), name="stars", test=False, trainer={"max_epochs": 2}
        )
        parts = [str(run.path), str(stars.path), str(part_of(run, "ease").path), "ease"]
        mixed = fit(root, parts=parts, settings={}, fusion="rrf", weights=[3, 1, 1, 0], name="mixed")
        ranker = mixed.recommender.ranker
        assert ranker.kinds == ["ensemble", "factor", "item-item", "item-item"]
        assert ranker.weights == [3, 1, 1, 0]
        assert [path.name for path in (mixed.path / "parts").iterdir()] == ["ease"]
        assert "weight/ease-2" in polars.read_csv(mixed.path / "history.csv").columns
        history = torch.tensor([3, 9]), torch.tensor([5.0, 1.0])
        hidden = torch.zeros(ranker.num_items, dtype=torch.bool).index_fill_(0, history[0], True)
        inside = [recflow.load_run(path).recommender.ranker.score_history(*history) for path in parts[:3]]
        wanted = sum(
            weight
            / (
                60
                + 1
                + (row[~hidden][:, None] < row[~hidden]).sum(1)
                + ((row[~hidden][:, None] == row[~hidden]).sum(1) - 1) / 2
            )
            for weight, row in zip([3, 1, 1], inside, strict=True)
        )
        torch.testing.assert_close(ranker.score_history(*history)[~hidden], wanted, rtol=1e-4, atol=1e-6)
        assert not mixed.recommend(like=[run.recommender.catalog.item_ids()[0]], k=3).is_empty()

    def test_users_held_out_whole_teach_weights_by_their_fold_in(self, root):
        held_out = fit(root, data={"name": SMALL, "split": "users"}, name="users")
        assert held_out.metrics["val"]["ndcg@10"] > 0
        assert held_out.recommender.ranker.weights != [0.5, 0.5]  # as where nothing is known of anybody

    def test_rating_parts_are_given_dislikes_wherever_a_history_is_folded_in(self, tmp_path):
        data = {"name": SMALL, "split": "users", "relevant_from": 4}
        mixed = fit(tmp_path, data=data, parts=["bias-mf", "ease"], settings={}, fusion="weighted", weights=[1, 0.01])
        recommender, ids = mixed.recommender, mixed.recommender.catalog.item_ids()
        stars, items = torch.tensor([5.0, 1.0, 1.0]), torch.tensor([0, 4, 8])
        scores = recommender.ranker.score_history(items, stars)
        answer = recommender.recommend_for_history(dict(zip([ids[i] for i in items], stars.tolist(), strict=True)), 5)
        assert [found.item.item for found in answer.recommendations] == scores.topk(5).indices.tolist()
        assert not torch.allclose(scores, recommender.ranker.score_history(items[:1], stars[:1]), atol=1e-3)

        prepared = prepare(config_of(mixed.config["data"]))
        evaluator = Evaluator(prepared, "test", "ranking")
        evaluator.begin(recommender.ranker)  # by whole histories
        known = prepared.seen("test")
        assert len(evaluator.known.items) == len(known.items) > len(known.where(known.ratings >= 4).items)
        evaluator.begin(recommender.ranker.parts[1])  # and ease alone by likes
        assert len(evaluator.known.items) == len(known.where(known.ratings >= 4).items)

    def test_the_weights_are_kept_and_shown(self, root, capsys):
        run = fit(root, name="weights")
        assert run.metrics["weights"] == dict(zip(PARTS, run.recommender.ranker.weights, strict=True))
        assert main(["runs", "show", str(run.path)]) == 0
        assert f"weights: ease {run.metrics['weights']['ease']:.3f}, item-knn" in capsys.readouterr().out

    def test_reasons_are_found_for_all_recommendations_at_once(self, root):
        ranker = fit(root, name="reasons").recommender.ranker
        items, stars, wanted = torch.tensor([3, 9, 20, 4]), torch.tensor([5.0, 3.0, 4.0, 4.0]), torch.tensor([7, 30])
        together = ranker.explain_many(items, stars, wanted)
        for row, item in zip(together, wanted.tolist(), strict=True):
            torch.testing.assert_close(row, ranker.explain(items, stars, item), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(row, Ranker.explain(ranker, items, stars, item), rtol=1e-4, atol=1e-5)

    def test_nothing_is_left_in_the_working_directory_and_no_random_state_is_disturbed(self, tmp_path, monkeypatch):
        class Probe(pl.Callback):
            states = []

            def on_fit_start(self, *_):
                self.states.append(torch.get_rng_state())

            def on_train_start(self, *_):
                self.states.append(torch.get_rng_state())

        monkeypatch.chdir(tmp_path)
        data, _ = taste_groups()
        model = Hybrid(data.num_users, data.num_items, ("ease", "ials"), {"ials": {"trainer": {"max_epochs": 1}}})
        model.attach(data, seed=3)
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, callbacks=[Probe()],
        )  # fmt: skip
        trainer.fit(model, train_dataloaders=model.batches(data))
        assert torch.equal(*Probe.states)
        assert list(tmp_path.iterdir()) == []


class TestGoingOn:
    def test_an_interrupt_in_the_second_part_keeps_the_first_and_resume_fits_what_is_missing(
        self, run, root, monkeypatch
    ):
        from recflow_item_item.neighbours import ItemKNN

        console, handler = Console(file=io.StringIO(), width=1000), signal.getsignal(signal.SIGINT)

        def ctrl_c(_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(ItemKNN, "sweep", ctrl_c)
            with pytest.raises(KeyboardInterrupt):
                fit(root, name="broken", test=True, console=console)
        signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored, for the process ends
        folder = root / "hybrid" / "sample" / "broken"
        last = console.file.getvalue().split("part 2 of 2")[1].split()
        assert " ".join(last[3:]) == f"broken off; go on by: recflow fit --resume {folder}"
        assert {path.name for path in (folder / "parts").iterdir()} == {"ease"}
        before = (folder / "parts" / "ease" / "metrics.json").read_bytes()
        again = recflow.fit(resume=folder, console=console)
        assert "part 1 of 2 to fit: ease: finished before" in console.file.getvalue()
        assert (folder / "parts" / "ease" / "metrics.json").read_bytes() == before
        assert again.metrics["test"] == run.metrics["test"]
        assert again.metrics["val"] == run.metrics["val"]

    def test_a_part_that_was_killed_after_an_epoch_goes_on_there(self, run, root, monkeypatch):
        from recflow_factors.implicit_als import IALS

        settings = {"ials": {"model": {"embedding_dim": 4}, "trainer": {"max_epochs": 3}}}
        whole = fit(root, parts=["ease", "ials"], settings=settings, name="whole")
        sweep, calls = IALS.sweep, []

        def killed(self):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("killed")
            return sweep(self)

        with monkeypatch.context() as patched:
            patched.setattr(IALS, "sweep", killed)
            with pytest.raises(RuntimeError, match="killed"):
                fit(root, parts=["ease", "ials"], settings=settings, name="killed")
        calls.clear()
        monkeypatch.setattr(IALS, "sweep", lambda self: calls.append(1) or sweep(self))
        again = recflow.fit(resume=root / "hybrid" / "sample" / "killed")
        assert len(calls) == 2
        assert again.metrics["val"] == whole.metrics["val"]

    def test_a_finished_hybrid_goes_further_without_its_parts_folders(self, run, root):
        copied = shutil.copytree(run.path, root / "hybrid" / "sample" / "copied")
        shutil.rmtree(copied / "parts")
        further = recflow.fit(resume=copied, trainer={"max_epochs": 2})
        assert further.metrics["test"] == run.metrics["test"]


class TestRefusing:
    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ({"parts": ["ease"]}, r"parts must be two or more runs or plugins, got \['ease'\]"),
            ({"parts": ["ease", "hybrid"]}, "parts must not name hybrid itself"),
            ({"parts": ["ease", "ials", "ease"]}, "parts must be distinct, got ease twice"),
            ({"parts": ["ease", "item-kn"]}, "Part 'item-kn' is neither a plugin nor .*; did you mean item-knn"),
            ({"parts": ["ease", "runs/nowhere"]}, "runs/nowhere is no run: it is not there"),
            ({"fusion": "rrf", "weights": [1, 2, 3]}, "weights must be one for each of 2 parts, got 3"),
            ({"fusion": "rrf", "weights": [1, -2]}, "weights must be at least 0, finite and not all 0"),
            ({"fusion": "weighted", "weights": [0, 0]}, "weights must be at least 0, finite and not all 0"),
            ({"weights": [1, 2]}, "weights are learnt by fusion learned"),
            ({"fusion": "rrf", "rrf_k": -1}, "rrf_k must be at least 0 and finite, got -1"),
            ({"settings": {"ials": {}}}, "got some for ials, which is no part"),
            ({"settings": {"ease": {"seed": 3}}}, "settings.ease may hold model, trainer.*, got seed"),
            ({"settings": {"ease": {"model": {"regg": 3}}}}, "Part ease: .*regg"),
            ({"settings": {"ease": {"model": {"reg": -3}}}}, "Part ease: .*reg must be above 0"),
            ({"settings": {"ease": {"monitor": "val/foo"}}}, "Part ease: There is no metric 'val/foo' to monitor"),
            ({"settings": {"ease": {"trainer": {"nope": 1}}}}, "Part ease: .*nope"),
            ({"settings": {"ease": {"patience": 0}}}, "Part ease: patience must be at least 1, got 0"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_told_in_one_line_before_anything_is_written(self, tmp_path, model, message):
        with pytest.raises(RecflowError, match=message) as refused:
            fit(tmp_path, **{"settings": {}, **model})
        assert "\n" not in str(refused.value)
        assert list(tmp_path.iterdir()) == []

    def test_the_command_line_exits_with_2(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["fit", "--plugin", "hybrid", "--model.parts", "[ease, eas]", "--data", SMALL]) == 2
        assert "did you mean ease?" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_learning_without_a_validation_part(self, tmp_path):
        with pytest.raises(RecflowError, match="fusion learned needs a validation part"):
            fit(tmp_path, data={"name": SMALL, "ratios": [0.9, 0.0, 0.1]})
        assert list(tmp_path.iterdir()) == []
        assert fit(tmp_path, data={"name": SMALL, "ratios": [0.9, 0.0, 0.1]}, fusion="weighted").finished

    @pytest.mark.parametrize(
        ("data", "which"),
        [
            ({"name": SMALL, "seed": 7}, "split ratio 8:1:1 per user, random, seed 42"),
            ({"name": "sample:ratings=5000"}, "sha256"),
            ({"name": SMALL, "drop_below": 3}, "filter"),
        ],
    )
    def test_a_run_on_other_rows(self, run, tmp_path, data, which):
        with pytest.raises(RecflowError, match=f"cannot be made use of, for it was fitted on other rows .{which}"):
            fit(tmp_path, data=data, parts=[str(run.path), "ease"], settings={})
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_has_not_finished_or_comes_twice(self, run, tmp_path):
        begun = shutil.copytree(run.path / "parts" / "ease", tmp_path / "begun")
        (begun / "metrics.json").unlink()
        with pytest.raises(RecflowError, match="begun has not finished"):
            fit(tmp_path / "runs", parts=[str(begun), "ease"], settings={})
        with pytest.raises(RecflowError, match="parts must be distinct"):
            fit(tmp_path / "runs", parts=[str(run.path), f"{run.path}/parts/.."], settings={})
        assert not (tmp_path / "runs").exists()

    def test_a_run_that_knows_test_rows(self, run, tmp_path):
        copied = shutil.copytree(run.path / "parts" / "ease", tmp_path / "warm")
        metrics = json.loads((copied / "metrics.json").read_text())
        metrics["header"]["start"] = "a ease run on grown; 5 of 600 test rows were in its data"
        (copied / "metrics.json").write_text(json.dumps(metrics))
        with pytest.raises(RecflowError, match="test rows are known to it"):
            fit(tmp_path / "runs", parts=[str(copied), "ease"], settings={})
