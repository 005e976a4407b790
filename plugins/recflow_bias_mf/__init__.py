"""Rating prediction by biases and factors."""

from recflow import ModelSpec, Plugin

bias_only = Plugin(
    ModelSpec(
        name="bias-only",
        task="rating",
        summary="Mean and biases, no taste: what any rating model must beat",
        paper="https://doi.org/10.1145/1644873.1644874",
        module="recflow_bias_mf.means:BiasOnly",
        search_space="recflow_bias_mf.search:BIAS_ONLY_SPACE",
    )
)

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

bias_mf_features = Plugin(
    ModelSpec(
        name="bias-mf-features",
        task="rating",
        summary="Biases and factors that start from item and user features, their penalties learnt from the data",
        paper="https://arxiv.org/abs/1509.04610",
        module="recflow_bias_mf.features:BiasMFFeatures",
        search_space="recflow_bias_mf.search:FEATURES_SPACE",
        ranker="recflow_bias_mf.prior_ranker:PriorRanker",
    )
)

svd = Plugin(
    ModelSpec(
        name="svd",
        task="rating",
        summary="Biases and factors by stochastic gradient descent: Funk's SVD, with Surprise's defaults",
        paper="https://sifter.org/~simon/journal/20061211.html",
        module="recflow_bias_mf.gradient:SVD",
        search_space="recflow_bias_mf.search:SVD_SPACE",
    )
)
