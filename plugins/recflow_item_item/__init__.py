"""Item–item models: a user's score is the history times a matrix of item weights."""

from recflow import ModelSpec, Plugin

ease = Plugin(
    ModelSpec(
        name="ease",
        task="ranking",
        summary="Closed-form linear autoencoder with a zero diagonal; strong, and done in seconds",
        paper="https://arxiv.org/abs/1905.03375",
        module="recflow_item_item.linear_autoencoder:EASE",
        search_space="recflow_item_item.search:EASE_SPACE",
    )
)
