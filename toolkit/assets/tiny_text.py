"""The text side of the embedded model: real CLIP and T5 encoders, small and random, with tokenizers of their own.

Called by `scripts/build_tiny_flux.py`. Nothing here is trained but the tokenizers: the denoiser learns to read what a
random encoder says. For that, a sentence must come out so that every word, and where it stood, can be told apart:
FLUX gives its text tokens no positions, so "red" before "circle" and "red" before "background" must differ already
when they leave T5.
"""

import json
import math
import string
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

TEXT_LENGTH = 24
"""Tokens per prompt; each costs training time, and a caption takes 9 with a few more for a word spelled out."""

CLIP_GAINS = {"token_embedding": 1.0, "position_embedding": 0.5, "v_proj": 3.0, "out_proj": 1.5, "q_proj": 1.0}
START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """Byte-level BPE: words of the captions are one token each, any other text falls back to bytes."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.train_from_iterator(
        captions, trainers.BpeTrainer(vocab_size=4000, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [(left, right) for left, right in json.loads(bpe.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges), START, END]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)


def t5_tokenizer(captions: Sequence[str]) -> T5TokenizerFast:
    """Unigram: words of the captions are one token each, any other text is spelled in characters."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always", split=True)]
    )
    words.train_from_iterator(captions, trainers.WordLevelTrainer(show_progress=False))
    learned = sorted(words.get_vocab())
    spelling = ["\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, **dict.fromkeys(spelling, -12.0), **dict.fromkeys(learned, -2.0)}
    return T5TokenizerFast(vocab=list(scores.items()), extra_ids=0, model_max_length=TEXT_LENGTH)


def clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Random CLIP whose pooled output [B, 64] depends on every word and its place."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        projection_dim=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = CLIPTextModel(config)
    spread(model, CLIP_GAINS)
    return freeze(model)


def projecting_clip_encoder(tokenizer: CLIPTokenizer, width: int = 64) -> CLIPTextModelWithProjection:
    """A CLIP like `clip_encoder`, whose pooled output [B, width] has a projection of its own."""
    config = clip_encoder(tokenizer).config
    config.hidden_size = config.projection_dim = width
    model = CLIPTextModelWithProjection(config)
    spread(model, {**CLIP_GAINS, "text_projection": 1.0})
    return freeze(model)


def t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    """Random T5 whose outputs [B, L, 96] keep each word, mixed with its neighbors."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=96,
        d_kv=24,
        d_ff=192,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        is_encoder_decoder=False,
        use_cache=False,
    )
    model = T5EncoderModel(config)
    # Sharp random preferences for relative places: each head looks at a neighbor or two of its own.
    spread(model, {"relative_attention_bias": 2.5, ".v": 1.0, ".o": 0.8})
    return freeze(model)


def spread(model: nn.Module, gains: dict[str, float]) -> None:
    """Redraw weights whose module name ends so: deviation `gain` for embeddings, `gain / sqrt(inputs)` for layers."""
    for name, module in model.named_modules():
        for ending, gain in gains.items():
            if not name.endswith(ending):
                continue
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=gain)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=gain / math.sqrt(module.in_features))


def freeze(model: nn.Module) -> nn.Module:
    """Ready for use, never trained."""
    return model.eval().requires_grad_(False)


@torch.no_grad()
def encode(
    texts: Sequence[str], clip: tuple[CLIPTokenizer, CLIPTextModel], t5: tuple[T5TokenizerFast, T5EncoderModel]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled CLIP vectors [B, D] and T5 sequences [B, L, D], as FLUX's pipeline computes them."""
    parts = []
    for tokenizer, _ in (clip, t5):
        batch = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
        parts.append(batch.input_ids)
    return clip[1](parts[0]).pooler_output, t5[1](parts[1]).last_hidden_state
