"""What the tiny instances of families share: real classes, small and random, so that tests run in a moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

CAPTIONS = ("a red circle on a blue background", "a photo of a cat, detailed", "two dogs")
"""What the tokenizers know in whole words; other texts are spelled."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Messages as Qwen's chat template lays them out."""


@torch.no_grad()
def fill_zeros(module: Any) -> Any:
    """Noise in all parameters that are zero, so that a tiny random network does not answer 0 to everything."""
    for parameter in module.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    return module


@torch.no_grad()
def sharpen(encoder: Any, factor: float = 5.0) -> Any:
    """Larger weight matrices in a random text encoder, so that its answers differ from text to text."""
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            parameter.mul_(factor)
    return encoder


def tiny_kl_vae(latent_channels: int = 4, shift: float | None = 0.1, **config: Any) -> Any:
    """An AutoencoderKL with stride 2."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=2,
        scaling_factor=0.5,
        shift_factor=shift,
        **{"use_quant_conv": False, "use_post_quant_conv": False, **config},
    )


def tiny_batch_norm_vae() -> Any:
    """An AutoencoderKLFlux2 with stride 2 and statistics that are not those of a fresh batch norm."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
    )
    vae.bn.running_mean.normal_(std=0.2)
    vae.bn.running_var.uniform_(0.1, 0.4)
    return vae


def tiny_video_vae() -> Any:
    """An AutoencoderKLQwenImage with stride 4, which takes pictures as videos of one frame."""
    from diffusers import AutoencoderKLQwenImage

    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.8, 1.2, 1.0, 0.9],
    )
    return fill_zeros(vae)


def tiny_qwen_tokenizer(texts: Sequence[str], length: int = 512) -> Any:
    """A byte-level Qwen tokenizer with merges learned from `texts`, and Qwen's special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[(left, right) for left, right in learned["merges"]],
        model_max_length=length,
        chat_template=CHAT_TEMPLATE,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "vision_start_token": "<|vision_start|>",
            "vision_end_token": "<|vision_end|>",
        },
    )
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    return tokenizer


def tiny_gemma_tokenizer(length: int = 512) -> Any:
    """A Gemma tokenizer that spells every text in letters, after the token that begins it."""
    import string

    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *string.ascii_letters, *string.digits]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocab, model_max_length=length, add_bos_token=True)


def tiny_llm(model: Any, tokenizer: Any, num_layers: int = 2, width: int = 32) -> Any:
    """A random language model of the class `model`."""
    config = model.config_class(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=num_layers,
        num_attention_heads=width // 16,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=tokenizer.pad_token_id,
    )
    return sharpen(model(config)).eval()


def tiny_mistral(model: Any, tokenizer: Any, num_layers: int = 2) -> Any:
    """A random Mistral3 of the class `model`, 16 wide, with the least that sees pictures."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1, "head_dim": 16}
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": num_layers, "num_key_value_heads": 1}
    vision = {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    config = model.config_class(
        text_config={"model_type": "mistral", **text, **sizes},
        vision_config={"model_type": "pixtral", **vision, **sizes},
    )
    return sharpen(model(config)).eval()


def tiny_qwen_vl(tokenizer: Any, num_layers: int = 2) -> Any:
    """A random Qwen2.5-VL, 32 wide, that sees pictures where `tiny_qwen_tokenizer` has their tokens."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return sharpen(Qwen2_5_VLForConditionalGeneration(config)).eval()


def tiny_qwen3_vl(model: Any, tokenizer: Any, num_layers: int = 2) -> Any:
    """A random Qwen3-VL of the class `model`, 32 wide."""
    from transformers import Qwen3VLConfig

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    )
    return sharpen(model(config)).eval()
