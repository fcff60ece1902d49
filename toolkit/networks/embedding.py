"""Textual inversion: vectors of new words are trained, with all weights frozen (Gal et al., 2022, arXiv:2208.01618).

A word is a row of new tokens: `mochi`, `mochi_1`, `mochi_2` ... Their vectors are parameters of their own that the
embedding layer of a text encoder answers with, so that nothing else in it can change. `toolkit/models/text.py` puts
all tokens of a word where a text has the word; that, and the files, are as diffusers and ComfyUI read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from toolkit.models.family import Vocabulary
from toolkit.models.text import word_tokens
from toolkit.networks.files import as_saved
from toolkit.networks.keys.file import read_tensors
from toolkit.networks.network import Network

LEGACY_END = 2
"""The end token in the configuration of CLIPs published before 2023, which is not that of their tokenizer."""


class NewWord:
    """The vectors of a word's tokens in one text encoder, in the place of which its embedding layer has none."""

    def __init__(self, tokenizer: Any, encoder: Any, tokens: Sequence[str], init_words: str) -> None:
        """Adds `tokens` to the tokenizer. ValueError if it has them already, or does not know `init_words`."""
        layers = _token_embeddings(encoder)
        self.start = _start(tokenizer, layers[0], init_words, len(tokens))
        self.first = _add(tokenizer, tokens)
        self.strength = 1.0
        self.vectors = Parameter(self.start.clone())
        _read_whole_texts(encoder, tokenizer.eos_token_id)
        for layer in layers:
            layer.forward = self._answering(layer.forward)

    def acting(self) -> Tensor:
        """The vectors [n, D] with the strength that they act with; 0: those that training started from."""
        if self.strength == 1:
            return self.vectors
        return self.start + self.strength * (self.vectors - self.start)

    def _answering(self, plain: Any) -> Any:
        """The embedding layer's forward pass, with these vectors for the new ids."""

        def forward(ids: Tensor) -> Tensor:
            place = ids - self.first
            is_new = (place >= 0) & (place < len(self.vectors))
            found = plain(ids.masked_fill(is_new, 0))
            vectors = self.acting().to(found.device, found.dtype)
            return torch.where(is_new[..., None], vectors[place.clamp(0, len(vectors) - 1)], found)

        return forward


