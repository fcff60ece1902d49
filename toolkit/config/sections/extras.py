"""`embedding`, `decorator`, `guidance`, `slider`: known keys that are not supported yet."""

from typing import Any

from toolkit.config.section import Section, idle, planned


class EmbeddingSection(Section):
    """`embedding`: textual inversion."""

    trigger: str = planned("custom_embedding", "Word that the embedding replaces.")
    tokens: int = planned(4, "Number of tokens.")
    init_words: str = planned("*", "Words that it starts from.")
    save_format: str = planned("safetensors", "Format of the file: safetensors or pt.")
    trigger_class_name: str | None = planned(None, "Class of the word.")


class DecoratorSection(Section):
    """`decorator`: trained tokens beside the prompt."""

    num_tokens: int = planned(4, "Number of tokens.")


class GuidanceSection(Section):
    """`guidance`: parsed by ai-toolkit and never used."""

    target_class: str = idle("", "ai-toolkit does not read it either")
    guidance_scale: float = idle(1.0, "ai-toolkit does not read it either")
    positive_prompt: str = idle("", "ai-toolkit does not read it either")
    negative_prompt: str = idle("", "ai-toolkit does not read it either")


class SliderSection(Section):
    """`slider`: the keys of all slider processes."""

    targets: list[dict[str, Any]] = planned([], "Pairs of prompts.")
    anchors: list[dict[str, Any]] = planned([], "Prompts that stay as they are.")
    resolutions: list[list[int]] = planned([[512, 512]], "Sizes.")
    prompt_file: str | None = planned(None, "File with prompts.")
    prompt_tensors: str | None = planned(None, "File with encoded prompts.")
    batch_full_slide: bool = planned(True, "Both directions in one batch.")
    use_adapter: str | None = planned(None, "Adapter.")
    adapter_img_dir: str | None = planned(None, "Pictures of the adapter.")
    low_ram: bool = planned(False, "Save memory.")
    guidance_strength: float = planned(3.0, "Strength of the direction.")
    anchor_strength: float = planned(1.0, "Strength of the anchor.")
    positive_prompt: str = planned("", "More of this.")
    negative_prompt: str = planned("", "Less of this.")
    target_class: str = planned("", "What is changed.")
    anchor_class: str | None = planned(None, "What stays as it is.")
    additional_losses: list[str] = planned([], "More losses.")
    weight_jitter: float = planned(0.0, "Jitter of the weights.")
    img_loss_weight: float = planned(1.0, "Weight of the picture loss.")
    cfg_loss_weight: float = planned(1.0, "Weight of the guidance loss.")
    datasets: list[dict[str, Any]] = planned([], "Pairs of folders.")
