"""Names of Krea 2's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import KeyNames

KREA2_KEYS = KeyNames(
    # original names behind `diffusion_model.` are what both ComfyUI and diffusers read
    default="comfyui",
    original=(
        ("time_embed.linear_1", "tmlp.0"),
        ("time_embed.linear_2", "tmlp.2"),
        ("time_mod_proj", "tproj.1"),
        ("txt_in.linear_1", "txtmlp.1"),
        ("txt_in.linear_2", "txtmlp.3"),
        ("final_layer.linear", "last.linear"),
        ("img_in", "first"),
        ("text_fusion", "txtfusion"),
        ("transformer_blocks", "blocks"),
        ("attn.to_gate", "attn.gate"),
        ("attn.to_out.0", "attn.wo"),
        ("attn.to_q", "attn.wq"),
        ("attn.to_k", "attn.wk"),
        ("attn.to_v", "attn.wv"),
        ("ff", "mlp"),
    ),
    layers=(
        "transformer_blocks.*.{attn.{to_q,to_k,to_v,to_gate,to_out.0},ff.{gate,up,down}}",
        "text_fusion.{layerwise_blocks,refiner_blocks}.*.{attn.{to_q,to_k,to_v,to_gate,to_out.0},ff.{gate,up,down}}",
        "{img_in,time_embed.linear_{1,2},time_mod_proj,txt_in.linear_{1,2},text_fusion.projector,final_layer.linear}",
    ),
    versions=("krea2",),
)
