"""Names of Lumina 2's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

LUMINA2_KEYS = KeyNames(
    original=(
        ("time_caption_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_caption_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_caption_embed.caption_embedder", "cap_embedder"),
        ("norm_out.linear_1", "final_layer.adaLN_modulation.1"),
        ("norm_out.linear_2", "final_layer.linear"),
        ("norm1.linear", "adaLN_modulation.1"),
        ("attn.to_out.0", "attention.out"),
        ("feed_forward.linear_1", "feed_forward.w1"),
        ("feed_forward.linear_2", "feed_forward.w2"),
        ("feed_forward.linear_3", "feed_forward.w3"),
    ),
    # keys and values have fewer heads than queries
    fused=(Fused("attention.qkv", ("attn.to_q", "attn.to_k", "attn.to_v"), (1, 0, 0)),),
    layers=(
        "{layers,noise_refiner,context_refiner}.*.attn.{to_q,to_k,to_v,to_out.0}",
        "{layers,noise_refiner,context_refiner}.*.feed_forward.linear_{1,2,3}",
        "{layers,noise_refiner}.*.norm1.linear",
        "time_caption_embed.{timestep_embedder.linear_{1,2},caption_embedder.1}",
        "{x_embedder,norm_out.linear_{1,2}}",
    ),
    versions=("lumina2", "lumina-2"),
)
