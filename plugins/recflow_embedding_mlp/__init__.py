"""Rating prediction by embeddings, features and a small network."""

from recflow import ModelSpec, hookimpl


@hookimpl
def recflow_model() -> ModelSpec:
    """Describe the model."""
    return ModelSpec(
        name="embedding-mlp",
        task="rating",
        summary="Embeddings, user and item features and a small network, averaged over an ensemble",
        paper="https://doi.org/10.1145/2988450.2988454",
        module="recflow_embedding_mlp.model:EmbeddingMLP",
        ranker="recflow.ranking.mlp:MLPRanker",
        search_space="recflow_embedding_mlp.search:SPACE",
    )
