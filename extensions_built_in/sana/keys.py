"""Names of Sana's layers in files of other programs (docs/formats.md): only diffusers reads such files."""

from toolkit.config.key_names import KeyNames

SANA_KEYS = KeyNames(
    layers=(
        "transformer_blocks.*.attn{1,2}.{to_q,to_k,to_v,to_out.0}",
        "transformer_blocks.*.ff.{conv_inverted,conv_depth,conv_point}",
        "{patch_embed.proj,time_embed.{emb.timestep_embedder.linear_{1,2},linear},caption_projection.linear_{1,2},proj_out}",
    ),
    versions=("sana",),
)
