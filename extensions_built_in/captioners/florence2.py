"""Florence-2 (Xiao et al., 2023): DaViT sees, BART writes; the prompt is a task in angle brackets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.captioning.captioner import Subject
from toolkit.captioning.loading import load_writer, on_device, read_config
from toolkit.captioning.writing import Writing
from toolkit.config.plugins import WritingCaptioner
from toolkit.context import Context


class FlorenceCaptioner:
    """A Florence2ForConditionalGeneration."""

    def __init__(self, model: Any, processor: Any, writing: Writing) -> None:
        self.model, self.processor, self.writing = model, processor, writing

    @classmethod
    def load(cls, context: Context, section: WritingCaptioner) -> FlorenceCaptioner:
        """From a folder or the Hub, in the format of transformers."""
        kinds = {"florence2"}
        if "auto_map" in read_config(section, kinds):
            raise ValueError(
                f"{section.model_name_or_path} is in the format of its own code, which is not run; take the same model "
                "in the format of transformers, such as florence-community/Florence-2-base"
            )
        return cls(*load_writer("Florence2ForConditionalGeneration", kinds, section, context, ["AutoProcessor"]))

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """One text per picture."""
        inputs = self.processor(
            images=[subject.image for subject in subjects],
            text=[subject.prompt for subject in subjects],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        ids = self.writing.write(self.model, on_device(inputs, self.model), subjects, min_words)
        return self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
