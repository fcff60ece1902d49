"""Names of LTX-2's layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import KeyNames

_ATTENTIONS = "{attn1,attn2,audio_attn1,audio_attn2,audio_to_video_attn,video_to_audio_attn}"
_EMBEDS = (
    "{time_embed,audio_time_embed,prompt_adaln,audio_prompt_adaln,av_cross_attn_video_scale_shift,"
    "av_cross_attn_audio_scale_shift,av_cross_attn_video_a2v_gate,av_cross_attn_audio_v2a_gate}"
)

LTX2_KEYS = KeyNames(
    # ComfyUI and diffusers both read it; the names differ outside of the blocks only
    default="comfyui",
    original=(
        ("av_cross_attn_video_scale_shift", "av_ca_video_scale_shift_adaln_single"),
        ("av_cross_attn_audio_scale_shift", "av_ca_audio_scale_shift_adaln_single"),
        ("av_cross_attn_video_a2v_gate", "av_ca_a2v_gate_adaln_single"),
        ("av_cross_attn_audio_v2a_gate", "av_ca_v2a_gate_adaln_single"),
        ("audio_prompt_adaln", "audio_prompt_adaln_single"),
        ("prompt_adaln", "prompt_adaln_single"),
        ("audio_time_embed", "audio_adaln_single"),
        ("time_embed", "adaln_single"),
        ("audio_proj_in", "audio_patchify_proj"),
        ("proj_in", "patchify_proj"),
    ),
    layers=(
        "transformer_blocks.*." + _ATTENTIONS + ".{to_q,to_k,to_v,to_out.0,to_gate_logits}",
        "transformer_blocks.*.{ff,audio_ff}.net.{0.proj,2}",
        _EMBEDS + ".{linear,emb.timestep_embedder.linear_{1,2}}",
        "{caption_projection,audio_caption_projection}.linear_{1,2}",
        "{proj_in,proj_out,audio_proj_in,audio_proj_out}",
    ),
    versions=("ltx2", "ltx2.3", "ltx-2"),
)