class Embedding:
    """A new word in all text encoders of a model, and its file."""

    def __init__(
        self,
        parts: Mapping[str, Any] | Any,
        vocabularies: Sequence[Vocabulary],
        trigger: str,
        num_tokens: int,
        init_words: str,
        suffix: str = ".safetensors",
        lr: float | None = None,
    ) -> None:
        """`parts`: loaded tokenizers and text encoders by name; `lr`: learning rate, default that of the denoiser."""
        self.trigger, self.suffix, self.lr = trigger, suffix, lr
        self.tokens = word_tokens(trigger, num_tokens)
        self.words = {
            vocabulary.key: _new_word(parts, vocabulary, self.tokens, init_words) for vocabulary in vocabularies
        }
        self.params: Mapping[str, Parameter] = {key: word.vectors for key, word in self.words.items()}
        self.header: Mapping[str, str] = {"network_type": "embedding", "trigger": trigger, "tokens": str(num_tokens)}

    def describe(self) -> list[str]:
        """Lines for the start of the run."""
        sizes = " and ".join(f"{key} {' x '.join(map(str, param.shape))}" for key, param in self.params.items())
        return [f"embedding of {self.trigger!r}: {sizes}"]

    def param_groups(
        self, lr: float, text_lr: float | None = None, plus_ratio: float | None = None
    ) -> list[dict[str, Any]]:
        """The vectors as one group of an optimizer."""
        return [{"params": list(self.params.values()), "lr": lr if self.lr is None else self.lr}]

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """Act with start + multiplier * (trained - start) inside the block: 0 is the word as training found it."""
        before = {key: word.strength for key, word in self.words.items()}
        for word in self.words.values():
            word.strength *= multiplier
        try:
            yield
        finally:
            for key, word in self.words.items():
                word.strength = before[key]

    def by_file(self) -> Mapping[str, Network]:
        """All of it goes into one file, which is named by the word."""
        return {file_name(self.trigger): self}

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write the file `path`: safetensors, or what torch.load reads."""
        tensors = {key: as_saved(param, dtype) for key, param in self.params.items()}
        if self.suffix == ".safetensors":
            save_file(tensors, path, {**header, "format": "pt"})
            return
        with path.open("wb") as file:
            torch.save(self._pickled(tensors), file)

    def _pickled(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """One encoder: the format of AUTOMATIC1111's web UI, which diffusers and ComfyUI read too."""
        if len(tensors) > 1:
            return dict(tensors)
        (vectors,) = tensors.values()
        return {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": self.trigger}

    @torch.no_grad()
    def read(self, path: Path, exact: bool = True) -> list[str]:
        """Continue from a file of `write`, or of another program. Raises ValueError if it is of other encoders."""
        found = _vectors(path, list(self.params))
        wrong = [key for key, param in self.params.items() if found[key].shape != param.shape]
        if wrong:
            mine, theirs = (tuple(tensors[wrong[0]].shape) for tensors in (self.params, found))
            raise ValueError(f"{path}: {wrong[0]} is {theirs}, but embedding.tokens and the model make it {mine}")
        for key, param in self.params.items():
            param.copy_(found[key])
        return []


def file_name(trigger: str) -> str:
    """What `RunFolder.weights_path` takes as the suffix of an embedding's file: its name is the word."""
    return re.sub(r"[^\w.-]", "", trigger) + "{step}"


LORA_FILE = "{name}_LoRA{step}"
"""What it takes as that of a network that is trained together with an embedding."""


def _new_word(parts: Any, vocabulary: Vocabulary, tokens: Sequence[str], init_words: str) -> NewWord:
    try:
        return NewWord(parts[vocabulary.tokenizer], parts[vocabulary.encoder], tokens, init_words)
    except ValueError as error:
        raise ValueError(f"embedding.{error} (the model's {vocabulary.tokenizer})") from error


def _token_embeddings(encoder: Any) -> list[Any]:
    """The layers that turn token ids into vectors: in T5 two share their weights."""
    shape = encoder.get_input_embeddings().weight.shape
    return [
        layer for layer in encoder.modules() if isinstance(layer, torch.nn.Embedding) and layer.weight.shape == shape
    ]


@torch.no_grad()
def _start(tokenizer: Any, layer: Any, init_words: str, count: int) -> Tensor:
    """The vectors [count, D] of the words: repeated in turn if they are fewer tokens, averaged if they are more."""
    ids = tokenizer(init_words, add_special_tokens=False).input_ids
    if not ids or tokenizer.unk_token_id in ids:
        raise ValueError(f"init_words: {init_words!r} has no token here; choose other words")
    known = layer(torch.tensor(ids, device=layer.weight.device)).float()
    if len(ids) <= count:
        return known.repeat(-(-count // len(ids)), 1)[:count].clone()
    return torch.stack([group.mean(dim=0) for group in known.tensor_split(count)])


def _add(tokenizer: Any, tokens: Sequence[str]) -> int:
    """Add the tokens and return the id of the first, which the others follow."""
    known = tokenizer.get_vocab()
    if taken := [token for token in tokens if token in known]:
        raise ValueError(f"trigger: {taken[0]!r} is a token already; choose a word that no one uses")
    for token in tokens:
        # one by one and as plain text, as diffusers adds them
        tokenizer.add_tokens(token)
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    return int(ids[0])


def _read_whole_texts(encoder: Any, end: int) -> None:
    """Let a CLIP pool at the end token: with the legacy configuration it takes the highest id, which is a new word."""
    for part in encoder.modules():
        if getattr(part, "eos_token_id", None) == LEGACY_END:
            part.eos_token_id = end


def _vectors(path: Path, keys: Sequence[str]) -> dict[str, Tensor]:
    """The vectors in a file, one tensor [n, D] per key. ValueError if they are not there."""
    if path.suffix == ".safetensors":
        found: dict[str, Any] = dict(read_tensors(path)[0])
    else:
        found = torch.load(path, map_location="cpu", weights_only=True)
    if "string_to_param" in found:
        found = found["string_to_param"]
    if len(keys) == 1 and len(found) == 1:
        found = {keys[0]: next(iter(found.values()))}
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{path}: has no {missing[0]} (but {', '.join(map(str, found))})")
    return {key: found[key] if found[key].ndim == 2 else found[key][None] for key in keys}
