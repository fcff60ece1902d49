"""Names of CogView4's layers in files of other programs (docs/formats.md): only diffusers reads such files."""

from toolkit.config.key_names import KeyNames

COGVIEW4_KEYS = KeyNames(
    layers=(
        "transformer_blocks.*.{attn1.{to_q,to_k,to_v,to_out.0},ff.net.{0.proj,2},norm1.linear}",
        "time_condition_embed.{timestep_embedder,condition_embedder}.linear_{1,2}",
        "{patch_embed.{proj,text_proj},norm_out.linear,proj_out}",
    ),
    versions=("cogview4",),
)
