"""How a language model writes: greedily, by beams, or at random with a stream of its own for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from toolkit.captioning.captioner import Subject
from toolkit.config.plugins import WritingCaptioner


@dataclass(frozen=True)
class Writing:
    """The choices of `WritingCaptioner`."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    num_beams: int = 1
    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, section: WritingCaptioner) -> Writing:
        """As a config says."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def write(self, model: Any, inputs: dict[str, Any], subjects: Sequence[Subject], min_words: int = 1) -> Tensor:
        """Token ids [B, L] of `model.generate`; whatever a checkpoint brings for sampling is set aside."""
        # a word is often more than one token; where it is not, the text gets longer than it has to be
        least = max(self.min_new_tokens, 2 * min_words if min_words > 1 else 0)
        options: dict[str, Any] = {"min_new_tokens": min(least, self.max_new_tokens)} if least else {}
        if self.temperature:
            options["logits_processor"] = self._draws(subjects)
        with torch.inference_mode():
            return model.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                num_beams=self.num_beams,
                repetition_penalty=self.repetition_penalty,
                do_sample=False,
                **options,
            )

    def _draws(self, subjects: Sequence[Subject]) -> Any:
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        chosen = [TemperatureLogitsWarper(self.temperature)]
        chosen += [TopPLogitsWarper(self.top_p)] if self.top_p < 1 else []
        return LogitsProcessorList([*chosen, Draw([self.seed + subject.seed for subject in subjects])])


class Draw:
    """Makes the likeliest token one that is drawn: logits plus Gumbel noise (Gumbel, 1954), one stream per row.

    Sampling by transformers draws for a whole batch at once, so that a caption would depend on its neighbors.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores [B, V] -> [B, V]."""
        rows = [torch.empty(scores.shape[-1]).exponential_(generator=stream) for stream in self._streams]
        return scores.float() - torch.stack(rows).log().to(scores.device)


def padded(rows: Sequence[Sequence[int]], pad: int, side: str) -> tuple[Tensor, Tensor]:
    """Token ids of several lengths -> (ids [B, L], mask [B, L]), padded at the `side` "left" or "right"."""
    length = max(map(len, rows))
    ids = torch.full((len(rows), length), pad)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[index, place] = torch.tensor(row, dtype=torch.long)
        mask[index, place] = 1
    return ids, mask


def new_tokens(ids: Tensor, prompt: Tensor) -> Tensor:
    """What was written after the prompt [B, L]; some models give the prompt back, others do not."""
    length = prompt.shape[1]
    begins_alike = ids.shape[1] >= length and torch.equal(ids[:, :length], prompt.to(ids.device))
    return ids[:, length:] if begins_alike else ids


def settle_generation(model: Any) -> Any:
    """Forget a checkpoint's own wishes for sampling and length; the config's hold."""
    for part in model.modules():
        config = getattr(part, "generation_config", None)
        if config is not None:
            for name in ("temperature", "top_p", "top_k", "max_length", "min_length"):
                setattr(config, name, None)
            config.do_sample = False
    return model
