"""LightGCN as a recflow plugin."""

from recflow import ModelSpec, hookimpl


@hookimpl
def recflow_model() -> ModelSpec:
    """Describe LightGCN."""
    return ModelSpec(
        name="lightgcn",
        task="ranking",
        summary="Linear propagation of embeddings over the user–item graph, trained by BPR",
        paper="https://arxiv.org/abs/2002.02126",
        module="recflow_lightgcn.model:LightGCN",
        search_space="recflow_lightgcn.search:SPACE",
    )
