"""BLIP (Li et al., 2022): a picture encoder, and a BERT that reads it by cross attention while it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.captioning.captioner import Subject, groups
from toolkit.captioning.loading import load_writer, on_device
from toolkit.captioning.writing import Writing
from toolkit.config.plugins import WritingCaptioner
from toolkit.context import Context


class BlipCaptioner:
    """A BlipForConditionalGeneration; the prompt is the beginning of the caption."""

    def __init__(self, model: Any, images: Any, tokenizer: Any, writing: Writing) -> None:
        self.model, self.images, self.tokenizer, self.writing = model, images, tokenizer, writing

    @classmethod
    def load(cls, context: Context, section: WritingCaptioner) -> BlipCaptioner:
        """From a folder or the Hub."""
        return cls(*load_writer("BlipForConditionalGeneration", {"blip"}, section, context))

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """One text per picture."""
        prompts = [self._prompt(subject.prompt) for subject in subjects]
        texts = [""] * len(subjects)
        # BERT counts positions from the left edge, so that padding would move them: equal lengths only
        for indices in groups(len(ids) for ids in prompts):
            found = self._describe([subjects[i] for i in indices], [prompts[i] for i in indices], min_words)
            for index, text in zip(indices, found, strict=True):
                texts[index] = text
        return texts

    def _prompt(self, text: str) -> list[int]:
        """Token ids of a beginning, with the tokens around it that the model's `generate` replaces and drops."""
        return self.tokenizer(text).input_ids if text else []

    def _describe(self, subjects: list[Subject], prompts: list[list[int]], min_words: int) -> list[str]:
        import torch

        inputs = dict(self.images([subject.image for subject in subjects], return_tensors="pt"))
        if prompts[0]:
            inputs |= {"input_ids": torch.tensor(prompts), "attention_mask": torch.ones(len(prompts), len(prompts[0]))}
        ids = self.writing.write(self.model, on_device(inputs, self.model), subjects, min_words)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)
