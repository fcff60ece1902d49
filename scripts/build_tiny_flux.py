"""Builds the embedded FLUX.1 pipeline up to the point where this program trains its denoiser, and puts that in after.

    python scripts/build_tiny_flux.py output/tiny-flux-untrained
    aitk run config/examples/train_tiny_flux.yaml
    python scripts/build_tiny_flux.py toolkit/assets/tiny-flux --vae output/tiny-flux-untrained/vae \
        --transformer output/tiny_flux/tiny_flux/transformer

Every part is of the real diffusers and transformers class, only small: the VAE is trained here on drawn pictures, both
text encoders are random and stay so, and the denoiser is initialized. The same seed gives the same folder on the same
machine and library versions.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]

import argparse
import json

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn

from toolkit.assets import shapes
from toolkit.assets.tiny_text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from toolkit.assets.tiny_vae import (
    finer_pictures,
    measure_latents,
    new_vae,
    train_decoder,
    train_vae,
    training_pictures,
)

NUM_PICTURES = 6000


def build_vae(num_steps: int, seed: int) -> AutoencoderKL:
    """Train the VAE, measure its latents, then sharpen its decoder."""
    torch.manual_seed(seed)
    vae = new_vae()
    pictures = training_pictures(NUM_PICTURES, seed)
    train_vae(vae, pictures, num_steps, seed, lambda line: print("vae", line, flush=True))
    measure_latents(vae, pictures[:300])
    finer = finer_pictures(2 * NUM_PICTURES, seed + 1)
    train_decoder(vae, finer, num_steps * 3 // 2, seed + 1, lambda line: print("decoder", line, flush=True))
    return vae


def build_transformer(num_channels: int, pooled_width: int, text_width: int, seed: int) -> FluxTransformer2DModel:
    """An initialized denoiser of 1.9 M parameters, which first predicts 0 everywhere (as DiT's does)."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=4 * num_channels,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=text_width,
        pooled_projection_dim=pooled_width,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    for name, module in transformer.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        is_gate = name.split(".")[-2:-1] in (["norm"], ["norm1"], ["norm1_context"], ["norm_out"])
        if is_gate or name == "proj_out":
            nn.init.zeros_(module.weight)
        else:
            nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    return transformer.eval()


def build_pipeline(vae: AutoencoderKL, seed: int) -> FluxPipeline:
    """Put the whole pipeline together around a trained VAE."""
    captions = [shapes.caption(spec, with_size) for spec in shapes.all_specs() for with_size in (True, False)]
    tokenizer, tokenizer_2 = clip_tokenizer(captions), t5_tokenizer(captions)
    torch.manual_seed(seed)
    text_encoder, text_encoder_2 = clip_encoder(tokenizer), t5_encoder(tokenizer_2)
    transformer = build_transformer(
        vae.config.latent_channels, text_encoder.config.hidden_size, text_encoder_2.config.d_model, seed
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    return FluxPipeline(scheduler, vae, text_encoder, tokenizer, text_encoder_2, tokenizer_2, transformer)


def suit_older_transformers(pipeline: FluxPipeline, folder: Path) -> None:
    """Let transformers 4 load the tokenizers and CLIP too, which version 5 writes a little differently."""
    pipeline.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"T5Tokenizer"', '"T5TokenizerFast"'))
    for name in ("tokenizer", "tokenizer_2"):
        path = folder / name / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        settings.pop("extra_special_tokens", None)
        settings["tokenizer_class"] = settings["tokenizer_class"].replace("T5Tokenizer", "T5TokenizerFast")
        path.write_text(json.dumps(settings, indent=2) + "\n")
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {"text_model." + name.removeprefix("text_model."): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})


def forget_where_parts_came_from(folder: Path) -> None:
    """Drop the paths that diffusers notes in the configurations."""
    for path in folder.glob("*/config.json"):
        settings = json.loads(path.read_text())
        if settings.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Read the command line, build, save in half precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the pipeline")
    parser.add_argument("--vae", type=Path, help="take this trained VAE instead of training one")
    parser.add_argument(
        "--vae-steps", type=int, default=2700, help="default: %(default)s, about 15 minutes on one core"
    )
    parser.add_argument("--transformer", type=Path, help="take this trained denoiser: the finished pipeline")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.vae:
        vae = AutoencoderKL.from_pretrained(chosen.vae)
    else:
        vae = build_vae(chosen.vae_steps, chosen.seed)
    pipeline = build_pipeline(vae, chosen.seed)
    if chosen.transformer:
        pipeline.transformer = FluxTransformer2DModel.from_pretrained(chosen.transformer)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.transformer):
        part.half()
    pipeline.save_pretrained(chosen.out)
    suit_older_transformers(pipeline, chosen.out)
    forget_where_parts_came_from(chosen.out)
    megabytes = sum(path.stat().st_size for path in chosen.out.rglob("*") if path.is_file()) / 1e6
    print(f"{chosen.out}: {megabytes:.1f} MB, {pipeline.transformer.num_parameters() / 1e6:.2f} M in the denoiser")


if __name__ == "__main__":
    main()
