"""Names of ERNIE-Image's layers in files of other programs (docs/formats.md): the same everywhere."""

from toolkit.config.key_names import KeyNames

ERNIE_KEYS = KeyNames(
    # ComfyUI and diffusers both read it, and so does ai-toolkit
    default="comfyui",
    layers=(
        "layers.*.{self_attention.{to_q,to_k,to_v,to_out.0},mlp.{gate_proj,up_proj,linear_fc2}}",
        "{x_embedder.proj,text_proj,time_embedding.linear_{1,2},adaLN_modulation.1,final_norm.linear,final_linear}",
    ),
    versions=("ernie_image",),
)
