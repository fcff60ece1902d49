"""Names of Z-Image's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import Fused, KeyNames

ZIMAGE_KEYS = KeyNames(
    # ComfyUI and diffusers both read diffusers' names behind `diffusion_model.`
    default="comfyui",
    comfyui="diffusers",
    original=(
        ("all_final_layer.2-1", "final_layer"),
        ("all_x_embedder.2-1", "x_embedder"),
        ("attention.to_out.0", "attention.out"),
    ),
    fused=(Fused("attention.qkv", ("attention.to_q", "attention.to_k", "attention.to_v"), (1, 1, 1)),),
    split=True,
    layers=(
        "{layers,noise_refiner,context_refiner}.*.attention.{to_q,to_k,to_v,to_out.0}",
        "{layers,noise_refiner,context_refiner}.*.feed_forward.w{1,2,3}",
        "{layers,noise_refiner}.*.adaLN_modulation.0",
        "{all_x_embedder.2-1,all_final_layer.2-1.{linear,adaLN_modulation.1},cap_embedder.1,t_embedder.mlp.{0,2}}",
    ),
    versions=("zimage", "z-image"),
)
