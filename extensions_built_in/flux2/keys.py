"""Names of FLUX.2's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

FLUX2_KEYS = KeyNames(
    original=(
        ("time_guidance_embed.timestep_embedder.linear_1", "time_in.in_layer"),
        ("time_guidance_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        ("time_guidance_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
        ("time_guidance_embed.guidance_embedder.linear_2", "guidance_in.out_layer"),
        ("double_stream_modulation_img.linear", "double_stream_modulation_img.lin"),
        ("double_stream_modulation_txt.linear", "double_stream_modulation_txt.lin"),
        ("single_stream_modulation.linear", "single_stream_modulation.lin"),
        ("single_transformer_blocks.*.attn.to_qkv_mlp_proj", "single_blocks.*.linear1"),
        ("single_transformer_blocks.*.attn.to_out", "single_blocks.*.linear2"),
        ("transformer_blocks", "double_blocks"),
        ("attn.to_add_out", "txt_attn.proj"),
        ("attn.to_out.0", "img_attn.proj"),
        ("ff_context.linear_in", "txt_mlp.0"),
        ("ff_context.linear_out", "txt_mlp.2"),
        ("ff.linear_in", "img_mlp.0"),
        ("ff.linear_out", "img_mlp.2"),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
        ("context_embedder", "txt_in"),
        ("x_embedder", "img_in"),
        ("proj_out", "final_layer.linear"),
    ),
    fused=(
        Fused("img_attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v"), (1, 1, 1)),
        Fused("txt_attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), (1, 1, 1)),
    ),
    swapped=("final_layer.adaLN_modulation.1",),
    split=True,
    layers=(
        "transformer_blocks.*.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}",
        "transformer_blocks.*.{ff,ff_context}.linear_{in,out}",
        "single_transformer_blocks.*.attn.{to_qkv_mlp_proj,to_out}",
        "{double_stream_modulation_img,double_stream_modulation_txt,single_stream_modulation}.linear",
        "time_guidance_embed.{timestep_embedder,guidance_embedder}.linear_{1,2}",
        "{context_embedder,x_embedder,norm_out.linear,proj_out}",
    ),
    versions=("flux2", "flux2_klein_4b", "flux2_klein_9b"),
)
