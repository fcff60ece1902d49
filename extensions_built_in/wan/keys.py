"""Names of Wan's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import KeyNames

WAN_KEYS = KeyNames(
    # original names behind `diffusion_model.` are what both ComfyUI and diffusers read
    default="comfyui",
    original=(
        ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
        ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("ffn.net.0.proj", "ffn.0"),
        ("ffn.net.2", "ffn.2"),
        ("to_out.0", "o"),
        ("attn1", "self_attn"),
        ("attn2", "cross_attn"),
        ("add_k_proj", "k_img"),
        ("add_v_proj", "v_img"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("proj_out", "head.head"),
    ),
    layers=(
        "blocks.*.{attn1.{to_q,to_k,to_v,to_out.0},attn2.{to_q,to_k,to_v,to_out.0,add_k_proj,add_v_proj}}",
        "blocks.*.ffn.net.{0.proj,2}",
        "condition_embedder.{image_embedder.ff.net.{0.proj,2},{text_embedder,time_embedder}.linear_{1,2},time_proj}",
        "{patch_embedding,proj_out}",
    ),
    versions=("wan_2.1", "wan_2.2_5b", "wan_2.2_14b", "wan2.1", "wan2.2", "skyreels_v2"),
)
