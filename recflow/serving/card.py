"""The model card: what a packaged model is, what it was made of, how good it is, and where its limits are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from recflow.runs import Run, lower_is_better
from recflow.serving.models import WITHOUT_HISTORIES

_SHOWN = ("rmse", "mae", "ndcg@10", "recall@10", "hit@10", "mrr@10", "coverage@10", "novelty@10")
_BEST = ("rmse", "mae", "ndcg@10", "recall@10", "hit@10", "mrr@10")  # of the others, more is not better as such


def model_card(run: Run, *, summary: str, paper: str, licence: str, histories: bool = True) -> str:
    """Write the card of a finished run, in Markdown.

    Args:
        run: The run.
        summary: One line about the model, as its plugin says it.
        paper: Where the model comes from; may be empty.
        licence: One line on what may be done with the data; empty where it is not known.
        histories: Whether the package holds what users have rated.
    """
    metrics = run.metrics
    header = metrics["header"]
    sections = {
        f"{metrics['plugin']} on {header['dataset']}": [f"{summary}. {paper}".strip()],
        "What it is for": [_purpose(metrics["task"])],
        "Data": _data(header, licence),
        "Protocol": [
            f"- split: {header['split']}",
            f"- relevant: {header['relevance']}",
            f"- candidates: {header['candidates']}",
        ],
        "Measured": _measured(metrics),
        "How it was trained": _trained(metrics, run.config),
        "Limits": _limits(metrics, header, histories),
    }
    (title, lead), *rest = sections.items()
    parts = [f"# {title}", *lead]
    for heading, lines in rest:
        parts += ["", f"## {heading}", "", *lines]
    return "\n".join(parts) + "\n"


def _purpose(task: str) -> str:
    predicts = (
        " Its scores are predicted ratings." if task == "rating" else " Only the order of its scores has a meaning."
    )
    return f"Ranking the items that a user has not seen, for users of the data and, folded in, for newcomers.{predicts}"


def _data(header: Mapping[str, Any], licence: str) -> list[str]:
    counts = header["interactions"]
    return [
        f"- {header['dataset']}: {header['users']:,} users, {header['items']:,} items; "
        + ", ".join(f"{number:,} {part}" for part, number in counts.items())
        + " interactions",
        f"- filter: {header['filter']}; SHA-256 of the ratings: `{header['sha256']}`",
        f"- licence: {licence or 'not known to recflow; ask whoever gave you the data before passing this model on'}",
    ]


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    part = "test" if metrics.get("test") else "val"
    rows = {f"**{metrics['plugin']}**": metrics[part], **(metrics.get("baselines", {}) if part == "test" else {})}
    names = [name for name in _SHOWN if name in metrics[part]]
    lines = [
        f"On the {part} part, beside what any model must be read against:",
        "",
        f"| model | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    best = {name: _best(name, (row[name] for row in rows.values() if name in row)) for name in names}
    for model, row in rows.items():
        cells = [_cell(row.get(name), name in _BEST and row.get(name) == best[name]) for name in names]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _trained(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    header = metrics["header"]
    versions = ", ".join(f"{name} {number}" for name, number in header.get("versions", {}).items())
    lines = [
        f"Best epoch {metrics.get('best_epoch')} of {metrics.get('epochs')} by {metrics.get('monitor')}, "
        f"{metrics.get('parameters', 0):,} parameters, {metrics.get('train_seconds', 0):.1f} s on "
        f"{header.get('device')}, seed {header.get('seed')}; {versions}.",
    ]
    if config.get("model"):
        settings = yaml.safe_dump(config["model"], sort_keys=True, allow_unicode=True).rstrip()
        lines += ["", "```yaml", settings, "```"]
    return lines


def _limits(metrics: Mapping[str, Any], header: Mapping[str, Any], histories: bool) -> list[str]:
    lines = [
        "- It knows the users and items of its data; someone new is folded in from a history, or gets what is popular.",
        "- It repeats the data's habits: what was rated often is recommended often.",
    ]
    if "random" in header["split"]:
        lines.append(
            "- The split is random: measured so, a model has seen the future, and will do worse in deployment."
        )
    if not metrics.get("test"):
        lines.append("- It was not tested: the numbers are those by which the epoch was chosen, and flatter it.")
    if histories:
        lines.append("- It holds what every user of the data has rated: treat it as you treat the data.")
    else:
        lines.append(f"- {WITHOUT_HISTORIES} Their ids and what the model learnt of them are still in it.")
    return lines


def _best(name: str, values: Iterable[float]) -> float:
    return min(values) if lower_is_better(name) else max(values)


def _cell(value: float | None, best: bool) -> str:
    if value is None:
        return "n/a"
    return f"**{value:.4f}**" if best else f"{value:.4f}"
