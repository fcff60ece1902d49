"""Names of OmniGen2's layers in files of other programs (docs/formats.md): the same everywhere."""

from toolkit.config.key_names import KeyNames

_BLOCKS = "{layers,noise_refiner,ref_image_refiner,context_refiner}.*."

OMNIGEN2_KEYS = KeyNames(
    default="comfyui",
    layers=(
        _BLOCKS + "{attn.{to_q,to_k,to_v,to_out.0},feed_forward.linear_{1,2,3},norm1.linear}",
        "time_caption_embed.{timestep_embedder.linear_{1,2},caption_embedder.1}",
        "{x_embedder,ref_image_patch_embedder,norm_out.linear_{1,2}}",
    ),
    versions=("omnigen2",),
)
