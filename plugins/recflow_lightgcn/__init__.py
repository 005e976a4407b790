"""Linear propagation over the user–item graph: LightGCN, and XSimGCL, which adds noise and contrast."""

from recflow import ModelSpec, Plugin

lightgcn = Plugin(
    ModelSpec(
        name="lightgcn",
        task="ranking",
        summary="Linear propagation of embeddings over the user–item graph, trained by BPR",
        paper="https://arxiv.org/abs/2002.02126",
        module="recflow_lightgcn.model:LightGCN",
        search_space="recflow_lightgcn.search:SPACE",
    )
)

xsimgcl = Plugin(
    ModelSpec(
        name="xsimgcl",
        task="ranking",
        summary="LightGCN with noise in every layer, and a contrastive loss between two of them",
        paper="https://arxiv.org/abs/2209.02544",
        module="recflow_lightgcn.contrastive:XSimGCL",
        search_space="recflow_lightgcn.search:XSIMGCL_SPACE",
    )
)
