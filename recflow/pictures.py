"""A run's pictures, drawn from its folder alone: how well it does for whom, what it shows, what it has learnt.

=========================  ===========================================================================================
``precision_recall.png``   precision against recall as the list grows; ``precision_recall.csv``: its numbers
``groups.png``             the chief metric by group; numbers in ``metrics.json`` under ``"groups"``
``exposure.png``           how often items are recommended against their popularity; numbers in ``per_item.parquet``
``calibration.png``        of rating models, given beside predicted ratings; ``calibration.csv``: its numbers
``embeddings.png``         a map of the best-known items; ``embeddings.csv``: its places. Takes seconds, so that only
                           ``recflow runs plot`` draws it
=========================  ===========================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recflow.errors import RecflowError
from recflow.runs import PER_ITEM, PLOTS, Run

if TYPE_CHECKING:
    from recflow.metrics.examine import Examination

_PRECISION_RECALL, _CALIBRATION, _EMBEDDINGS = "precision_recall", "calibration", "embeddings"
_MAPPED, _STEPS = 1000, 500  # items on the map, for vectors of few interactions say little; t-SNE's steps


def write_tables(run: Run, found: Examination) -> None:
    """Write what :func:`draw` draws from, but for the groups, which stand in the run's metrics."""
    folder = run.path / PLOTS
    folder.mkdir(exist_ok=True)
    found.per_item.write_parquet(run.path / PER_ITEM)
    found.precision_recall.write_csv(folder / f"{_PRECISION_RECALL}.csv")
    if found.calibration is not None:
        found.calibration.write_csv(folder / f"{_CALIBRATION}.csv")


def draw(run: Run, metrics: Mapping[str, Any]) -> list[Path]:
    """Draw all pictures of a test that take no time.

    Args:
        run: Where the tables are and the pictures go.
        metrics: The content of ``metrics.json``.

    Returns:
        The pictures' paths; a picture is left out where its table is missing or empty.
    """
    from recflow.plots.calibration import plot_calibration
    from recflow.plots.exposure import plot_exposure
    from recflow.plots.groups import plot_groups
    from recflow.plots.precision_recall import plot_precision_recall

    folder, of = run.path / PLOTS, f"{metrics['plugin']} on {metrics['header']['dataset']}"
    drawn = []
    if (curves := _table(folder / f"{_PRECISION_RECALL}.csv")) is not None:
        drawn.append(folder / f"{_PRECISION_RECALL}.png")
        plot_precision_recall(drawn[-1], curves, f"{of}: precision and recall")
    if groups := shown_groups(metrics):
        drawn.append(folder / "groups.png")
        plot_groups(drawn[-1], metrics["groups"], groups, f"{of}: test metrics by group")
    per_item = pl.read_parquet(run.path / PER_ITEM) if (run.path / PER_ITEM).is_file() else None
    if per_item is not None and (k := _cutoff(per_item.columns)) and per_item[f"exposure@{k}"].sum():
        drawn.append(folder / "exposure.png")
        plot_exposure(drawn[-1], per_item, k, f"{of}: popularity and exposure", metrics["plugin"])
    if (bins := _table(folder / f"{_CALIBRATION}.csv")) is not None:
        drawn.append(folder / f"{_CALIBRATION}.png")
        plot_calibration(drawn[-1], bins, f"{of}: calibration of predicted ratings")
    return drawn


