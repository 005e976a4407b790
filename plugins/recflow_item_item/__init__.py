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

item_knn = Plugin(
    ModelSpec(
        name="item-knn",
        task="ranking",
        summary="An item is scored by how similar its nearest neighbours in the history are to it",
        paper="https://doi.org/10.1145/963770.963776",
        module="recflow_item_item.neighbours:ItemKNN",
        search_space="recflow_item_item.search:ITEM_KNN_SPACE",
        ranker="recflow_item_item.sparse_ranker:SparseItemItemRanker",
    )
)

item_knn_rating = Plugin(
    ModelSpec(
        name="item-knn-rating",
        task="rating",
        summary="Baselines, moved by how the user rated the item's nearest neighbours",
        paper="https://doi.org/10.1145/1644873.1644874",
        module="recflow_item_item.rated_neighbours:ItemKNNRating",
        search_space="recflow_item_item.search:ITEM_KNN_RATING_SPACE",
        ranker="recflow_item_item.rated_ranker:RatedNeighboursRanker",
    )
)
