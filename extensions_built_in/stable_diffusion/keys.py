"""Names of the U-Nets' layers in files of other programs (docs/formats.md)."""

from toolkit.config.key_names import KeyNames

_ATTENTION = "attn{1,2}.{to_q,to_k,to_v,to_out.0}"
_BLOCK = "{proj_in,proj_out,transformer_blocks.%s.{" + _ATTENTION + ",ff.net.{0.proj,2}}}"
_REST = (
    "{down_blocks.*,up_blocks.*,mid_block}.resnets.*.{conv1,conv2,conv_shortcut,time_emb_proj}",
    "{down_blocks.*.downsamplers,up_blocks.*.upsamplers}.0.conv",
    "{conv_in,conv_out,{time_embedding,add_embedding}.linear_{1,2}}",
)

SD_KEYS = KeyNames(
    default="kohya",
    # sd-scripts trains SD 1 and 2 on a U-Net with diffusers' names, and SDXL on one with the original ones
    kohya="diffusers",
    upsamplers=(1, 2, 2),
    text_encoders=("lora_te",),
    layers=("{down_blocks.{0,1,2},up_blocks.{1,2,3},mid_block}.attentions.*." + _BLOCK % "0", *_REST),
    versions=("sd_1.5", "sd_2.1", "sd_v1", "sd_v2", "stable-diffusion-v1", "stable-diffusion-v2"),
)

SDXL_KEYS = KeyNames(
    default="kohya",
    upsamplers=(2, 2),
    layers=("{down_blocks.{1,2},up_blocks.{0,1},mid_block}.attentions.*." + _BLOCK % "*", *_REST),
    versions=("sdxl_1.0", "ssd", "vega", "sdxl_base_v1-0", "sdxl_base_v0-9", "stable-diffusion-xl-v1-base"),
)
