"""Rating prediction by biases and factors."""

from recflow import ModelSpec, Plugin

bias_mf = Plugin(
    ModelSpec(
        name="bias-mf",
        task="rating",
        summary="Mean, biases and factors, fitted by alternating least squares in closed form",
        paper="https://doi.org/10.1109/MC.2009.263",
        module="recflow_bias_mf.model:BiasMF",
        search_space="recflow_bias_mf.search:SPACE",
    )
)
