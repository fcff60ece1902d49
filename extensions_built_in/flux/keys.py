"""Names of FLUX.1's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

FLUX_KEYS = KeyNames(
    original=(
        ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"),
        ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
        ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
        ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
        ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
        ("single_transformer_blocks.*.norm.linear", "single_blocks.*.modulation.lin"),
        ("single_transformer_blocks.*.proj_out", "single_blocks.*.linear2"),
        ("transformer_blocks", "double_blocks"),
        ("norm1_context.linear", "txt_mod.lin"),
        ("norm1.linear", "img_mod.lin"),
        ("attn.to_add_out", "txt_attn.proj"),
        ("attn.to_out.0", "img_attn.proj"),
        ("ff_context.net.0.proj", "txt_mlp.0"),
        ("ff_context.net.2", "txt_mlp.2"),
        ("ff.net.0.proj", "img_mlp.0"),
        ("ff.net.2", "img_mlp.2"),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
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
    swapped=("final_layer.adaLN_modulation.1",),
    split=True,
    layers=(
        "transformer_blocks.*.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}",
        "transformer_blocks.*.{norm1,norm1_context}.linear",
        "transformer_blocks.*.{ff,ff_context}.net.{0.proj,2}",
        "single_transformer_blocks.*.{attn.{to_q,to_k,to_v},proj_mlp,proj_out,norm.linear}",
        "time_text_embed.{timestep_embedder,guidance_embedder,text_embedder}.linear_{1,2}",
        "{context_embedder,x_embedder,norm_out.linear,proj_out}",
    ),
    versions=("flux.1", "flux1", "flex.2", "flux.1_kontext", "flux-1-dev", "flux-1-schnell"),
)
