"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL: a picture becomes as many tokens as its size asks for, inside a chat.

The tokens are laid out here: the processor of transformers that would do it also wants a reader of videos, and
torchvision for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.captioning.captioner import Subject
from toolkit.captioning.loading import load_writer, on_device
from toolkit.captioning.writing import Writing, new_tokens, padded
from toolkit.context import Context

KINDS = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"}
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
PAD = "<|image_pad|>"


class QwenCaptioner:
    """A Qwen-VL for conditional generation."""

    def __init__(self, thinking: bool, model: Any, images: Any, tokenizer: Any, writing: Writing) -> None:
        self.model, self.images, self.tokenizer, self.writing = model, images, tokenizer, writing
        self.thinking = thinking

    @classmethod
    def load(cls, context: Context, section: Any) -> QwenCaptioner:
        """From a folder or the Hub."""
        return cls(section.thinking, *load_writer("AutoModelForImageTextToText", KINDS, section, context))

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """One text per picture; a thought before it, up to </think>, is left out."""
        seen = self.images([subject.image for subject in subjects], return_tensors="pt")
        counts = seen["image_grid_thw"].prod(-1) // self.images.merge_size**2
        rows = [self._row(subject.prompt, int(count)) for subject, count in zip(subjects, counts, strict=True)]
        # what is written follows the prompt, so that the prompts have to end at the same place
        ids, mask = padded(rows, self.tokenizer.pad_token_id or 0, "left")
        kinds = (ids == self.tokenizer.convert_tokens_to_ids(PAD)).int()
        inputs = {**seen, "input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds}
        found = self.writing.write(self.model, on_device(inputs, self.model), subjects, min_words)
        texts = self.tokenizer.batch_decode(new_tokens(found, ids), skip_special_tokens=True)
        return [text.rpartition("</think>")[2] for text in texts]

    def _row(self, prompt: str, count: int) -> list[int]:
        """Token ids of a chat about a picture of `count` tokens."""
        if self.tokenizer.chat_template:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": PICTURE + prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self.thinking,
            )
        else:
            text = f"<|im_start|>user\n{PICTURE}{prompt}<|im_end|>\n<|im_start|>assistant\n"
        return self.tokenizer(text.replace(PAD, PAD * count, 1)).input_ids
