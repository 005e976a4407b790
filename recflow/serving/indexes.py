"""Indexes of large catalogues, built while the service already answers."""

from __future__ import annotations

import logging
import time

from recflow.errors import RecflowError
from recflow.serving.models import Models

log = logging.getLogger("recflow.serving")


def build_indexes(models: Models, least_items: int | None = None) -> None:
    """Give models of many items an index, and log how good it is. Until it is ready, and without it, all are scored.

    Args:
        models: All that are served.
        least_items: How many are many; 200,000.
    """
    import torch

    from recflow.ranking.shortlist import LEAST_ITEMS, LEAST_RECALL

    torch.set_num_threads(1)  # a number is a thread's own
    for served in models:
        items, started = served.recommender.ranker.num_items, time.perf_counter()
        if items < (LEAST_ITEMS if least_items is None else least_items):
            continue
        entry = {"model": served.name, "items": items}
        try:
            built = served.recommender.build_index()
        except RecflowError as error:
            log.warning("no index: all items are scored. %s", error, extra={"entry": entry})
            continue
        entry["seconds"] = round(time.perf_counter() - started, 1)
        for name, made in built.items():
            used = name in served.recommender.shortlists
            found = {"endpoint": name, "recall@10": round(made.recall, 4), "candidates": made.candidates}
            event = "index ready" if used else f"no index: its recall is below {LEAST_RECALL}, all items are scored"
            log.log(logging.INFO if used else logging.WARNING, event, extra={"entry": entry | found})
        if not built:
            log.info("no index: the model's scores are no inner products, all items are scored", extra={"entry": entry})
