"""Names of Stable Diffusion 3's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

SD3_KEYS = KeyNames(
    original=(
        ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
        ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
        ("transformer_blocks", "joint_blocks"),
        ("norm1_context.linear", "context_block.adaLN_modulation.1"),
        ("norm1.linear", "x_block.adaLN_modulation.1"),
        ("attn.to_add_out", "context_block.attn.proj"),
        ("attn.to_out.0", "x_block.attn.proj"),
        ("attn2.to_out.0", "x_block.attn2.proj"),
        ("ff_context.net.0.proj", "context_block.mlp.fc1"),
        ("ff_context.net.2", "context_block.mlp.fc2"),
        ("ff.net.0.proj", "x_block.mlp.fc1"),
        ("ff.net.2", "x_block.mlp.fc2"),
        ("norm_out.linear", "final_layer.adaLN_modulation.1"),
        ("pos_embed.proj", "x_embedder.proj"),
        ("proj_out", "final_layer.linear"),
    ),
    fused=(
        Fused("x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v"), (1, 1, 1)),
        Fused("x_block.attn2.qkv", ("attn2.to_q", "attn2.to_k", "attn2.to_v"), (1, 1, 1)),
        Fused("context_block.attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), (1, 1, 1)),
    ),
    # the last block's context modulation has two parts only, and these the other way round
    swapped=("final_layer.adaLN_modulation.1", "context_block.adaLN_modulation.1"),
    split=True,
    layers=(
        "transformer_blocks.*.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}",
        "transformer_blocks.*.attn2.{to_q,to_k,to_v,to_out.0}",
        "transformer_blocks.*.{norm1,norm1_context}.linear",
        "transformer_blocks.*.{ff,ff_context}.net.{0.proj,2}",
        "time_text_embed.{timestep_embedder,text_embedder}.linear_{1,2}",
        "{pos_embed.proj,context_embedder,norm_out.linear,proj_out}",
    ),
    versions=("sd_3", "sd3", "stable-diffusion-v3", "stable-diffusion-3"),
)
