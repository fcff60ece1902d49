"""Names of LTX-Video's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import KeyNames

LTX_KEYS = KeyNames(
    # ComfyUI and diffusers both read it; the names differ outside of the blocks only
    default="comfyui",
    original=(("proj_in", "patchify_proj"), ("time_embed", "adaln_single")),
    layers=(
        "transformer_blocks.*.{attn{1,2}.{to_q,to_k,to_v,to_out.0},ff.net.{0.proj,2}}",
        "{proj_in,proj_out,caption_projection.linear_{1,2},time_embed.{linear,emb.timestep_embedder.linear_{1,2}}}",
    ),
    versions=("ltxv", "ltx-video"),
)
