"""CogView4 in miniature for tests: the real classes, random weights, a folder in diffusers format."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GlmModel, PreTrainedTokenizerFast

from toolkit.models.tiny import CAPTIONS, fill_zeros, tiny_kl_vae, tiny_llm


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """Write a pipeline of about 100,000 parameters."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    encoder = tiny_llm(GlmModel, tokenizer)
    transformer = CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=encoder.config.hidden_size,
        time_embed_dim=32,
        condition_dim=8,
        pos_embed_max_size=16,
        sample_size=16,
        rope_axes_dim=(16, 16),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
    )
    pipeline = CogView4Pipeline(
        transformer=fill_zeros(transformer),
        scheduler=scheduler,
        vae=tiny_kl_vae(shift=None),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """Knows the captions' words; as GLM's, it begins every text with two tokens and pads in front."""
    words = dict.fromkeys(word for caption in CAPTIONS for word in caption.split())
    vocab = {piece: index for index, piece in enumerate(["<|endoftext|>", "[gMASK]", "<sop>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", 1), ("<sop>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", padding_side="left", model_max_length=1024
    )
