"""The two baselines without which no table is honest: what everybody likes, and chance."""

from recflow import ModelSpec, Plugin

popularity = Plugin(
    ModelSpec(
        name="popularity",
        task="ranking",
        summary="The items with the most training interactions, the same for everybody",
        module="recflow_basics.model:Popularity",
    )
)

random = Plugin(
    ModelSpec(
        name="random",
        task="ranking",
        summary="Scores drawn by chance, fixed by the seed: the floor of every table",
        module="recflow_basics.model:Random",
        ranker="recflow_basics.ranker:RandomRanker",
    )
)
