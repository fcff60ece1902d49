"""BLIP-2 (Li et al., 2023): a picture becomes tokens that stand before the prompt of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.captioning.captioner import Subject
from toolkit.captioning.loading import load_writer, on_device
from toolkit.captioning.writing import Writing, new_tokens, padded
from toolkit.config.plugins import WritingCaptioner
from toolkit.context import Context


class Blip2Captioner:
    """A Blip2ForConditionalGeneration with OPT or Flan-T5."""

    def __init__(self, model: Any, images: Any, tokenizer: Any, writing: Writing) -> None:
        self.model, self.images, self.tokenizer, self.writing = model, images, tokenizer, writing

    @classmethod
    def load(cls, context: Context, section: WritingCaptioner) -> Blip2Captioner:
        """From a folder or the Hub."""
        return cls(*load_writer("Blip2ForConditionalGeneration", {"blip-2"}, section, context))

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """One text per picture."""
        config = self.model.config
        queries = [config.image_token_id] * config.num_query_tokens
        rows = [[*queries, *self.tokenizer(subject.prompt).input_ids] for subject in subjects]
        # an encoder's answer does not begin where its input ends
        side = "right" if config.text_config.is_encoder_decoder else "left"
        ids, mask = padded(rows, config.text_config.pad_token_id or 0, side)
        inputs = dict(self.images([subject.image for subject in subjects], return_tensors="pt"))
        inputs |= {"input_ids": ids, "attention_mask": mask}
        found = self.writing.write(self.model, on_device(inputs, self.model), subjects, min_words)
        return self.tokenizer.batch_decode(new_tokens(found, ids), skip_special_tokens=True)
