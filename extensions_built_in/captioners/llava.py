"""LLaVA 1.5 (Liu et al., 2023) and fine-tunes in its format, such as JoyCaption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.captioning.captioner import Subject
from toolkit.captioning.loading import load_writer, on_device
from toolkit.captioning.writing import Writing, new_tokens
from toolkit.config.plugins import WritingCaptioner
from toolkit.context import Context


class LlavaCaptioner:
    """A LlavaForConditionalGeneration."""

    def __init__(self, model: Any, processor: Any, writing: Writing) -> None:
        self.model, self.processor, self.writing = model, processor, writing

    @classmethod
    def load(cls, context: Context, section: WritingCaptioner) -> LlavaCaptioner:
        """From a folder or the Hub."""
        return cls(*load_writer("LlavaForConditionalGeneration", {"llava"}, section, context, ["AutoProcessor"]))

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """One text per picture."""
        chats, begin = [self._chat(subject.prompt) for subject in subjects], self.processor.tokenizer.bos_token
        inputs = self.processor(
            images=[subject.image for subject in subjects],
            text=chats,
            # some templates write the token that begins a text, some leave it to the tokenizer
            add_special_tokens=not (begin and chats[0].startswith(begin)),
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        ids = self.writing.write(self.model, on_device(inputs, self.model), subjects, min_words)
        return self.processor.tokenizer.batch_decode(new_tokens(ids, inputs["input_ids"]), skip_special_tokens=True)

    def _chat(self, prompt: str) -> str:
        """A user's message with a picture, as the model was trained on it."""
        if not (self.processor.chat_template or self.processor.tokenizer.chat_template):
            return f"USER: {self.processor.image_token}\n{prompt} ASSISTANT:"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
