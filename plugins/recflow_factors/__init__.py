"""Models whose score is the product of a user's and an item's vector, learnt from which items a user liked."""

from recflow import ModelSpec, Plugin

bpr_mf = Plugin(
    ModelSpec(
        name="bpr-mf",
        task="ranking",
        summary="Matrix factorisation under a pairwise or pointwise loss: the yardstick",
        paper="https://arxiv.org/abs/1205.2618",
        module="recflow_factors.sampled_mf:BPRMF",
        search_space="recflow_factors.search:BPR_MF_SPACE",
    )
)

ials = Plugin(
    ModelSpec(
        name="ials",
        task="ranking",
        summary="Implicit ALS: every pair counts a little, every interaction fully; closed form, strong and fast",
        paper="https://arxiv.org/abs/2110.14037",
        module="recflow_factors.implicit_als:IALS",
        search_space="recflow_factors.search:IALS_SPACE",
        ranker="recflow_factors.ials_ranker:IALSRanker",
    )
)
