"""Neural collaborative filtering: NeuMF and its two halves."""

from recflow import ModelSpec, Plugin

ncf = Plugin(
    ModelSpec(
        name="ncf",
        task="ranking",
        summary="NeuMF: a weighted product of embeddings and a network over others, side by side",
        paper="https://arxiv.org/abs/1708.05031",
        module="recflow_ncf.model:NeuMF",
        search_space="recflow_ncf.search:NCF_SPACE",
        ranker="recflow.ranking.mlp:MLPRanker",
    )
)

gmf = Plugin(
    ModelSpec(
        name="gmf",
        task="ranking",
        summary="Generalised matrix factorisation: a weighted product of embeddings",
        paper="https://arxiv.org/abs/1708.05031",
        module="recflow_ncf.model:GMF",
        search_space="recflow_ncf.search:GMF_SPACE",
    )
)

mlp = Plugin(
    ModelSpec(
        name="mlp",
        task="ranking",
        summary="A network over the embeddings of user and item",
        paper="https://arxiv.org/abs/1708.05031",
        module="recflow_ncf.model:MLP",
        search_space="recflow_ncf.search:MLP_SPACE",
        ranker="recflow.ranking.mlp:MLPRanker",
    )
)
