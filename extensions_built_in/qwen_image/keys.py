"""Names of Qwen-Image's layers in files of other programs (docs/formats.md): the same everywhere."""

from toolkit.config.key_names import KeyNames

QWEN_KEYS = KeyNames(
    # ComfyUI and diffusers both read it, and so does ai-toolkit
    default="comfyui",
    layers=(
        "transformer_blocks.*.attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out}",
        "transformer_blocks.*.{img_mlp,txt_mlp}.net.{0.proj,2}",
        "transformer_blocks.*.{img_mod,txt_mod}.1",
        "time_text_embed.timestep_embedder.linear_{1,2}",
        "{img_in,txt_in,norm_out.linear,proj_out}",
    ),
    versions=("qwen_image", "qwen_image_edit", "qwen_image_edit_plus", "qwen-image"),
)
