"""NGCF as a recflow plugin."""

from recflow import ModelSpec, hookimpl


@hookimpl
def recflow_model() -> ModelSpec:
    """Describe NGCF."""
    return ModelSpec(
        name="ngcf",
        task="ranking",
        summary="Propagation with weights and products of neighbours, layers concatenated, trained by BPR",
        paper="https://arxiv.org/abs/1905.08108",
        module="recflow_ngcf.model:NGCF",
        search_space="recflow_ngcf.search:SPACE",
    )
