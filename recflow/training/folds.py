"""Cross-validation: one fit a fold, their mean and standard deviation, and nothing done twice after a break."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from recflow.errors import RecflowError
from recflow.runs import CONFIG, CROSS_VALIDATION, Run, create_run
from recflow.training.configuration import FitConfiguration, flatten, parse
from recflow.training.fit import configure, run_fit, without_frames


@dataclass(frozen=True)
class CrossValidation:
    """The finished runs of all folds.

    Args:
        path: The folder that holds them, ``fold-1`` and so on, and their summary.
        runs: One a fold.
    """

    path: Path
    runs: Sequence[Run]

    @cached_property
    def rows(self) -> dict[str, list[dict[str, float]]]:
        """Test metrics by model, the plugin's own first and then the baselines, one dictionary a fold."""
        first = self.runs[0].metrics
        if "test" not in first:
            return {}
        own = {str(first["plugin"]): [run.metrics["test"] for run in self.runs]}
        return own | {name: [run.metrics["baselines"][name] for run in self.runs] for name in first["baselines"]}

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Means over the folds by model and metric."""
        return self._over_folds(statistics.fmean)

    @property
    def deviations(self) -> dict[str, dict[str, float]]:
        """Sample standard deviations over the folds by model and metric."""
        return self._over_folds(_deviation)

    @property
    def header(self) -> Mapping[str, Any]:
        """What the numbers must be printed with: the first fold's header, said of all folds."""
        header = dict(self.runs[0].metrics["header"])
        header["split"] = f"{len(self.runs)} folds, each tested once; the first: {header['split']}"
        return header

    def write(self) -> None:
        """Write the summary."""
        first = self.runs[0].metrics
        means, deviations = self.means, self.deviations
        own = means.pop(first["plugin"], {})
        content: dict[str, Any] = {
            "plugin": first["plugin"],
            "task": first["task"],
            "monitor": first["monitor"],
            "folds": [run.path.name for run in self.runs],
            "mean": own,
            "sd": deviations.get(first["plugin"], {}),
            "baselines": {name: {"mean": mean, "sd": deviations[name]} for name, mean in means.items()},
            "header": self.header,
        }
        Run(self.path).write_text(CROSS_VALIDATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def _over_folds(self, how: Callable[[Sequence[float]], float]) -> dict[str, dict[str, float]]:
        return {
            model: {
                name: how([fold[name] for fold in folds]) for name in folds[0] if all(name in fold for fold in folds)
            }
            for model, folds in self.rows.items()
        }


def cross_validate(
    plugin: str | None = None,
    data: Any = None,
    *,
    console: Console | None = None,
    **settings: Any,
) -> CrossValidation:
    """Fit a model once for each fold; the arguments are those of :func:`~recflow.training.fit.fit`.

    Args:
        plugin: The model's name.
        data: Settings with ``folds``, such as ``{"name": "ml-100k", "split": "files", "folds": 5}``.
        console: Where progress is shown; nowhere if None.
        settings: See ``fit``.

    Raises:
        RecflowError: If something given cannot be used.
    """
    given = list(flatten({"plugin": plugin, "data": without_frames(data), **settings}))
    configuration, resumed = configure(given)
    if not configuration.cross_validates:
        raise ValueError("cross_validate needs data.folds, and no data.fold")
    return _fit_folds(configuration, resumed, console or Console(quiet=True))


def fit_or_cross_validate(args: Sequence[str], console: Console) -> Run | CrossValidation:
    """What ``recflow fit`` does with its arguments."""
    configuration, resumed = configure(args)
    if configuration.cross_validates:
        return _fit_folds(configuration, resumed, console)
    return run_fit(configuration, resumed, console)


def _fit_folds(configuration: FitConfiguration, parent: Run | None, console: Console) -> CrossValidation:
    config, folds = configuration.config, int(configuration.config["data"]["folds"])
    resolved = configuration.dump()
    _check(configuration, parent)
    if parent is None:
        name = configuration.first_fold().datamodule.dataset.name  # loaded before a folder is made
        parent = create_run(config["runs_dir"], configuration.spec.name, name, config["name"])
        parent.write_text(CONFIG, resolved)
    runs = [Run(parent.path / f"fold-{number}") for number in range(1, folds + 1)]
    try:
        for number, run in enumerate(runs, start=1):
            if run.finished:
                continue
            console.print(f"\n[bold]fold {number} of {folds}[/]")
            of_fold = parse([f"--config={parent.path / CONFIG}", f"--data.fold={number}"])
            run_fit(of_fold, run if (run.path / CONFIG).is_file() else None, console, folder=run.path)
    except BaseException:
        if any(run.path.exists() for run in runs):
            console.print(f"all folds go on by: recflow fit --resume {parent.path}", highlight=False)
        else:
            shutil.rmtree(parent.path)
        raise
    done = CrossValidation(parent.path, runs)
    if len({run.metrics["header"]["sha256"] for run in runs}) > 1:
        raise RecflowError(f"The data changed while the folds of {parent.path} were fitted; fit them anew.")
    done.write()
    return done


def _check(configuration: FitConfiguration, parent: Run | None) -> None:
    config = configuration.config
    if config["init_from"] is not None:
        raise RecflowError(
            "Folds start from scratch: what an earlier run was trained on would be tested; no --init-from."
        )
    if str(config["trainer"]["devices"]) != "1" or config["trainer"]["num_nodes"] != 1:
        raise RecflowError("Folds are fitted one after another in one process: leave out --trainer.devices.")
    changes = [arg for arg in configuration.given[2:] if not arg.startswith("--plugin=")]  # what follows --config FILE
    if parent is not None and changes:
        raise RecflowError(
            f"A cross-validation goes on as it was begun; got {' '.join(changes)}. To train a fold "
            f"longer: recflow fit --resume {parent.path / 'fold-1'} --trainer.max_epochs N."
        )


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
