"""Names of PixArt's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

PIXART_KEYS = KeyNames(
    original=(
        ("adaln_single.emb.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("adaln_single.emb.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("adaln_single.emb.resolution_embedder.linear_1", "csize_embedder.mlp.0"),
        ("adaln_single.emb.resolution_embedder.linear_2", "csize_embedder.mlp.2"),
        ("adaln_single.emb.aspect_ratio_embedder.linear_1", "ar_embedder.mlp.0"),
        ("adaln_single.emb.aspect_ratio_embedder.linear_2", "ar_embedder.mlp.2"),
        ("adaln_single.linear", "t_block.1"),
        ("caption_projection.linear_1", "y_embedder.y_proj.fc1"),
        ("caption_projection.linear_2", "y_embedder.y_proj.fc2"),
        ("transformer_blocks", "blocks"),
        ("attn1.to_out.0", "attn.proj"),
        ("attn2.to_out.0", "cross_attn.proj"),
        ("attn2.to_q", "cross_attn.q_linear"),
        ("ff.net.0.proj", "mlp.fc1"),
        ("ff.net.2", "mlp.fc2"),
        ("pos_embed.proj", "x_embedder.proj"),
        ("proj_out", "final_layer.linear"),
    ),
    fused=(
        Fused("attn.qkv", ("attn1.to_q", "attn1.to_k", "attn1.to_v"), (1, 1, 1)),
        Fused("cross_attn.kv_linear", ("attn2.to_k", "attn2.to_v"), (1, 1)),
    ),
    layers=(
        "transformer_blocks.*.attn{1,2}.{to_q,to_k,to_v,to_out.0}",
        "transformer_blocks.*.ff.net.{0.proj,2}",
        "adaln_single.{linear,emb.{timestep_embedder,resolution_embedder,aspect_ratio_embedder}.linear_{1,2}}",
        "{pos_embed.proj,caption_projection.linear_{1,2},proj_out}",
    ),
    versions=("pixart", "pixart_sigma"),
)
