"""Names that a config written for ai-toolkit may use. One that no plugin has yet is "not supported yet", not a typo."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


UPSTREAM_NAMES: dict[str, frozenset[str]] = {
    "processes": _words("""
        sd_trainer diffusion_trainer ui_trainer textual_inversion_trainer concept_slider concept_replacer
        ultimate_slider_trainer image_reference_slider_trainer reference_generator pure_lora_generator batch_img2img
        Qwen3VLCaptioner Qwen3OmniCaptioner AceStepCaptioner Ideogram4Captioner super_tagger sync_from_collection
        vae slider slider_old rescale_sd esrgan locon rescale_lora to_folder
        """),
    "models": _words("""
        sd1 sd15 sd2 sdxl ssd vega sd3 pixart pixart_sigma auraflow flux lumina2 wan21 wan21_i2v wan22_5b wan22_14b
        wan22_14b_i2v ltx2 ltx2.3 ltx2.5 minimax_h3 minimax_h3_ref2va flex2 flux_kontext flux2 flux2_klein_4b
        flux2_klein_9b chroma chroma_radiance zeta_chroma hidream hidream_e1 hidream_o1 qwen_image qwen_image_edit
        qwen_image_edit_plus zimage zimage_l2p omnigen2 f-lite cogview4 anima ernie_image nucleus_image ideogram4
        krea2 boogu_image boogu_image_edit mageflow mageflow_edit prx_pixel ace_step_15 ace_step_15_xl
        """),
    "networks": _words("lora lokr dora locon lycoris lorm fullrank"),
    "optimizers": _words("""
        adam adamw adam8 adamw8 adam8bit adamw8bit lion lion8bit ademamix8bit adagrad adafactor prodigy prodigy8bit
        dadaptation dadaptationadam dadaptationlion automagic automagic2 automagic3 automagicexperiment
        """),
}
SCALED_BY_ALPHA = _words("sd1 sd15 sd2 sdxl ssd vega pixart pixart_sigma auraflow lokr")
"""Models and network types for which ai-toolkit multiplies the update by `linear_alpha / linear`."""
