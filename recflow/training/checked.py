"""What a fit is made of, checked before anything is trained or written."""

from __future__ import annotations

import difflib
from typing import Any

import torch

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.metrics.evaluate import MetricsConfig
from recflow.metrics.means import RankingMetrics
from recflow.runs import COMPARABLE, HEADER, Run, load_run, read_mapping
from recflow.training.configuration import FitConfiguration
from recflow.training.modules import ClosedFormModule, RecModule
from recflow.training.warm_start import known_rows


class CheckedFit:
    """A configured fit that may be carried out: model, data, what it starts from, and its header.

    Args:
        configuration: What to fit.
        resumed: The run to go on with.

    Attributes:
        monitor: The validation metric that picks the best epoch.
        validated: Whether there are validation rows.
        earlier: The run to start from.
        header: What every number is to be printed with.

    Raises:
        RecflowError: If something configured cannot be used.
    """

    def __init__(self, configuration: FitConfiguration, resumed: Run | None) -> None:
        self.configuration = configuration
        self.config, self.spec = configuration.config, configuration.spec
        self.model: RecModule = configuration.model
        self.data: Dataset = configuration.datamodule.dataset
        self.metrics = MetricsConfig(**vars(self.config["metrics"]))
        self.monitor = self._monitor()
        self.validated = len(self.data.rows["val"].users) > 0
        self.resumed, self.finished = resumed, resumed is not None and resumed.finished
        self.earlier = self._earlier()
        self.header = {**self.data.header(), "start": self._start(), **self._pretrained()}
        self._check()

    def validation_metrics(self) -> list[str]:
        """The names of all that is measured after each epoch."""
        names = list(RankingMetrics.names(self.metrics.ks, self.metrics.auc))
        if self.spec.task == "rating":
            names = ["rmse", "mae", "mse", *names]
        return [*(f"val/{name}" for name in names), "val/loss"]

    def _monitor(self) -> str:
        names = self.validation_metrics()
        chosen: str | None = self.config["monitor"]
        if chosen is None:  # the model's own, at a cut-off that is measured
            own = self.model.monitor
            return own if own in names else f"{own.partition('@')[0]}@{max(self.metrics.ks)}"
        if chosen not in names:
            close = difflib.get_close_matches(chosen, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}."
            raise RecflowError(f"There is no metric {chosen!r} to monitor; {hint}")
        return chosen

    def _check(self) -> None:
        if self.config["patience"] < 1:
            raise RecflowError(f"patience must be at least 1, got {self.config['patience']}.")
        epochs, done = self.config["trainer"]["max_epochs"], self._epochs_done()
        if epochs is None:
            raise RecflowError("trainer.max_epochs must be a number of epochs, or -1 for no limit, got null.")
        if done and epochs != -1 and (epochs < done or (epochs == done and self.finished)):
            raise RecflowError(
                f"This run has trained {done} epochs: trainer.max_epochs must be above that, got {epochs}."
            )
        if self.config["trainer"]["fast_dev_run"]:
            raise RecflowError("trainer.fast_dev_run keeps no checkpoint to test; use --trainer.max_epochs 1 instead.")
        self._check_resumed()
        trainer = self.config["trainer"]
        if (
            trainer["max_steps"] not in (-1, None)
            or trainer["max_time"] is not None
            or trainer["limit_val_batches"] == 0
        ):
            raise RecflowError("A fit is counted in whole epochs, each validated: use --trainer.max_epochs.")
        at_once = isinstance(self.model, ClosedFormModule) and self.model.default_max_epochs == 1
        if self.earlier is not None and at_once:
            raise RecflowError(
                f"{self.spec.name} is solved in one sweep: a start would change nothing; leave out --init-from."
            )
        if self.spec.task == "rating" and not self.data.interactions.has_ratings:
            raise RecflowError(
                f"{self.spec.name} predicts ratings, and {self.data.name} has none: choose a ranking "
                "model, such as lightgcn."
            )
        threads = self.config["threads"]
        if threads is not None and threads < 1:
            raise RecflowError(f"threads must be at least 1, got {threads}.")
        if not done:
            self._begin()

    def _begin(self) -> None:
        """Let a new run's model refuse its data, or take over what it starts from."""
        self.model.metrics_config = self.metrics
        start = self.model.begin(self.data)
        if start is not None and self.earlier is not None:
            raise RecflowError(f"{self.spec.name} starts from {start} already: leave out --init-from, or those.")
        if start is not None:
            self.header["pretrained"] = start  # on the same rows, so what it is compared with stays the same

    def _check_resumed(self) -> None:
        if self.resumed is None:
            return
        if self.finished and not (self.resumed.path / "checkpoints" / "last.ckpt").is_file():
            raise RecflowError(f"{self.resumed.path} has no checkpoint to go on from (cleaned up?); fit anew.")
        if not (self.resumed.path / HEADER).is_file():
            return  # killed before it was written: nothing was trained
        begun = read_mapping(self.resumed.path / HEADER)
        differing = [name for name in (*COMPARABLE, "users", "items") if begun.get(name) != self.header.get(name)]
        if differing:
            raise RecflowError(
                f"{self.data.name} is no longer what {self.resumed.path} was begun on: {', '.join(differing)} differ; "
                "fit anew, or start from this run by --init-from."
            )

    def _earlier(self) -> Run | None:
        """The run to start from; a resumed run has its start in its checkpoint."""
        last = self.resumed and (self.resumed.path / "checkpoints" / "last.ckpt").is_file()
        if self.config["init_from"] is None or last:
            return None
        earlier = load_run(self.config["init_from"])
        earlier.require_finished()
        ours, theirs = self.data.header(), earlier.metrics["header"]
        if ours["sha256"] == theirs["sha256"] and ours["split"] != theirs["split"]:
            raise RecflowError(
                f"{earlier.path} was fitted on another split of the same data ({theirs['split']}): what it was "
                "trained on may be tested here; give it the same split and seed."
            )
        return earlier

    def _start(self) -> str:
        """Where the first vectors come from, for the header: numbers of different starts may not be compared."""
        if self.earlier is None:
            begun = (
                read_mapping(self.resumed.path / HEADER)
                if self.resumed and (self.resumed.path / HEADER).is_file()
                else {}
            )
            return str(begun.get("start", "scratch"))
        known = known_rows(self.earlier, self.data, "test")
        theirs = self.earlier.metrics["header"]
        tested = f"; {known:,} of {len(self.data.rows['test'].users):,} test rows were in its data" if known else ""
        return f"a {self.spec.name} run on {theirs['dataset']} {theirs['sha256'][:8]}, {theirs['split']}{tested}"

    def _pretrained(self) -> dict[str, Any]:
        """What a resumed run's model began with."""
        begun = self.resumed and self.resumed.path / HEADER
        known = read_mapping(begun) if begun and begun.is_file() else {}
        return {name: known[name] for name in ("pretrained",) if name in known}

    def _epochs_done(self) -> int:
        last = self.resumed.path / "checkpoints" / "last.ckpt" if self.resumed else None
        if last is None or not last.is_file():
            return 0
        return int(torch.load(last, map_location="cpu", weights_only=True)["epoch"]) + 1
