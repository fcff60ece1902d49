"""Which texts are too long for a model's text encoder, so that it never sees their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolkit.models.family import Family

ENDLESS = 1 << 20
"""Tokenizers that know no limit give a huge one."""
SHOWN = 60


def too_long(family: Family, texts: Sequence[str]) -> list[str]:
    """A line that counts the texts whose end is cut off and shows the first; the tokenizers have to be loaded.

    Of several encoders, the one that takes most decides: what it sees is seen.
    """
    tokenizers = [family.parts[name] for name in family.needs["encode_prompt"] if name.startswith("tokenizer")]
    lengths = [int(getattr(tokenizer, "model_max_length", ENDLESS)) for tokenizer in tokenizers]
    if not tokenizers:
        return []
    most = max(lengths)
    limit = min(most, family.facts.text_length or most)
    if limit >= ENDLESS:
        return []
    counts = [_count(tokenizers[lengths.index(most)], text, limit) for text in texts]
    long = [(count, text) for count, text in zip(counts, texts, strict=True) if count > limit]
    if not long:
        return []
    count, text = long[0]
    return [
        f"captions that are longer than the {limit} tokens that the text encoder takes, so that it does not see their "
        f"ends: {len(long)} (first: {count} tokens, {text[:SHOWN]}...)"
    ]


def _count(tokenizer: Any, text: str, limit: int) -> int:
    # no tokenizer makes more tokens than there are bytes, and a few around them
    if len(text.encode("utf-8", "replace")) + 8 <= limit:
        return 0
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)
