"""A run's report: everything that its folder knows, on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from recflow.errors import RecflowError
from recflow.evaluation.page import Picture, Table, write_page
from recflow.evaluation.scores import Row
from recflow.evaluation.significance import LEVEL
from recflow.pictures import draw, draw_map
from recflow.runs import CURVES, Run

REPORT = "report.html"
_CAPTIONS = {
    "curves": "loss and the monitored metric, epoch by epoch",
    "precision_recall": "precision against recall as the list grows",
    "groups": "for whom it does well, and for whom not",
    "exposure": "how often items are shown, against how often they were rated",
    "calibration": "given beside predicted ratings",
    "embeddings": "the best-known items as the model sees them",
}


def report(run: Run, out: Path | None = None) -> Path:
    """Write a run's report, and whatever pictures its folder lacks.

    Args:
        run: A finished run.
        out: Where to; ``report.html`` in the run's folder if None.

    Returns:
        The page.

    Raises:
        RecflowError: If the run has not finished, was not tested, or something cannot be written.
    """
    try:
        return _report(run, run.path / REPORT if out is None else out)
    except OSError as error:
        raise RecflowError(f"{error.filename or run.path} cannot be written: {error.strerror}.") from error


def _report(run: Run, path: Path) -> Path:
    content = run.metrics
    if "test" not in content:
        raise RecflowError(f"{run.path} was fitted with --no-test: there is nothing to report; fit it anew.")
    header = content["header"]
    write_page(
        path,
        title=f"{content['plugin']} on {header['dataset']}",
        lead=_lead(run),
        small=_small(content),
        tables=[
            Table("Metrics", *_metrics(run, _chief_names(content))),
            *_groups(content),
            Table("All metrics", *_metrics(run, list(content["test"]))),
            _settings(run),
            _circumstances(header),
        ],
        pictures=list(_pictures(run)),
    )
    return path


def _intervals(run: Run) -> dict[str, tuple[float, float]]:
    return Row(run.metrics["plugin"], (run,)).intervals


def _lead(run: Run) -> list[str]:
    content = run.metrics
    test, baselines = content["test"], content["baselines"]
    chief = "rmse" if "rmse" in test else "ndcg@10" if "ndcg@10" in test else next(iter(test))
    ends = _intervals(run).get(chief)
    between = f" ({LEVEL:.0%} interval {ends[0]:.4f} to {ends[1]:.4f})" if ends else ""
    beside = ", ".join(f"{name} {found[chief]:.4f}" for name, found in baselines.items() if chief in found)
    said = [f"{chief} {test[chief]:.4f}{between} on the test part" + (f"; beside it {beside}." if beside else ".")]
    chosen = f"was chosen by {content['monitor']}" if content["val"] else "is the last: there is no validation part"
    said.append(
        f"Epoch {content['best_epoch']} of {content['epochs']} {chosen}; "
        f"{content['train_seconds']:.3g} s of training, {content['parameters']:,} parameters."
    )
    for grouping, found in content.get("groups", {}).items():
        if found.get("worst"):
            said.append(f"By {grouping}, it does worst for {_worst(found['worst'], chief)}.")
    return said


def _worst(worst: Any, chief: str) -> str:
    found = worst.get(chief, next(iter(worst.values()))) if isinstance(worst, Mapping) else worst
    return str(found)


def _small(content: Mapping[str, Any]) -> list[str]:
    header = content["header"]
    cold = header["cold"]["test"]
    return [
        f"{header['dataset']} (sha256 {header['sha256'][:12]}): {header['users']:,} users, {header['items']:,} items; "
        f"filter {header['filter']}; relevant: {header['relevance']}",
        f"{header['split']}; {header['candidates']}",
        f"cold in the test part, without a training row: {cold['users']:,} users, {cold['items']:,} items; ranking "
        f"metrics are means over {content['test_users']:,} users; intervals: bootstrap over users",
    ]


def _chief_names(content: Mapping[str, Any]) -> list[str]:
    """The errors, and the ranking metrics at one cut-off."""
    names = list(content["test"])
    cutoff = "@10" if any(name.endswith("@10") for name in names) else f"@{names[-1].partition('@')[2]}"
    return [name for name in names if "@" not in name or name.endswith(cutoff) or "_neg" in name]


def _metrics(run: Run, names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    content, ends = run.metrics, _intervals(run)
    baselines = content["baselines"]
    body = [
        [
            name,
            f"{content['test'][name]:.4f}",
            f"{ends[name][0]:.4f} – {ends[name][1]:.4f}" if name in ends else "",
            f"{content['val'][name]:.4f}" if name in content["val"] else "",
            *(f"{found[name]:.4f}" if name in found else "" for found in baselines.values()),
        ]
        for name in names
    ]
    return ["metric", "test", f"{LEVEL:.0%} interval", "validation", *baselines], body


def _groups(content: Mapping[str, Any]) -> Iterator[Table]:
    for grouping, found in content.get("groups", {}).items():
        names = list(dict.fromkeys(name for row in found["groups"] for name in row["metrics"]))
        shown = [name for name in names if name in ("rmse", "mae") or name.endswith("@10")] or names
        body = [
            [f"{row['group']}{' (few)' if row['small'] else ''}", f"{row['users']:,}"]
            + [f"{row['metrics'][name]:.4f}" if name in row["metrics"] else "" for name in shown]
            for row in found["groups"]
        ]
        yield Table(f"By {grouping}", ["group", "users", *shown], body)


def _settings(run: Run) -> Table:
    config = run.config
    rows = [(f"model.{name}", value) for name, value in config.get("model", {}).items()]
    rows += [(f"data.{name}", value) for name, value in config["data"].items() if value is not None]
    rows += [(name, config[name]) for name in ("seed", "monitor", "patience") if name in config]
    return Table("Settings", ["setting", "value"], [[name, str(value)] for name, value in rows])


def _circumstances(header: Mapping[str, Any]) -> Table:
    rows = [(name, header.get(name)) for name in ("device", "threads", "machine", "commit")]
    rows += list(header.get("versions", {}).items())
    return Table("Circumstances", ["", ""], [[name, str(value)] for name, value in rows if value is not None])


def _pictures(run: Run) -> Iterator[Picture]:
    paths = [run.path / CURVES, *draw(run, run.metrics)]
    with suppress(RecflowError):  # no vectors, too few items, or no library for maps: the page does without
        paths.append(draw_map(run))
    for path in paths:
        if path.is_file():
            yield Picture(path, _CAPTIONS.get(path.stem, path.stem))
