"""The kinds of ranker that a bundle may hold: built-in ones by name, any other by the plugin that registers it."""

from __future__ import annotations

from recflow import registry
from recflow.errors import RecflowError
from recflow.ranking.ensemble import EnsembleRanker
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker

BUILT_IN: dict[str, type[Ranker]] = {
    "factor": FactorRanker,
    "item-item": ItemItemRanker,
    "ensemble": EnsembleRanker,
}


def kind_of(ranker: Ranker, plugin: str) -> str:
    """What a plugin's ranker is saved as.

    Raises:
        RecflowError: If it is neither built in nor the plugin's registered one.
    """
    for kind, built_in in BUILT_IN.items():
        if type(ranker) is built_in:
            return kind
    spec = registry.load(plugin)
    if spec.ranker and type(ranker) is registry.load_target(spec, "ranker"):
        return f"plugin:{plugin}"
    raise RecflowError(
        f"Plugin {plugin!r} returned a {type(ranker).__name__}: neither a built-in ranker nor its ModelSpec's own."
    )


def ranker_class(kind: str) -> type[Ranker]:
    """The class behind what :func:`kind_of` returned.

    Raises:
        RecflowError: If there is none.
    """
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    if kind.startswith("plugin:"):
        found: type[Ranker] = registry.load_target(registry.load(kind.removeprefix("plugin:")), "ranker")
        return found
    raise RecflowError(f"The bundle's ranker {kind!r} is unknown; known are: {', '.join(BUILT_IN)}, plugin:NAME.")
