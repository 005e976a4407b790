"""Hybrid: several models as one, fused by ranks or by scores.

Model      score(u, i) = Σ over parts p of w_p v_p(u, i)
Fusion     rrf: v = 1 / (rrf_k + rank of i among u's unseen items); weighted and learned: v = (s - mean) / deviation of
           p's scores of u's unseen items
Weights    given, or equal; learned: they maximise the likelihood of the validation part, see likelihood.py
Source     Cormack, Clarke & Büttcher, SIGIR 2009, https://doi.org/10.1145/1571941.1572114 (rrf, there without weights)
Differs    items that a part scores equally share the mean of their ranks
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from recflow import RecflowError, Run, fit
from recflow.data.dataset import Dataset
from recflow.metrics.evaluate import MetricsConfig
from recflow.ranking.ensemble import EnsembleRanker
from recflow.ranking.histories import Histories
from recflow.training.modules import ClosedFormModule
from recflow_hybrid.likelihood import Choices, learn
from recflow_hybrid.parts import Part, check_plugin, check_run, is_plugin, labels, refuse_unusable

_MOST_USERS = 2**17  # a few weights need no more
_CHUNK_BYTES = 2**24  # of one part's scores at a time


class Hybrid(ClosedFormModule):
    """An ensemble; reciprocal rank fusion: Cormack, Clarke & Büttcher, https://doi.org/10.1145/1571941.1572114.

    Parts that are plugins are fitted first, on the same data, split and seed; each leaves a run of its own under
    ``parts/`` in this run's folder, with the test part unread: ``recflow test`` measures it. Rating and ranking models
    mix: a rating model's scores are its stars.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        parts: Two or more, each a plugin's name or the folder of a finished run on the same data, filter and split.
        settings: What `recflow fit` takes, nested, for parts that are plugins, by name: model, trainer, optimizer,
            lr_scheduler, monitor, patience. Such as {ials: {model: {reg: 0.01}, trainer: {max_epochs: 8}}}.
        fusion: rrf adds reciprocal ranks, weighted adds standardised scores. learned is weighted with the weights
            that make the validation part likeliest; validation metrics then flatter the hybrid, for they are measured
            on what it has learnt from. The test part is not touched.
        weights: How much each part counts, at least 0, for rrf and weighted; equal if null.
        rrf_k: How little the first ranks stand out in rrf, at least 0.
    """

    task = "ranking"
    ensemble: EnsembleRanker | None

    def __init__(
        self,
        num_users: int,
        num_items: int,
        parts: tuple[str, ...] = ("ease", "ials", "lightgcn"),
        settings: dict[str, dict[str, Any]] | None = None,
        fusion: Literal["rrf", "weighted", "learned"] = "learned",
        weights: tuple[float, ...] | None = None,
        rrf_k: float = 60.0,
    ) -> None:
        super().__init__()
        refuse_unusable(parts, settings or {}, weights)
        if fusion not in ("rrf", "weighted", "learned"):
            raise ValueError(f"fusion must be rrf, weighted or learned, got {fusion!r}")
        if fusion == "learned" and weights is not None:
            raise ValueError(
                f"weights are learnt by fusion learned, got {list(weights)}; give them with rrf or weighted"
            )
        if not 0 <= rrf_k < float("inf"):
            raise ValueError(f"rrf_k must be at least 0 and finite, got {rrf_k}")
        self.save_hyperparameters()
        self.ensemble = None  # until the parts are there
        self.labels: list[str] = []

    def begin(self, data: Dataset) -> None:
        """See :meth:`~recflow.training.modules.RecModule.begin`."""
        if self.hparams["fusion"] == "learned" and len(data.relevant("val").users) == 0:
            raise RecflowError(
                "fusion learned needs a validation part with something relevant in it, and the split leaves none: "
                "use model.fusion weighted or rrf."
            )
        runs: list[Path] = []
        for part in self.hparams["parts"]:
            if is_plugin(part):
                check_plugin(part, {"metrics": self._measured(), **self._settings(part)}, data)
                continue
            found = check_run(part, data).path.resolve()
            if found in runs:
                raise RecflowError(f"parts must be distinct, got {found} twice.")
            runs.append(found)
            if self._settings(part):
                raise RecflowError(f"{part} is a finished run: settings are for plugins, got some for it.")

    def notices(self) -> Sequence[str]:
        """Which parts, and what learning from the validation part means for its metrics."""
        parts = self.hparams["parts"]
        fitted = ", ".join(filter(is_plugin, parts))
        where = f"; fitted first, under {self.folder}/parts: {fitted}" if fitted and self.folder else ""
        lines = [f"the parts: {', '.join(parts)}{where}"]
        if self.hparams["fusion"] == "learned":
            lines.append(
                "the weights are learnt on the validation part: its metrics flatter the hybrid, unlike the test's"
            )
        return lines

    def on_fit_start(self) -> None:
        """Fit the parts that are plugins, and load them all; a checkpoint has brought them already."""
        if self.ensemble is not None:
            self.ensemble.to(self.device)
            return
        if self.folder is None:
            self.begin(self.data)
        scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        with scratch if self.folder is None else nullcontext(self.folder / "parts") as folder:
            parts = [Part.of(self._run(part, Path(folder))) for part in self.hparams["parts"]]
        self.labels = labels([part.plugin for part in parts])
        train = self.data.train
        seen = Histories.from_pairs(train.users, train.items, self.data.num_users, self.data.num_items)
        self.ensemble = EnsembleRanker(
            [part.ranker for part in parts],
            [part.kind for part in parts],
            self.hparams["weights"] or [1 / len(parts)] * len(parts),
            seen.indptr,
            seen.items,
            [part.liked_from for part in parts],
            "rrf" if self.hparams["fusion"] == "rrf" else "weighted",
            self.hparams["rrf_k"],
        )
        self.ensemble.to(self.device).train()  # Lightning warns of modules that come in another mode

    def sweep(self) -> None:
        """Learn the weights, where they are to be learnt."""
        ensemble = self.ranker()
        if self.hparams["fusion"] == "learned":
            choices = self._choices(ensemble)
            found = learn(choices)
            total = float(found.sum())
            if total > 0:  # else no part knows more than chance
                ensemble.weights = (found / total).tolist()
            shares = zip(self.labels, ensemble.weights, strict=True)
            told = ", ".join(f"{label} {weight:.3f}" for label, weight in shares)
            self.console.print(
                f"weights, learnt from {len(choices.counts):,} validation users: {told}", highlight=False
            )
        for label, weight in zip(self.labels, ensemble.weights, strict=True):
            self.log(f"weight/{label}", weight, on_step=False, on_epoch=True, batch_size=1)

    def findings(self) -> dict[str, Any]:
        """The parts' weights."""
        return {"weights": dict(zip(self.labels, self.ranker().weights, strict=True))}

    def ranker(self) -> EnsembleRanker:
        """The parts' rankers and the weights."""
        assert self.ensemble is not None, "the parts are fitted when training starts"
        return self.ensemble

    def get_extra_state(self) -> str:
        """What a checkpoint says of the parts beside their tensors, as JSON."""
        settings = None if self.ensemble is None else self.ensemble.settings()
        return json.dumps({"labels": self.labels, "seconds": self.part_seconds, "ensemble": settings})

    def set_extra_state(self, state: str) -> None:
        """Nothing is left to do: see :meth:`load_state_dict`."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Rebuild the parts: a checkpoint needs none of their runs."""
        state = json.loads(state_dict["_extra_state"])
        self.labels, self.part_seconds, self.ensemble = state["labels"], state["seconds"], None
        if state["ensemble"] is not None:
            own = {name: value for name, value in state_dict.items() if name.startswith("ensemble.")}
            tensors = {name.removeprefix("ensemble."): tensor for name, tensor in own.items()}
            self.ensemble = EnsembleRanker.rebuild(state["ensemble"], tensors)
        return super().load_state_dict(state_dict, strict, assign)

    def _measured(self) -> dict[str, Any]:
        return vars(self.metrics_config or MetricsConfig())

    def _settings(self, part: str) -> Mapping[str, Any]:
        given: dict[str, Mapping[str, Any]] = self.hparams["settings"] or {}
        return given.get(part, {})

    def _run(self, part: str, folder: Path) -> Run:
        """A part's run: the one that it names, or its plugin's in the folder, gone on with where it was broken off."""
        if not is_plugin(part):
            return check_run(part, self.data)
        plugins = [name for name in self.hparams["parts"] if is_plugin(name)]
        title = f"[bold]part {plugins.index(part) + 1} of {len(plugins)} to fit: {part}[/]"
        run = Run(folder / part)
        if run.finished:
            self.console.print(f"{title}: finished before", highlight=False)
            self.part_seconds += run.metrics["train_seconds"]
            return check_run(str(run.path), self.data)
        self.console.print(title, highlight=False)
        device = self.trainer.strategy.root_device
        if (run.path / "config.yaml").is_file():
            with isolate_rng():
                run = fit(resume=run.path, data=self.data, console=self.console)
        else:
            settings = dict(self._settings(part))
            trainer = {"accelerator": device.type, "devices": 1 if device.type == "cpu" else [device.index or 0]}
            settings["trainer"] = {**trainer, **settings.get("trainer", {})}
            settings["metrics"] = self._measured()
            with isolate_rng():
                run = fit(
                    part, self.data, folder=run.path, console=self.console, seed=self.seed, test=False, **settings
                )
        self.data.to(device)
        self.part_seconds += run.metrics["train_seconds"]
        if run.metrics["val"]:
            name = run.metrics["monitor"].removeprefix("val/")
            value, epoch = run.metrics["val"].get(name, float("nan")), run.metrics["best_epoch"]
            self.console.print(f"  val/{name} {value:.4f} at epoch {epoch}", highlight=False)
        return run

    def _choices(self, ensemble: EnsembleRanker) -> Choices:
        """What the validation users chose, the others being hidden; of very many users, every so-manyth."""
        data, sizes = self.data, (self.data.num_users, self.data.num_items)
        known, relevant = data.seen("val"), data.relevant("val")
        histories = Histories.from_pairs(known.users, known.items, *sizes, known.ratings)
        chosen = Histories.from_pairs(relevant.users, relevant.items, *sizes)
        users = chosen.indptr.diff().nonzero().flatten()
        users = users[:: -(-len(users) // _MOST_USERS)]
        folded = data.untrained(self.task)[users]  # held out whole: they are folded in, as when they are measured
        pieces = []
        for group, evidence in (
            (users[~folded], ensemble.evidence),
            (users[folded], lambda some: ensemble.evidence_of_histories(histories, some)),
        ):
            for some in torch.split(group, max(1, _CHUNK_BYTES // (4 * data.num_items))) if len(group) else ():
                held_out = torch.zeros(len(some), data.num_items, dtype=torch.bool, device=some.device)
                held_out[chosen.rows(some)] = True
                pieces.append(Choices.among_contenders(evidence(some), held_out))
        return Choices.of_all(pieces)
