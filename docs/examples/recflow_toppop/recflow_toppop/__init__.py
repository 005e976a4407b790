"""What is popular now, as a recflow plugin."""

from recflow import ModelSpec, hookimpl


@hookimpl
def recflow_model() -> ModelSpec:
    """Describe the model. This file is read whenever models are listed, so it imports no torch."""
    return ModelSpec(
        name="toppop",
        task="ranking",
        summary="The items with the most training interactions, recent ones counting more",
        module="recflow_toppop.model:TopPop",
        search_space="recflow_toppop.search:SPACE",
    )
