"""GraphSAGE on the user–item graph, which gives nodes it has never seen real embeddings."""

from recflow import ModelSpec, Plugin

graphsage_bpr = Plugin(
    ModelSpec(
        name="graphsage-bpr",
        task="ranking",
        summary="Mean-aggregating layers over users and items with features, a small scorer, trained by BPR",
        paper="https://arxiv.org/abs/1706.02216",
        module="recflow_graphsage.ranking:GraphSAGEBPR",
        search_space="recflow_graphsage.search:BPR_SPACE",
        ranker="recflow_graphsage.ranker:SAGERanker",
    )
)

graphsage_rating = Plugin(
    ModelSpec(
        name="graphsage-rating",
        task="rating",
        summary="graphsage-bpr's layers under a head that predicts ratings",
        paper="https://arxiv.org/abs/1706.02216",
        module="recflow_graphsage.rating:GraphSAGERating",
        search_space="recflow_graphsage.search:RATING_SPACE",
        ranker="recflow_graphsage.ranker:SAGERanker",
    )
)
