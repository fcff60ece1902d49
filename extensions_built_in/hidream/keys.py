"""Names of HiDream-I1's layers in files of other programs (docs/formats.md): the same everywhere."""

from toolkit.config.key_names import KeyNames

HIDREAM_KEYS = KeyNames(
    # ComfyUI and diffusers both read it, and so does ai-toolkit
    default="comfyui",
    layers=(
        "{double_stream_blocks,single_stream_blocks}.*.block.attn1.to_{q,k,v,out}",
        "double_stream_blocks.*.block.{attn1.to_{q_t,k_t,v_t,out_t},ff_t.w{1,2,3}}",
        "{double_stream_blocks,single_stream_blocks}.*.block.ff_i.{shared_experts,experts.*}.w{1,2,3}",
        "{double_stream_blocks,single_stream_blocks}.*.block.adaLN_modulation.1",
        "{t_embedder.timestep_embedder,p_embedder.pooled_embedder}.linear_{1,2}",
        "{x_embedder.proj,caption_projection.*.linear,final_layer.{linear,adaLN_modulation.1}}",
    ),
    versions=("hidream_i1",),
)
