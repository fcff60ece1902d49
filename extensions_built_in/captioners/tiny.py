"""Tiny captioners of the real classes, random, saved as folders that the captioners load like any other."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from toolkit.models.tiny import CAPTIONS, fill_zeros, sharpen, tiny_qwen3_vl, tiny_qwen_tokenizer, tiny_qwen_vl

SIDE = 32
WIDTHS = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**WIDTHS, "image_size": SIDE, "patch_size": 16, "initializer_range": 0.2}
TAGS = (("general", 9), ("sensitive", 9), ("1girl", 0), ("long_hair", 0), ("^_^", 0), ("o_o", 0), ("hatsune_miku", 4))


def save_blip(folder: Path) -> Path:
    """A BlipForConditionalGeneration."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *sorted({word for text in CAPTIONS for word in text.split()}),
    ]
    tokenizer = BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)})
    text = {**WIDTHS, "vocab_size": len(pieces) + 1, "bos_token_id": len(pieces), "sep_token_id": 3, "eos_token_id": 3}
    config = BlipConfig(text_config={**text, "max_position_embeddings": 64}, vision_config=VISION, projection_dim=16)
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _saved(folder, _random(BlipForConditionalGeneration, config), images, tokenizer)


def save_blip2(folder: Path, kind: str = "opt") -> Path:
    """A Blip2ForConditionalGeneration with an OPT or a T5."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration, BlipImageProcessorPil

    tokenizer = _byte_tokenizer()
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    opt = {**WIDTHS, "ffn_dim": 32, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "dropout": 0.0}
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 1}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**WIDTHS, "vocab_size": 8, "max_position_embeddings": 8},
        text_config={"model_type": kind, **(opt if kind == "opt" else t5), **ids},
        num_query_tokens=3,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _saved(
        folder,
        _random(Blip2ForConditionalGeneration, config, end=2, loud=["qformer", "language_projection"]),
        images,
        tokenizer,
    )


def save_florence(folder: Path) -> Path:
    """A Florence2ForConditionalGeneration."""
    from transformers import (
        CLIPImageProcessorPil,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = _byte_tokenizer()
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    text = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128, **sizes}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
    vision = {"depths": (1, 1, 1, 1), "embed_dim": (8, 8, 8, 16), "num_heads": (1, 1, 1, 2), "num_groups": (1, 1, 1, 2)}
    config = Florence2Config(
        vision_config={**vision, "window_size": 2, "projection_dim": 32},
        text_config={"model_type": "bart", "vocab_size": len(tokenizer), **text, **ids},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    size = {"height": 64, "width": 64}
    images = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)
    # 2 x 2 cells, and one for the whole
    images.image_seq_length = 5
    model = _random(
        Florence2ForConditionalGeneration, config, end=2, loud=["model.language_model.decoder.layers.0.encoder_attn"]
    )
    return _saved(folder, model, Florence2Processor(images, tokenizer))


def save_qwen(folder: Path, kind: str = "qwen3_vl") -> Path:
    """A Qwen2.5-VL or a Qwen3-VL for conditional generation."""
    from transformers import Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

    tokenizer = tiny_qwen_tokenizer(CAPTIONS)
    is_third = kind == "qwen3_vl"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_qwen3_vl(Qwen3VLForConditionalGeneration, tokenizer) if is_third else tiny_qwen_vl(tokenizer)
        fill_zeros(model)
    model.config.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    model.config.vision_start_token_id = tokenizer.convert_tokens_to_ids("<|vision_start|>")
    model.config.vision_end_token_id = tokenizer.convert_tokens_to_ids("<|vision_end|>")
    patch = model.config.vision_config.patch_size
    size = {"shortest_edge": 4 * patch * patch, "longest_edge": 64 * patch * patch}
    return _saved(folder, model, Qwen2VLImageProcessorPil(patch_size=patch, size=size), tokenizer)


def save_llava(folder: Path) -> Path:
    """A LlavaForConditionalGeneration."""
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _byte_tokenizer()
    text = {**WIDTHS, "num_key_value_heads": 1, "vocab_size": len(tokenizer), "pad_token_id": 1, "eos_token_id": 2}
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config={"model_type": "llama", **text},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=size, crop_size=size)
    processor = LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return _saved(folder, _random(LlavaForConditionalGeneration, config), processor)


def save_tagger(folder: Path, kind: str = "vit") -> Path:
    """A classifier of transformers, a ViT or a SwinV2, with selected_tags.csv."""
    from transformers import Swinv2Config, Swinv2ForImageClassification, ViTConfig, ViTForImageClassification

    if kind == "vit":
        config = ViTConfig(**VISION, num_labels=len(TAGS))
        model = _random(ViTForImageClassification, config)
    else:
        sizes = {"image_size": SIDE, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
        model = _random(Swinv2ForImageClassification, Swinv2Config(**sizes, window_size=4, num_labels=len(TAGS)))
    saved = _saved(folder, model)
    (saved / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    write_tags(saved / "selected_tags.csv", TAGS)
    return saved


def write_tags(file: Path, tags: Sequence[tuple[str, int]]) -> None:
    """selected_tags.csv as WD's taggers have it."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([index, name, category, 1] for index, (name, category) in enumerate(tags))


def _byte_tokenizer() -> Any:
    """BART's tokenizer with <image>; it spells what is not in CAPTIONS in bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    bpe.train_from_iterator(CAPTIONS, trainer)
    learned = json.loads(bpe.to_str())["model"]
    merges = [(left, right) for left, right in learned["merges"]]
    return RobertaTokenizer(
        vocab=learned["vocab"], merges=merges, extra_special_tokens={"image_token": "<image>"}, model_max_length=512
    )


def _random(cls: Any, config: Any, end: int | None = None, loud: Sequence[str] = ()) -> Any:
    """Weights that make answers differ from picture to picture: `loud` parts say more, the token `end` is unlikely."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = fill_zeros(sharpen(cls(config), 3.0)).eval()
    for name in loud:
        sharpen(model.get_submodule(name), 10.0)
    if end is not None:
        with torch.no_grad():
            model.get_output_embeddings().weight[end] = 0
    return model


def _saved(folder: Path, model: Any, *parts: Any) -> Path:
    for part in (model, *parts):
        part.save_pretrained(folder)
    return folder
