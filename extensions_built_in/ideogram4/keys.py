"""Names of Ideogram 4's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

IDEOGRAM4_KEYS = KeyNames(
    original=(("attention.to_out.0", "attention.o"),),
    fused=(Fused("attention.qkv", ("attention.to_q", "attention.to_k", "attention.to_v"), (1, 1, 1)),),
    layers=(
        "layers.*.{attention.{to_q,to_k,to_v,to_out.0},feed_forward.w{1,2,3},adaln_modulation}",
        "{input_proj,llm_cond_proj,t_embedding.mlp_{in,out},adaln_proj,final_layer.{linear,adaln_modulation}}",
    ),
    versions=("ideogram4",),
)
