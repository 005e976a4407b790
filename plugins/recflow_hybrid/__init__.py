"""Several models as one."""

from recflow import ModelSpec, hookimpl


@hookimpl
def recflow_model() -> ModelSpec:
    """Describe the ensemble."""
    return ModelSpec(
        name="hybrid",
        task="ranking",
        summary="An ensemble of runs or plugins: reciprocal ranks, or scores with weights given or learnt",
        paper="https://doi.org/10.1145/1571941.1572114",
        module="recflow_hybrid.model:Hybrid",
        search_space="recflow_hybrid.search:SPACE",
    )
