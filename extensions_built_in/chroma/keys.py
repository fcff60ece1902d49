"""Names of Chroma's layers in files of other programs (docs/formats.md): FLUX.1's, without modulations."""

from toolkit.config.key_names import Fused, KeyNames

CHROMA_KEYS = KeyNames(
    original=(
        ("single_transformer_blocks.*.proj_out", "single_blocks.*.linear2"),
        ("transformer_blocks", "double_blocks"),
        ("attn.to_add_out", "txt_attn.proj"),
        ("attn.to_out.0", "img_attn.proj"),
        ("ff_context.net.0.proj", "txt_mlp.0"),
        ("ff_context.net.2", "txt_mlp.2"),
        ("ff.net.0.proj", "img_mlp.0"),
        ("ff.net.2", "img_mlp.2"),
        ("distilled_guidance_layer.layers.*.linear_1", "distilled_guidance_layer.layers.*.in_layer"),
        ("distilled_guidance_layer.layers.*.linear_2", "distilled_guidance_layer.layers.*.out_layer"),
        ("context_embedder", "txt_in"),
        ("x_embedder", "img_in"),
        ("proj_out", "final_layer.linear"),
    ),
    fused=(
        Fused(
            "single_blocks.*.linear1",
            tuple(
                f"single_transformer_blocks.*.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
            ),
            (1, 1, 1, 4),
        ),
        Fused("img_attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v"), (1, 1, 1)),
        Fused("txt_attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), (1, 1, 1)),
    ),
    split=True,
    layers=(
        "transformer_blocks.*.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}",
        "transformer_blocks.*.{ff,ff_context}.net.{0.proj,2}",
        "single_transformer_blocks.*.{attn.{to_q,to_k,to_v},proj_mlp,proj_out}",
        "distilled_guidance_layer.{in_proj,out_proj,layers.*.linear_{1,2}}",
        "{context_embedder,x_embedder,proj_out}",
    ),
    versions=("chroma",),
)
