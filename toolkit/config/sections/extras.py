"""`decorator`, `guidance`: known keys that are not supported yet, or have no use."""

from toolkit.config.section import Section, idle, planned


class DecoratorSection(Section):
    """`decorator`: trained tokens beside the prompt."""

    num_tokens: int = planned(4, "Number of tokens.")


class GuidanceSection(Section):
    """`guidance`: parsed by ai-toolkit and never used."""

    target_class: str = idle("", "ai-toolkit does not read it either")
    guidance_scale: float = idle(1.0, "ai-toolkit does not read it either")
    positive_prompt: str = idle("", "ai-toolkit does not read it either")
    negative_prompt: str = idle("", "ai-toolkit does not read it either")
