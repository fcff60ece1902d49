"""How long texts are for a text encoder: tokenizers from files on this disk, loaded without torch where that works."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.config.embedded import embedded_folder

VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
NO_LIMIT = 1_000_000
"""transformers writes a number far above this where a tokenizer has no limit."""
BATCH = 4096


@dataclass(frozen=True)
class TextLength:
    """Counts the tokens of texts as one text encoder gets them."""

    name: str
    limit: int | None
    count: Callable[[Sequence[str]], list[int]]


def text_lengths(folder: Path) -> list[TextLength]:
    """The tokenizer in a folder, or those in the folder of a model in diffusers format."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    places = [folder, *sorted(folder.glob("tokenizer*"))]
    found = [place for place in places if any((place / name).is_file() for name in VOCABULARIES)]
    if not found:
        raise ValueError(f"{folder}: no tokenizer found ({', '.join(VOCABULARIES)})")
    return [TextLength(place.name, _limit(place), _counter(place)) for place in found]


def model_folder(name: str, revision: str | None = None) -> Path | None:
    """Where the tokenizers of a model are on this disk; None if they are not. Fetches nothing."""
    if (folder := embedded_folder(name) or Path(name).expanduser()).is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=["tokenizer*/*"])
    except (OSError, ValueError):
        return None
    return Path(found)


def _limit(folder: Path) -> int | None:
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text(encoding="utf-8")).get("model_max_length") if path.is_file() else None
    return int(told) if told is not None and told < NO_LIMIT else None


def _counter(folder: Path) -> Callable[[Sequence[str]], list[int]]:
    """What counts the tokens of texts."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda texts: [len(encoded.ids) for encoded in tokenizer.encode_batch(list(texts))]
    # older repositories have the vocabulary alone, which only transformers can read
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda texts: [len(ids) for ids in loaded(list(texts), verbose=False).input_ids] if texts else []