def shown_groups(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Which metric to show of each grouping: a rating model's error, else nDCG, or recall where there is no nDCG."""
    chosen = {}
    for grouping, content in metrics.get("groups", {}).items():
        names = list(dict.fromkeys(name for row in content["groups"] for name in row["metrics"]))
        k = _cutoff(names)
        wanted = ("rmse", f"ndcg@{k}", f"recall@{k}") if metrics["task"] == "rating" else (f"ndcg@{k}", f"recall@{k}")
        name = next((name for name in wanted if name in names), None)
        if name is not None:
            chosen[grouping] = name
    return chosen if len(chosen) == len(metrics.get("groups", {})) else {}


def draw_map(run: Run, items: int = _MAPPED) -> Path:
    """Draw the map of item vectors: t-SNE of their directions, the most popular items only.

    van der Maaten & Hinton, JMLR 2008, https://jmlr.org/papers/v9/vandermaaten08a.html

    Args:
        run: A finished run.
        items: How many items at most.

    Returns:
        The picture's path.

    Raises:
        RecflowError: If the model has no item vectors, or too few items, or scikit-learn is not installed.
    """
    from recflow.plots.embeddings import plot_embeddings

    places = _places(run, items)
    folder = run.path / PLOTS
    folder.mkdir(exist_ok=True)
    places.write_csv(folder / f"{_EMBEDDINGS}.csv")
    header = run.metrics["header"]
    all_of_them = len(places) == header["items"]
    which = f"all {len(places):,} items" if all_of_them else f"the {len(places):,} most popular items"
    path = folder / f"{_EMBEDDINGS}.png"
    plot_embeddings(path, places, f"{run.metrics['plugin']} on {header['dataset']}: item vectors (t-SNE), {which}")
    return path


def _places(run: Run, most: int) -> pl.DataFrame:
    from recflow.plots.embeddings import COLOURED

    recommender = run.recommender
    vectors = recommender.ranker.item_embeddings()
    if vectors is None or vectors.shape[1] < 2:
        raise RecflowError(f"{run.metrics['plugin']} has no item vectors to map.")
    items = recommender.catalog.items(range(len(vectors)))
    chosen = sorted(range(len(items)), key=lambda item: (-items[item].popularity, item))[:most]
    chosen = [item for item in chosen if items[item].popularity > 0 and bool(vectors[item].abs().sum() > 0)]
    if len(chosen) < 10:
        raise RecflowError(f"A map needs at least 10 items that the model was trained on, got {len(chosen)}.")
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise RecflowError("The map of item vectors needs its package: pip install 'recflow[maps]'.") from None
    import torch

    unit = torch.nn.functional.normalize(vectors[chosen].float(), dim=1)
    unit = unit - unit.mean(dim=0)
    if unit.shape[1] > 30:  # what is left out is mostly noise
        unit = unit @ torch.linalg.svd(unit, full_matrices=False).Vh[:30].T
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    x, y = TSNE(2, init="pca", perplexity=perplexity, max_iter=_STEPS, random_state=0).fit_transform(unit.numpy()).T
    return pl.DataFrame(
        {
            "item_id": [items[item].item_id for item in chosen],
            "title": [items[item].title for item in chosen],
            "genre": main_genres([items[item].genres for item in chosen], COLOURED),
            "training": [items[item].popularity for item in chosen],
            "x": x.astype(float),
            "y": y.astype(float),
        },
        schema_overrides={"genre": pl.String},
    )


def main_genres(genres: Sequence[Sequence[str]], most: int) -> list[str | None]:
    """The genre that tells most about each item: the rarest of its genres that are among the commonest of all.

    Args:
        genres: The genres of each item.
        most: How many common genres count.

    Returns:
        A genre an item; None where it has no common one.

    Example:
        >>> main_genres([["Drama", "War"], ["Drama"], ["Drama", "War", "Western"], []], most=2)
        ['War', 'Drama', 'War', None]
    """
    counts = Counter(genre for own in genres for genre in own)
    common = sorted(counts, key=lambda genre: (-counts[genre], genre))[:most]
    return [max((genre for genre in own if genre in common), key=common.index, default=None) for own in genres]


def _table(path: Path) -> pl.DataFrame | None:
    found = pl.read_csv(path) if path.is_file() else None
    return found if found is not None and found.height else None


def _cutoff(names: list[str]) -> int | None:
    """10 if it was measured, else the largest."""
    ks = {int(k) for name in names if (k := name.partition("@")[2]).isdecimal()}
    return 10 if 10 in ks else max(ks, default=None)
